//! Compression of chunks, one by one: zstd or not at all.

use std::borrow::Cow;
use std::fmt;
use std::io;

use zstd::zstd_safe::CParameter;

use crate::error::{Error, Result};
use crate::length::{index, to_u64};

/// Lowest and highest level that a caller may ask for.
pub(crate) const LEVELS: std::ops::RangeInclusive<i32> = -7..=19;
/// Data longer than this is probed before it is compressed.
const PROBE_FROM: usize = 128 << 10;
/// Samples that are taken, from places evenly spread: a chunk of an image often begins with the end of one file and
/// goes on with others, so its head alone says little.
const SAMPLES: usize = 8;
/// Length of a sample.
const SAMPLE: usize = 8 << 10;
/// Binary logarithms of zstd's two tables at level 3: half of what it takes for data above 256 KiB. They fit the second
/// cache beside the data, which makes it a tenth faster for 0.7 % of size or less (`docs/performance.md`, "Tried").
const TABLES: (u32, u32) = (15, 16);

/// How the payload of a chunk is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Codec {
    /// As it is.
    Raw = 0,
    /// One zstd frame, no dictionary.
    Zstd = 1,
}

impl Codec {
    /// From its number in the format.
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Its number in the format.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }
}

/// Compresses chunks; keeps zstd's working memory and an output buffer between them.
pub(crate) struct Compressor {
    level: i32,
    zstd: zstd::bulk::Compressor<'static>,
    /// A second context: changing the level of one between probe and compression costs more.
    probe: zstd::bulk::Compressor<'static>,
    samples: Vec<u8>,
    buffer: Vec<u8>,
}

impl Compressor {
    /// A compressor of `level` (-7 to 19).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for other levels.
    pub(crate) fn new(level: i32) -> Result<Self> {
        if !LEVELS.contains(&level) {
            return Err(Error::invalid("compression level", format!("{level} is not within -7..19")));
        }
        let context = |level| zstd::bulk::Compressor::new(level).map_err(|error| refused(&error));
        let mut zstd = context(level)?;
        // 0 is zstd's name for its default, which is 3.
        if matches!(level, 0 | 3) {
            let (chain, hash) = TABLES;
            for parameter in [CParameter::ChainLog(chain), CParameter::HashLog(hash)] {
                zstd.set_parameter(parameter).map_err(|error| refused(&error))?;
            }
        }
        Ok(Self { level, zstd, probe: context(level.min(1))?, samples: Vec::new(), buffer: Vec::new() })
    }

    /// `data` as it should be stored: compressed where that saves 2 %, else as it is.
    pub(crate) fn compress<'a>(&mut self, data: &'a [u8]) -> (Codec, Cow<'a, [u8]>) {
        let raw = (Codec::Raw, Cow::Borrowed(data));
        if data.len() > PROBE_FROM && self.is_incompressible(data) {
            return raw;
        }
        if compress_below(&mut self.zstd, data, &mut self.buffer) {
            // A copy of the exact length: the buffer stays for the next chunk, and packs that are
            // being filled hold no spare capacity.
            (Codec::Zstd, Cow::Owned(self.buffer.as_slice().to_vec()))
        } else {
            raw
        }
    }

    /// What samples of the data say. Most data is told from random bytes by how often each byte occurs; the rest is
    /// compressed for a try.
    fn is_incompressible(&mut self, data: &[u8]) -> bool {
        self.samples.clear();
        for part in data.chunks(data.len() / SAMPLES) {
            self.samples.extend_from_slice(part.get(..SAMPLE).unwrap_or_default());
        }
        bytes_look_random(&self.samples) && !compress_below(&mut self.probe, &self.samples, &mut self.buffer)
    }
}

/// Whether two bytes of `data`, at two places taken at random, are the same in less than one case of 170. In random data
/// that is one of 256, in text one of 20. A cheap first look: it sends most compressible data straight to compression.
fn bytes_look_random(data: &[u8]) -> bool {
    let mut counts = [0u64; 256];
    for byte in data {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count = count.saturating_add(1);
        }
    }
    let same = counts.iter().fold(0u64, |sum, count| sum.saturating_add(count.saturating_mul(*count)));
    let all = to_u64(data.len());
    same.saturating_mul(170) < all.saturating_mul(all)
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("level", &self.level).finish_non_exhaustive()
    }
}

/// Compresses `data` into `buffer`; whether that saves at least 2 %.
fn compress_below(zstd: &mut zstd::bulk::Compressor<'static>, data: &[u8], buffer: &mut Vec<u8>) -> bool {
    let wanted = data.len().saturating_sub((data.len() / 50).max(1));
    buffer.clear();
    // Always room for the worst case, so that the outcome does not depend on earlier chunks.
    buffer.reserve(zstd::zstd_safe::compress_bound(data.len()));
    // Any failure leaves the chunk uncompressed, which is always right.
    zstd.compress_to_buffer(data, buffer).is_ok() && buffer.len() <= wanted
}

/// Restores chunks; keeps zstd's working memory between them.
pub(crate) struct Decompressor {
    zstd: zstd::bulk::Decompressor<'static>,
}

