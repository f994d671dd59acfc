//! What holds for sealing and opening together.

use std::sync::Arc;

use proptest::prelude::*;

use super::keys::{FrameKey, GenerationKeys, frame_nonce};
use super::*;
use crate::crypto::{AeadProvider, AesGcm};
use crate::entropy::{Entropy, EntropyError, SeededEntropy};
use crate::error::ErrorKind;
use crate::format::config::Padding;
use crate::format::header::{HEADER_LENGTH, Header};
use crate::id::{RepositoryId, SessionId};
use crate::secret::Secret;

const SESSION: SessionId = SessionId::new([9; 16]);
const REPOSITORY: RepositoryId = RepositoryId::new([1; 16]);
const SEALABLE: [ObjectType; 4] = [ObjectType::DataPack, ObjectType::MetaPack, ObjectType::Index, ObjectType::Body];

fn keys_of(repository: u8, roots: &[(u32, u8)], dedup: u8, seed: u64) -> ObjectKeys {
    keys_with(repository, roots, dedup, Arc::new(AesGcm), Arc::new(SeededEntropy::new(seed)))
}

fn keys_with(
    repository: u8,
    roots: &[(u32, u8)],
    dedup: u8,
    provider: Arc<dyn AeadProvider>,
    entropy: Arc<dyn Entropy>,
) -> ObjectKeys {
    let roots: Vec<_> = roots.iter().map(|(generation, byte)| (*generation, Secret::copy_of(&[*byte; 32]))).collect();
    ObjectKeys::new(RepositoryId::new([repository; 16]), &roots, &Secret::copy_of(&[dedup; 32]), provider, entropy)
        .unwrap()
}

fn keys() -> ObjectKeys {
    keys_of(1, &[(1, 0x11)], 0xdd, 7)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|position| (position * 7 + position / 251 + 1) as u8).collect()
}

/// Body lengths around every boundary: no body, one byte, full frames, the change of the frame size.
fn lengths() -> Vec<usize> {
    let mut lengths = vec![0, 1, 7, 8, 9];
    for frames in [1, 2, 3, 15, 16] {
        lengths.extend((frames * 4096 - 10)..(frames * 4096 + 2));
    }
    for frames in [2, 3, 5] {
        lengths.extend((frames * 65_536 - 10)..(frames * 65_536 - 6));
    }
    lengths
}

#[test]
fn bodies_of_all_boundary_lengths_round_trip() {
    let keys = keys();
    for length in lengths() {
        let body = pattern(length);
        for padding in [Padding::Padme, Padding::Frames] {
            let kind = SEALABLE[length % 4];
            let sealed = keys.seal(kind, &SESSION, &[&body], padding).unwrap();
            assert_eq!(keys.open(kind, "k", &sealed.bytes).unwrap(), body, "{length}");
            verify_name(kind.name(), "k", &sealed.name, &sealed.bytes).unwrap();
            let header = Header::parse(&sealed.bytes, sealed.bytes.len() as u64, "pack", "k").unwrap();
            assert_eq!(header.frame_log2, if length + 8 > 65_536 { 16 } else { 12 }, "{length}");
            if padding == Padding::Frames {
                assert_eq!(u64::from(header.frames), (length as u64 + 8).div_ceil(header.frame_size()), "{length}");
            }
        }
    }
}

#[test]
fn parts_are_concatenated_and_the_buffer_is_allocated_once() {
    let body = pattern(200_000);
    let whole = keys().seal(ObjectType::DataPack, &SESSION, &[&body], Padding::Padme).unwrap();
    let parts: Vec<&[u8]> = [0..0, 0..1, 1..4096, 4096..4096, 4096..150_000, 150_000..200_000, 0..0]
        .into_iter()
        .map(|range| &body[range])
        .collect();
    let gathered = keys().seal(ObjectType::DataPack, &SESSION, &parts, Padding::Padme).unwrap();
    assert_eq!(gathered.bytes, whole.bytes);
    assert_eq!(gathered.name, whole.name);
    let vector = Vec::from(whole.bytes);
    assert_eq!(vector.capacity(), vector.len());
}

