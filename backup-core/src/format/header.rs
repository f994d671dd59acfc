//! The plain header of every sealed object (`docs/format.md`, "Sealed objects").

use crate::error::{Error, Result};
use crate::id::{RepositoryId, SessionId};
use crate::limits;

/// Length of the header.
pub(crate) const HEADER_LENGTH: usize = 128;
/// What every sealed object begins with: not text, damaged by transfers in text mode.
pub(crate) const MAGIC: [u8; 8] = *b"\x89BKUP\r\n\x1a";
/// The version of the format.
pub(crate) const MAJOR: u8 = 1;
/// AES-256-GCM under keys of HKDF-SHA256, hedged and named by BLAKE3.
pub(crate) const SUITE: u8 = 1;
/// Smallest frame: 4 KiB.
pub(crate) const MIN_FRAME_LOG2: u8 = 12;
/// Largest frame: 1 MiB.
pub(crate) const MAX_FRAME_LOG2: u8 = 20;
/// Most frames in an object.
pub(crate) const MAX_FRAMES: u32 = 4096;
/// Bytes that authenticate a frame.
pub(crate) const TAG_LENGTH: u64 = 16;

pub(crate) const HEADER_BYTES: u64 = 128;
const COMMITMENT: std::ops::Range<usize> = 96..128;

/// The header of a sealed object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The number of the object's type.
    pub(crate) kind: u8,
    /// Frames hold `1 << frame_log2` bytes of plaintext.
    pub(crate) frame_log2: u8,
    /// How many frames follow, all full.
    pub(crate) frames: u32,
    /// The repository the object belongs to.
    pub(crate) repository: RepositoryId,
    /// The root key generation, 0 where the key does not depend on one.
    pub(crate) generation: u32,
    /// The session that wrote the object, zero where there was none.
    pub(crate) session: SessionId,
    /// What the object's key is derived with.
    pub(crate) salt: [u8; 32],
    /// What only the right key yields.
    pub(crate) commitment: [u8; 32],
}

impl Header {
    /// The bytes on storage.
    pub(crate) fn encode(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        let parts: [&[u8]; 11] = [
            &MAGIC,
            &[MAJOR, self.kind, SUITE, self.frame_log2],
            &[0; 4],
            self.repository.as_bytes(),
            &self.generation.to_le_bytes(),
            &self.frames.to_le_bytes(),
            self.session.as_bytes(),
            &[0; 2],
            &[0; 6],
            &self.salt,
            &self.commitment,
        ];
        bytes.iter_mut().zip(parts.into_iter().flatten()).for_each(|(out, byte)| *out = *byte);
        bytes
    }

    /// Parses the first bytes of an object of `size` bytes and checks every rule that needs no key.
    /// Version and flags come before the length formula, so that what a later version writes is
    /// called unsupported rather than damaged.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] or [`Error::Unsupported`] with `what` and `name`.
    pub(crate) fn parse(bytes: &[u8], size: u64, what: &'static str, name: &str) -> Result<Self> {
        let damaged = |reason: &str| Error::damaged(what, name, reason);
        let unsupported = |what: &'static str, number: u32| Error::unsupported(what, format!("{number} of {name}"));
        let Some((bytes, _)) = bytes.split_first_chunk::<HEADER_LENGTH>() else {
            return Err(damaged("shorter than its header"));
        };
        let mut rest = bytes.as_slice();
        if take::<8>(&mut rest) != MAGIC {
            return Err(damaged("does not begin like a sealed object"));
        }
        let [major, kind, suite, frame_log2] = take(&mut rest);
        if major != MAJOR {
            return Err(unsupported("format version", major.into()));
        }
        let flags = u32::from_le_bytes(take(&mut rest));
        if flags != 0 {
            return Err(unsupported("object flags", flags));
        }
        if suite != SUITE {
            return Err(unsupported("cipher suite", suite.into()));
        }
        let repository = RepositoryId::new(take(&mut rest));
        let generation = u32::from_le_bytes(take(&mut rest));
        let frames = u32::from_le_bytes(take(&mut rest));
        let session = SessionId::new(take(&mut rest));
        let envelope = u16::from_le_bytes(take(&mut rest));
        if envelope != 0 {
            return Err(unsupported("object envelope", envelope.into()));
        }
        if take::<6>(&mut rest) != [0; 6] {
            return Err(damaged("reserved bytes are not zero"));
        }
        let (salt, commitment) = (take(&mut rest), take(&mut rest));
        if !(MIN_FRAME_LOG2..=MAX_FRAME_LOG2).contains(&frame_log2) || !(1..=MAX_FRAMES).contains(&frames) {
            return Err(damaged("size or number of frames out of range"));
        }
        let header = Self { kind, frame_log2, frames, repository, generation, session, salt, commitment };
        if header.object_size() != size {
            return Err(damaged("length differs from what its header says"));
        }
        if size > limits::OBJECT {
            return Err(Error::limit(format!("size of {name}"), size, limits::OBJECT));
        }
        Ok(header)
    }