impl Decompressor {
    /// A decompressor.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] where zstd cannot be set up.
    pub(crate) fn new() -> Result<Self> {
        zstd::bulk::Decompressor::new().map(|zstd| Self { zstd }).map_err(|error| refused(&error))
    }

    /// The `raw` bytes that `stored` stands for. Never allocates more than that, whatever `stored`
    /// claims; the caller has checked `raw` against the limit of chunks. `name` is the chunk's.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] unless `stored` decompresses to exactly `raw` bytes.
    pub(crate) fn decompress<'a>(
        &mut self,
        codec: Codec,
        stored: &'a [u8],
        raw: u32,
        name: &dyn fmt::Display,
    ) -> Result<Cow<'a, [u8]>> {
        let damaged = |length: usize| Error::damaged("chunk", name, format!("holds {length} bytes instead of {raw}"));
        match codec {
            Codec::Raw if to_u64(stored.len()) == u64::from(raw) => Ok(Cow::Borrowed(stored)),
            Codec::Raw => Err(damaged(stored.len())),
            Codec::Zstd => {
                // zstd itself would go on with what stands behind the frame.
                if zstd::zstd_safe::find_frame_compressed_size(stored) != Ok(stored.len()) {
                    return Err(Error::damaged("chunk", name, "is not one zstd frame"));
                }
                // zstd writes into the capacity and never beyond it.
                let mut out = Vec::with_capacity(index(raw));
                self.zstd
                    .decompress_to_buffer(stored, &mut out)
                    .map_err(|error| Error::damaged("chunk", name, format!("does not decompress: {error}")))?;
                if to_u64(out.len()) == u64::from(raw) { Ok(Cow::Owned(out)) } else { Err(damaged(out.len())) }
            }
        }
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

fn refused(error: &io::Error) -> Error {
    Error::invalid("compression", error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn random(length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    fn text(length: usize) -> Vec<u8> {
        b"INSERT INTO customers VALUES (1, 'somebody');\n".iter().copied().cycle().take(length).collect()
    }

    fn round_trip(level: i32, data: &[u8]) -> Codec {
        let (codec, stored) = Compressor::new(level).unwrap().compress(data);
        let raw = u32::try_from(data.len()).unwrap();
        assert!(stored.len() <= data.len());
        assert_eq!(Decompressor::new().unwrap().decompress(codec, &stored, raw, &"c").unwrap(), data);
        codec
    }

    #[test]
    fn compresses_what_can_be_compressed() {
        for length in [1000, PROBE_FROM, PROBE_FROM + 1, 1 << 20] {
            for level in [-7, -1, 0, 1, 3, 19] {
                assert_eq!(round_trip(level, &text(length)), Codec::Zstd, "{length} at {level}");
            }
            assert_eq!(round_trip(3, &random(length)), Codec::Raw, "{length}");
        }
        assert_eq!(round_trip(3, b"x"), Codec::Raw);
    }

    #[test]
    fn saving_less_than_two_percent_is_not_worth_it() {
        let mut data = random(100_000);
        data[..1500].fill(0);
        assert_eq!(round_trip(3, &data), Codec::Raw);
        data[..4000].fill(0);
        assert_eq!(round_trip(3, &data), Codec::Zstd);
    }

    #[test]
    fn levels_are_checked() {
        assert!(Compressor::new(-8).is_err());
        assert!(Compressor::new(20).is_err());
    }

    #[test]
    fn lengths_must_be_exact() {
        let data = text(10_000);
        let (codec, stored) = Compressor::new(3).unwrap().compress(&data);
        let mut decompressor = Decompressor::new().unwrap();
        for raw in [1, 9_999, 10_001, 1 << 24] {
            let error = decompressor.decompress(codec, &stored, raw, &"c1").unwrap_err();
            assert!(matches!(&error, Error::Damaged { what: "chunk", name, .. } if name == "c1"), "{raw}: {error}");
            assert!(decompressor.decompress(Codec::Raw, &data, raw, &"c1").is_err());
        }
        // A failure leaves the decompressor usable.
        assert_eq!(decompressor.decompress(codec, &stored, 10_000, &"c1").unwrap(), data);
    }

    #[test]
    fn a_bomb_gets_no_memory() {
        let bomb = zstd::bulk::compress(&vec![0; 100 << 20], 3).unwrap();
        assert!(Decompressor::new().unwrap().decompress(Codec::Zstd, &bomb, 4096, &"bomb").is_err());
    }

    #[test]
    fn numbers_of_codecs() {
        for codec in [Codec::Raw, Codec::Zstd] {
            assert_eq!(Codec::from_number(codec.number()), Some(codec));
        }
        assert_eq!(Codec::from_number(2), None);
    }

    proptest! {
        #[test]
        fn damage_never_panics(mut stored in Just(zstd::bulk::compress(&text(5000), 3).unwrap()), at: prop::sample::Index, byte: u8) {
            let position = at.index(stored.len());
            stored[position] = byte;
            if let Ok(out) = Decompressor::new().unwrap().decompress(Codec::Zstd, &stored, 5000, &"c") {
                prop_assert_eq!(out.len(), 5000);
            }
        }
    }
}