#[test]
fn every_flipped_bit_is_rejected() {
    let keys = keys();
    for kind in [ObjectType::DataPack, ObjectType::Index] {
        let sealed = keys.seal(kind, &SESSION, &[b"something small"], Padding::Padme).unwrap();
        let mut object = sealed.bytes.to_vec();
        for bit in 0..object.len() * 8 {
            object[bit / 8] ^= 1 << (bit % 8);
            assert!(keys.open(kind, "k", &object).is_err(), "bit {bit} of {kind:?}");
            assert!(verify_name("pack", "k", &sealed.name, &object).is_err());
            object[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(keys.open(kind, "k", &object).is_ok());
    }
}

#[test]
fn truncated_and_extended_objects_are_rejected() {
    let keys = keys();
    let sealed = keys.seal(ObjectType::Body, &SESSION, &[&pattern(9000)], Padding::Frames).unwrap();
    for length in 0..sealed.bytes.len() {
        assert!(keys.open(ObjectType::Body, "k", &sealed.bytes[..length]).is_err(), "{length}");
    }
    for more in [1, 16, 4096, 4112] {
        assert!(keys.open(ObjectType::Body, "k", &[&sealed.bytes[..], &vec![0; more]].concat()).is_err(), "{more}");
    }
    // Whole frames removed, and the number of frames in the header corrected.
    for frames in [1, 2] {
        let mut shorter = sealed.bytes[..HEADER_LENGTH + frames * 4112].to_vec();
        shorter[36] = frames as u8;
        let error = keys.open(ObjectType::Body, "k", &shorter).unwrap_err();
        assert!(error.to_string().contains("keys of this repository"), "{error}");
    }
}

#[test]
fn exchanged_frames_are_rejected() {
    let keys = keys();
    let sealed = keys.seal(ObjectType::Body, &SESSION, &[&[0; 9000]], Padding::Frames).unwrap();
    let frame = |number: usize| HEADER_LENGTH + number * 4112..HEADER_LENGTH + (number + 1) * 4112;
    for (one, other) in [(0, 1), (1, 2), (0, 2)] {
        let mut object = sealed.bytes.to_vec();
        object[frame(one)].copy_from_slice(&sealed.bytes[frame(other)]);
        object[frame(other)].copy_from_slice(&sealed.bytes[frame(one)]);
        let error = keys.open(ObjectType::Body, "k", &object).unwrap_err();
        assert_eq!(error.to_string(), format!("damaged backup body k: frame {one} is not authentic"));
    }
}

#[test]
fn objects_open_only_as_what_they_are() {
    let keys = keys();
    for kind in SEALABLE {
        let sealed = keys.seal(kind, &SESSION, &[b"body"], Padding::Padme).unwrap();
        for other in SEALABLE {
            assert_eq!(keys.open(other, "k", &sealed.bytes).is_ok(), kind == other, "{kind:?} as {other:?}");
            // A header that claims the other type does not help.
            let mut retyped = sealed.bytes.to_vec();
            retyped[9] = other.number();
            assert_eq!(keys.open(other, "k", &retyped).is_ok(), kind == other, "{kind:?} as {other:?}");
        }
        assert!(keys.open(ObjectType::Keyring, "k", &sealed.bytes).is_err());
        for (strange, reason) in [
            (keys_of(2, &[(1, 0x11)], 0xdd, 0), "belongs to another repository"),
            (keys_of(1, &[(1, 0x12)], 0xde, 0), "not one that the keys of this repository have made"),
        ] {
            let error = strange.open(kind, "k", &sealed.bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged);
            assert!(error.to_string().contains(reason), "{error}");
        }
        // The repository's id in the header is bound, too.
        let mut moved = sealed.bytes.to_vec();
        moved[16..32].fill(2);
        assert!(keys_of(2, &[(1, 0x11)], 0xdd, 0).open(kind, "k", &moved).is_err());
    }
}

#[test]
fn new_objects_use_the_newest_root_key_and_old_ones_stay_readable() {
    let old = keys_of(1, &[(1, 0x11)], 0xdd, 1);
    let new = keys_of(1, &[(1, 0x11), (2, 0x22)], 0xdd, 2);
    let only_new = keys_of(1, &[(2, 0x22)], 0xdd, 2);
    let before = old.seal(ObjectType::DataPack, &SESSION, &[b"before"], Padding::Padme).unwrap();
    let after = new.seal(ObjectType::DataPack, &SESSION, &[b"after"], Padding::Padme).unwrap();
    assert_eq!(new.open(ObjectType::DataPack, "k", &before.bytes).unwrap(), b"before");
    assert_eq!(only_new.open(ObjectType::DataPack, "k", &after.bytes).unwrap(), b"after");
    for (keys, object, generation) in [(&old, &after, 2), (&only_new, &before, 1)] {
        let error = keys.open(ObjectType::DataPack, "k", &object.bytes).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("damaged pack k: root key generation {generation} is not in the keyring")
        );
    }
    // The index depends on the dedup key only.
    let index = new.seal(ObjectType::Index, &SESSION, &[b"index"], Padding::Padme).unwrap();
    assert_eq!(old.open(ObjectType::Index, "k", &index.bytes).unwrap(), b"index");
    assert!(keys_of(1, &[(1, 0x11)], 0xde, 1).open(ObjectType::Index, "k", &index.bytes).is_err());
}

/// A generator that always says the same: a cloned or rolled-back machine.
struct Stuck;

impl Entropy for Stuck {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        buffer.fill(0x55);
        Ok(())
    }
}