    /// The header with its commitment zeroed: what the object's key depends on.
    pub(crate) fn bound_bytes(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = self.encode();
        if let Some(commitment) = bytes.get_mut(COMMITMENT) {
            commitment.fill(0);
        }
        bytes
    }

    /// Plaintext bytes in a frame.
    pub(crate) fn frame_size(&self) -> u64 {
        1 << self.frame_log2.min(MAX_FRAME_LOG2)
    }

    /// Plaintext bytes in all frames. At most 4 GiB.
    pub(crate) fn plaintext_size(&self) -> u64 {
        self.frame_size().saturating_mul(u64::from(self.frames))
    }

    /// Where the ciphertext of a frame begins in the object.
    pub(crate) fn frame_offset(&self, frame: u32) -> u64 {
        // At most 2^20 + 16 times 2^32: far from the end of 64 bits.
        let stored = self.frame_size().saturating_add(TAG_LENGTH);
        u64::from(frame).saturating_mul(stored).saturating_add(HEADER_BYTES)
    }

    /// The length of the whole object.
    pub(crate) fn object_size(&self) -> u64 {
        self.frame_offset(self.frames)
    }
}

const _: () = assert!(HEADER_LENGTH == 128 && HEADER_BYTES == 128 && MAGIC.len() == 8);

/// The next `N` bytes. The header has exactly as many bytes as `parse` takes.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk::<N>() {
        Some((taken, behind)) => {
            *rest = behind;
            *taken
        }
        None => [0; N],
    }
}

/// The size to which Padmé pads: it hides all but a fraction of the length, at a cost below 12 %.
pub(crate) fn padme(length: u64) -> u64 {
    let Some(exponent) = length.checked_ilog2().filter(|exponent| *exponent > 0) else {
        return length;
    };
    let kept = exponent.ilog2().saturating_add(1);
    let mask = (1u64 << exponent.saturating_sub(kept)).saturating_sub(1);
    length.checked_add(mask).map_or(length, |sum| sum & !mask)
}