#[test]
fn repeated_randomness_repeats_no_key_for_other_contents() {
    let keys = keys_with(1, &[(1, 0x11)], 0xdd, Arc::new(AesGcm), Arc::new(Stuck));
    let seal = |session: &SessionId, body: &[u8]| {
        keys.seal(ObjectType::DataPack, session, &[body], Padding::Padme).unwrap().bytes
    };
    let one = seal(&SESSION, b"one");
    assert_eq!(one, seal(&SESSION, b"one"));
    assert_ne!(one[64..96], seal(&SESSION, b"two")[64..96]);
    assert_ne!(one[64..96], seal(&SESSION, b"one\0")[64..96]);
    assert_ne!(one[96..128], seal(&SessionId::new([8; 16]), b"one")[96..128]);
}

struct Broken;

impl Entropy for Broken {
    fn fill(&self, _: &mut [u8]) -> Result<(), EntropyError> {
        Err(EntropyError("no device".to_owned()))
    }
}

#[test]
fn nothing_is_sealed_without_randomness() {
    let keys = keys_with(1, &[(1, 0x11)], 0xdd, Arc::new(AesGcm), Arc::new(Broken));
    assert!(keys.seal(ObjectType::DataPack, &SESSION, &[b"x"], Padding::Padme).is_err());
}

#[test]
fn limits_hold_before_anything_is_allocated() {
    let keys = keys();
    let part = vec![0; 1 << 20];
    let parts = |count: usize| vec![&part[..]; count];
    let error = keys.seal(ObjectType::Body, &SESSION, &parts(16), Padding::Frames).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    let error = keys.seal(ObjectType::Index, &SESSION, &parts(256), Padding::Frames).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(keys.seal(ObjectType::Keyring, &SESSION, &parts(1), Padding::Frames).is_err());
}

/// An object whose frames are authentic but hold what no writer writes.
fn forge(kind: ObjectType, plaintext: &[u8]) -> Vec<u8> {
    let keys = GenerationKeys::derive(REPOSITORY, 1, &Secret::copy_of(&[0x11; 32])).unwrap();
    let base = keys.data_pack.expose();
    let mut header = Header {
        kind: kind.number(),
        frame_log2: 12,
        frames: (plaintext.len() / 4096) as u32,
        repository: REPOSITORY,
        generation: 1,
        session: SESSION,
        salt: [3; 32],
        commitment: [0; 32],
    };
    let key = FrameKey::derive(&header, base, &AesGcm).unwrap();
    header.commitment = *key.commitment();
    let mut object = header.encode().to_vec();
    for (number, frame) in plaintext.chunks(4096).enumerate() {
        let mut frame = frame.to_vec();
        let tag = key.aead().seal(&frame_nonce(key.iv(), number as u32, header.frames), &mut frame).unwrap();
        object.extend(frame);
        object.extend(tag);
    }
    object
}

#[test]
fn length_and_padding_are_checked() {
    let keys = keys();
    let mut plaintext = vec![0; 2 * 4096];
    plaintext[..8].copy_from_slice(&100u64.to_le_bytes());
    plaintext[8..108].fill(1);
    let open = |plaintext: &[u8]| keys.open(ObjectType::DataPack, "k", &forge(ObjectType::DataPack, plaintext));
    assert_eq!(open(&plaintext).unwrap(), [1; 100]);
    for position in [108, 4095, 4096, 8191] {
        let mut changed = plaintext.clone();
        changed[position] = 1;
        assert!(open(&changed).unwrap_err().to_string().contains("padding is not zero"));
    }
    for length in [8185, 8192, 1 << 32, u64::MAX] {
        let mut changed = plaintext.clone();
        changed[..8].copy_from_slice(&length.to_le_bytes());
        assert!(open(&changed).unwrap_err().to_string().contains("longer than its frames"), "{length}");
    }
    // A range behind the body, but within the frames.
    let object = forge(ObjectType::DataPack, &plaintext);
    let reader = keys.reader(ObjectType::DataPack, "k", &object[..128], object.len() as u64).unwrap();
    let span = reader.span(&(90..101)).unwrap();
    let error = reader.open_span(&(90..101), &object[span.start as usize..span.end as usize]).unwrap_err();
    assert!(error.to_string().contains("ends before a range"), "{error}");
}

#[test]
fn ranges_outside_the_object_are_refused_and_empty_ones_need_nothing() {
    let keys = keys();
    let sealed = keys.seal(ObjectType::DataPack, &SESSION, &[&pattern(10_000)], Padding::Frames).unwrap();
    let reader = keys.reader(ObjectType::DataPack, "k", &sealed.bytes, sealed.bytes.len() as u64).unwrap();
    assert_eq!(reader.session(), SESSION);
    assert_eq!(reader.plaintext_size(), 3 * 4096);
    let span = reader.length_span();
    let head = &sealed.bytes[span.start as usize..span.end as usize];
    assert_eq!(reader.body_length(head).unwrap(), 10_000);
    assert!(reader.body_length(&head[1..]).is_err());
    assert_eq!(reader.span(&(5..5)).unwrap(), 128..128);
    assert!(reader.open_span(&(5..5), &[]).unwrap().is_empty());
    assert!(reader.open_span(&(5..5), &[0]).is_err());
    #[expect(clippy::reversed_empty_ranges, reason = "exactly what must be refused")]
    for range in [6..5, 0..12_281, 12_281..12_281, u64::MAX - 1..u64::MAX] {
        assert!(reader.span(&range).is_err(), "{range:?}");
        assert!(reader.open_span(&range, &[]).is_err(), "{range:?}");
    }
    let span = reader.span(&(0..1)).unwrap();
    for wrong in [&sealed.bytes[span.start as usize..span.end as usize - 1], &sealed.bytes, &[]] {
        assert!(reader.open_span(&(0..1), wrong).is_err());
    }
    for size in [0, sealed.bytes.len() as u64 - 1, sealed.bytes.len() as u64 + 1] {
        assert!(keys.reader(ObjectType::DataPack, "k", &sealed.bytes, size).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_range_is_the_same_part_of_the_whole(
        length in prop_oneof![0usize..20_000, 60_000usize..300_000],
        a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(),
    ) {
        let keys = keys();
        let body = pattern(length);
        let sealed = keys.seal(ObjectType::DataPack, &SESSION, &[&body], Padding::Padme).unwrap();
        let (a, b) = (a.index(length + 1), b.index(length + 1));
        let range = a.min(b)..a.max(b);
        let reader = keys.reader(ObjectType::DataPack, "k", &sealed.bytes[..128], sealed.bytes.len() as u64).unwrap();
        let wanted = range.start as u64..range.end as u64;
        let span = reader.span(&wanted).unwrap();
        let mut ciphertext = sealed.bytes[span.start as usize..span.end as usize].to_vec();
        prop_assert_eq!(&reader.open_span(&wanted, &ciphertext).unwrap(), &body[range]);
        if let Some(byte) = ciphertext.last_mut() {
            *byte ^= 1;
            prop_assert!(reader.open_span(&wanted, &ciphertext).is_err());
        }
    }

    #[test]
    fn arbitrary_objects_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0usize..4) {
        let mut bytes = bytes;
        if let Some(head) = bytes.first_chunk_mut::<12>() {
            *head = *b"\x89BKUP\r\n\x1a\x01\x02\x01\x0c";
        }
        prop_assert!(keys().open(SEALABLE[kind], "k", &bytes).is_err());
    }
}

#[cfg(feature = "aws-lc-rs")]
#[test]
fn both_providers_write_and_read_the_same_objects() {
    let fast = keys_with(1, &[(1, 0x11)], 0xdd, Arc::new(crate::crypto::AwsLcRs), Arc::new(SeededEntropy::new(7)));
    let default = keys();
    for length in [0, 5000, 200_000] {
        let body = pattern(length);
        let one = default.seal(ObjectType::DataPack, &SESSION, &[&body], Padding::Padme).unwrap();
        let other = fast.seal(ObjectType::DataPack, &SESSION, &[&body], Padding::Padme).unwrap();
        assert_eq!(one.bytes, other.bytes);
        assert_eq!(default.open(ObjectType::DataPack, "k", &other.bytes).unwrap(), body);
        assert_eq!(fast.open(ObjectType::DataPack, "k", &one.bytes).unwrap(), body);
        let mut forged = one.bytes.to_vec();
        *forged.last_mut().unwrap() ^= 1;
        assert!(fast.open(ObjectType::DataPack, "k", &forged).is_err());
    }
}