/// The number of frames of `1 << frame_log2` bytes that hold `plaintext` bytes; at least one.
pub(crate) fn frames_for(plaintext: u64, frame_log2: u8) -> u64 {
    plaintext.div_ceil(1 << frame_log2.min(MAX_FRAME_LOG2)).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Header {
        Header {
            kind: 2,
            frame_log2: 12,
            frames: 3,
            repository: RepositoryId::new([1; 16]),
            generation: 0x0403_0201,
            session: SessionId::new([2; 16]),
            salt: [3; 32],
            commitment: [4; 32],
        }
    }

    #[test]
    fn layout_is_the_documented_one() {
        let bytes = sample().encode();
        assert_eq!(bytes[..12], *b"\x89BKUP\r\n\x1a\x01\x02\x01\x0c");
        assert_eq!(bytes[12..16], [0; 4]);
        assert_eq!(bytes[16..32], [1; 16]);
        assert_eq!(bytes[32..36], [1, 2, 3, 4]);
        assert_eq!(bytes[36..40], [3, 0, 0, 0]);
        assert_eq!(bytes[40..56], [2; 16]);
        assert_eq!(bytes[56..64], [0; 8]);
        assert_eq!(bytes[64..96], [3; 32]);
        assert_eq!(bytes[96..], [4; 32]);
        assert_eq!(sample().bound_bytes()[..96], bytes[..96]);
        assert_eq!(sample().bound_bytes()[96..], [0; 32]);
        assert_eq!(sample().object_size(), 128 + 3 * (4096 + 16));
        assert_eq!(Header::parse(&bytes, sample().object_size(), "pack", "p").unwrap(), sample());
    }

    #[test]
    fn every_wrong_field_is_refused() {
        let size = sample().object_size();
        let parse = |change: &dyn Fn(&mut [u8; 128])| {
            let mut bytes = sample().encode();
            change(&mut bytes);
            Header::parse(&bytes, size, "pack", "p").map(drop).map_err(|error| error.to_string())
        };
        for (change, message) in [
            (&(|bytes: &mut [u8; 128]| bytes[0] = 0) as &dyn Fn(&mut [u8; 128]), "begin"),
            (&|bytes| bytes[8] = 2, "unsupported format version: 2 of p"),
            (&|bytes| bytes[10] = 2, "unsupported cipher suite"),
            (&|bytes| bytes[11] = 11, "frames"),
            (&|bytes| bytes[11] = 21, "frames"),
            (&|bytes| bytes[11] = 255, "frames"),
            (&|bytes| bytes[11] = 13, "length"),
            (&|bytes| bytes[12] = 1, "unsupported object flags"),
            (&|bytes| bytes[15] = 1, "unsupported object flags"),
            (&|bytes| bytes[36] = 0, "frames"),
            (&|bytes| bytes[37] = 0x10, "frames"),
            (&|bytes| bytes[36] = 4, "length"),
            (&|bytes| bytes[56] = 1, "unsupported object envelope"),
            (&|bytes| bytes[63] = 1, "reserved"),
        ] {
            let error = parse(change).unwrap_err();
            assert!(error.contains(message), "{error} does not say {message}");
        }
        for wrong in [0, 127, 128, size - 1, size + 1, u64::MAX] {
            assert!(Header::parse(&sample().encode(), wrong, "pack", "p").is_err());
        }
        for short in 0..128 {
            assert!(Header::parse(&sample().encode()[..short], size, "pack", "p").is_err());
        }
        let huge = Header { frame_log2: 20, frames: 4096, ..sample() };
        assert!(matches!(
            Header::parse(&huge.encode(), huge.object_size(), "pack", "p"),
            Err(Error::LimitExceeded { .. })
        ));
    }

    #[test]
    fn padme_is_the_published_function() {
        for (length, padded) in
            [(0, 0), (1, 1), (2, 2), (8, 8), (9, 10), (100, 104), (1000, 1024), (1_000_000, 1_015_808)]
        {
            assert_eq!(padme(length), padded, "{length}");
        }
        assert_eq!(padme(u64::MAX), u64::MAX);
    }

    /// Every value of every byte of a header, one at a time, against what docs/format.md says of that byte.
    #[test]
    fn every_value_of_every_byte() {
        let original = sample().encode();
        for position in 0..HEADER_LENGTH {
            for value in 0..=255u8 {
                let mut bytes = original;
                bytes[position] = value;
                let number = |range: std::ops::Range<usize>| {
                    bytes[range].iter().rev().fold(0u128, |number, byte| number << 8 | u128::from(*byte))
                };
                let (log2, frames) = (u32::from(bytes[11]), number(36..40));
                let allowed = bytes[..8] == original[..8]
                    && (bytes[8], bytes[10]) == (1, 1)
                    && (12..=20).contains(&log2)
                    && bytes[12..16] == [0; 4]
                    && (1..=4096).contains(&frames)
                    && bytes[56..64] == [0; 8];
                // The object is as long as its header says, where that is a length at all.
                let size = 128 + frames * ((1u128 << log2.min(80)) + 16);
                let parsed = Header::parse(&bytes, u64::try_from(size).unwrap_or(u64::MAX), "object", "o");
                assert_eq!(parsed.is_ok(), allowed && size <= 4 << 30, "byte {position} = {value}");
                if let Ok(header) = parsed {
                    assert_eq!(header.encode(), bytes);
                    for wrong in [size - 1, size + 1, size + (1 << 32)] {
                        let wrong = u64::try_from(wrong).unwrap();
                        assert!(Header::parse(&bytes, wrong, "object", "o").is_err(), "byte {position} = {value}");
                    }
                }
            }
        }
    }

    /// Sizes and offsets at the ends of what the fields can hold, in arithmetic that cannot overflow.
    #[test]
    fn geometry_at_the_limits() {
        let edges = [0, 1, 2, 4095, 4096, 4097, u32::MAX - 1, u32::MAX];
        for frame_log2 in 0..=255u8 {
            for frames in edges {
                let header = Header { frame_log2, frames, ..sample() };
                let frame = 1u128 << frame_log2.min(20);
                assert_eq!(u128::from(header.plaintext_size()), u128::from(frames) * frame);
                assert_eq!(u128::from(header.object_size()), 128 + u128::from(frames) * (frame + 16));
                for at in edges {
                    assert_eq!(u128::from(header.frame_offset(at)), 128 + u128::from(at) * (frame + 16));
                }
            }
            for plaintext in [0, 1, 4095, 4096, 4097, 65_536, u64::MAX - 1, u64::MAX] {
                let frame = 1u128 << frame_log2.min(20);
                let expected = u128::from(plaintext).div_ceil(frame).max(1);
                assert_eq!(u128::from(frames_for(plaintext, frame_log2)), expected);
            }
        }
    }

    /// Padmé as docs/format.md defines it, with numbers that have room.
    fn padme_of_the_document(length: u64) -> u128 {
        let length = u128::from(length);
        if length < 2 {
            return length;
        }
        let floor_log2 = |number: u128| u128::from(127 - number.leading_zeros());
        let e = floor_log2(length);
        if e == 0 {
            return length;
        }
        let s = floor_log2(e) + 1;
        let m = (1u128 << e.saturating_sub(s)) - 1;
        (length + m) & !m
    }

    #[test]
    fn padme_of_every_length_below_2_to_the_20_and_around_every_power_of_two() {
        let around = (0..64).flat_map(|bit| {
            let power = 1u64 << bit;
            let near = (0..=64u64).flat_map(move |by| [power.saturating_sub(by), power.saturating_add(by)]);
            near.chain([power | power >> 1, (power | power >> 1).wrapping_sub(1), u64::MAX >> bit])
        });
        for length in (0..1 << 20).chain(around) {
            let expected = padme_of_the_document(length);
            match u64::try_from(expected) {
                Ok(expected) => assert_eq!(padme(length), expected, "{length}"),
                // No object is so long. What matters is that nothing is cut off.
                Err(_) => assert!(padme(length) >= length, "{length}"),
            }
        }
    }

    proptest! {
        #[test]
        fn padding_grows_little_and_never_shrinks(length in 0..1u64 << 40, more in 0..1u64 << 20) {
            let padded = padme(length);
            prop_assert!(padded >= length && padded - length <= length / 8);
            prop_assert_eq!(padme(padded), padded);
            prop_assert!(padme(length + more) >= padded);
        }

        #[test]
        fn arbitrary_headers_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), size in any::<u64>()) {
            let mut bytes = bytes;
            if bytes.len() >= 12 {
                bytes[..11].copy_from_slice(b"\x89BKUP\r\n\x1a\x01\x02\x01");
            }
            if let Ok(header) = Header::parse(&bytes, size, "pack", "p") {
                prop_assert_eq!(header.object_size(), size);
            }
        }
    }
}
