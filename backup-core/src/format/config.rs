//! The `config` object: what everybody must know of a repository, in plain, created once.

use crate::error::{Error, Result};
use crate::format::cbor;
use crate::id::RepositoryId;
use crate::length::to_u64;
use crate::limits;

/// The version of the format that this program writes.
pub(crate) const VERSION: u64 = 1;
/// What the first field says, so that a lonely file can be recognized.
const MAGIC: &str = "backup repository";
/// Most feature words of one list, and most bytes of one word.
const FEATURE_WORDS: usize = 64;
/// The feature words that this program understands, by list.
const KNOWN_READ_ONLY: [&str; 0] = [];
const KNOWN_INCOMPATIBLE: [&str; 0] = [];

/// Parameters of a repository. What they mean for writers is said where they are used; readers need
/// the version, the features and the keys only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The repository's identity.
    pub(crate) repository: RepositoryId,
    /// Features that a program may ignore, sorted.
    pub(crate) features_compatible: Vec<String>,
    /// Features that a program must know to write, sorted.
    pub(crate) features_read_only: Vec<String>,
    /// Features that a program must know to do anything, sorted.
    pub(crate) features_incompatible: Vec<String>,
    /// Whether the owner promised that only one writer is active at a time.
    pub(crate) single_writer: bool,
    /// Where contents are cut.
    pub(crate) chunking: ChunkingParameters,
    /// The size at which a pack is complete, in bytes.
    pub(crate) pack_target: u32,
    /// How the sizes of objects are hidden.
    pub(crate) padding: Padding,
    /// The zstd level where the caller chooses none: -7 to 19.
    pub(crate) compression_level: i32,
    /// The key that signs commits.
    pub(crate) writer_key: [u8; 32],
    /// The key that signs forgets, revocations and collections.
    pub(crate) maintenance_key: [u8; 32],
}

/// Parameters of the chunkers, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkingParameters {
    /// Chunks of disk images: a power of two from 64 KiB to 4 MiB.
    pub fixed_size: u32,
    /// Smallest chunk of a stream, but the last.
    pub stream_min: u32,
    /// Average chunk of a stream; a power of two.
    pub stream_avg: u32,
    /// Largest chunk of a stream.
    pub stream_max: u32,
}

impl ChunkingParameters {
    /// Whether the parameters can be used; otherwise the rule they break.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !self.fixed_size.is_power_of_two() || !(64 << 10..=4 << 20).contains(&self.fixed_size) {
            return Err("the fixed chunk size is not a power of two from 64 KiB to 4 MiB".to_owned());
        }
        let ordered = self.stream_min < self.stream_avg && self.stream_avg < self.stream_max;
        if !ordered || self.stream_min < 1 << 10 || self.stream_max > limits::CHUNK {
            return Err(format!("stream chunks must be 1 KiB <= min < avg < max <= {} bytes", limits::CHUNK));
        }
        if !self.stream_avg.is_power_of_two() {
            return Err("the average stream chunk size is not a power of two".to_owned());
        }
        Ok(())
    }
}

impl Default for ChunkingParameters {
    fn default() -> Self {
        Self { fixed_size: 1 << 20, stream_min: 512 << 10, stream_avg: 1 << 20, stream_max: 4 << 20 }
    }
}

/// How much the sizes of sealed objects tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// Padmé, rounded up to whole frames: sizes tell little.
    #[default]
    Padme,
    /// Whole frames only: for storage that may know sizes.
    Frames,
}

/// What a program that does not know all features may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everything.
    Full,
    /// Reading only, because of a feature.
    ReadOnly {
        /// The unknown feature.
        feature: String,
    },
}

impl Config {
    /// A configuration with the default parameters.
    pub(crate) fn new(repository: RepositoryId, writer_key: [u8; 32], maintenance_key: [u8; 32]) -> Self {
        Self {
            repository,
            features_compatible: Vec::new(),
            features_read_only: Vec::new(),
            features_incompatible: Vec::new(),
            single_writer: false,
            chunking: ChunkingParameters::default(),
            pack_target: 16 << 20,
            padding: Padding::default(),
            compression_level: 3,
            writer_key,
            maintenance_key,
        }
    }

    /// The bytes on storage.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] where [`Self::decode`] would refuse them.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        self.check().map_err(|rule| Error::invalid("repository parameters", rule))?;
        cbor::encode_map(|map| {
            map.text(0, MAGIC);
            map.u64(1, VERSION);
            map.bytes(2, self.repository.as_bytes());
            let lists = [&self.features_compatible, &self.features_read_only, &self.features_incompatible];
            for (key, words) in (3..).zip(lists) {
                map.array(key, |array| words.iter().for_each(|word| array.text(word)));
            }
            map.bool(6, self.single_writer);
            map.map(7, |chunking| {
                chunking.u64(1, self.chunking.fixed_size.into());
                chunking.u64(2, self.chunking.stream_min.into());
                chunking.u64(3, self.chunking.stream_avg.into());
                chunking.u64(4, self.chunking.stream_max.into());
            });
            map.u64(8, self.pack_target.into());
            map.u64(
                9,
                match self.padding {
                    Padding::Padme => 0,
                    Padding::Frames => 1,
                },
            );
            map.i64(10, self.compression_level.into());
            map.bytes(11, &self.writer_key);
            map.bytes(12, &self.maintenance_key);
        })
    }

    /// Parses the object `config`.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`]; [`Error::Unsupported`] for another version of the format.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        if to_u64(bytes.len()) > limits::CONFIG {
            return Err(Error::limit("size of config", to_u64(bytes.len()), limits::CONFIG));
        }
        let mut map = cbor::decode(bytes, "config", &"config")?.map()?;
        if map.required(0)?.text()? != MAGIC {
            return Err(map.damaged("does not begin like a repository"));
        }
        let version = map.required(1)?.u64()?;
        if version != VERSION {
            return Err(Error::unsupported("format version", version));
        }
        let repository = RepositoryId::new(map.required(2)?.fixed()?);
        let features_compatible = words(map.required(3)?.array()?)?;
        let features_read_only = words(map.required(4)?.array()?)?;
        let features_incompatible = words(map.required(5)?.array()?)?;
        let single_writer = map.required(6)?.bool()?;
        let mut chunking = map.required(7)?.map()?;
        let parameters = ChunkingParameters {
            fixed_size: chunking.required(1)?.u32()?,
            stream_min: chunking.required(2)?.u32()?,
            stream_avg: chunking.required(3)?.u32()?,
            stream_max: chunking.required(4)?.u32()?,
        };
        chunking.finish()?;
        let pack_target = map.required(8)?.u32()?;
        let padding = match map.required(9)?.u64()? {
            0 => Padding::Padme,
            1 => Padding::Frames,
            other => return Err(Error::unsupported("padding", other)),
        };
        let compression_level = i32::try_from(map.required(10)?.i64()?).unwrap_or(i32::MAX);
        let writer_key = map.required(11)?.fixed()?;
        let maintenance_key = map.required(12)?.fixed()?;
        map.finish()?;
        let config = Self {
            repository,
            features_compatible,
            features_read_only,
            features_incompatible,
            single_writer,
            chunking: parameters,
            pack_target,
            padding,
            compression_level,
            writer_key,
            maintenance_key,
        };
        config.check().map_err(|rule| Error::damaged("config", "config", rule))?;
        Ok(config)
    }

    /// What this program may do with the repository.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] naming an incompatible feature that this program does not know.
    pub(crate) fn access(&self) -> Result<Access> {
        let unknown =
            |words: &[String], known: &[&str]| words.iter().find(|word| !known.contains(&word.as_str())).cloned();
        if let Some(feature) = unknown(&self.features_incompatible, &KNOWN_INCOMPATIBLE) {
            return Err(Error::unsupported("feature", feature));
        }
        Ok(match unknown(&self.features_read_only, &KNOWN_READ_ONLY) {
            Some(feature) => Access::ReadOnly { feature },
            None => Access::Full,
        })
    }

    fn check(&self) -> Result<(), String> {
        self.chunking.check()?;
        for words in [&self.features_compatible, &self.features_read_only, &self.features_incompatible] {
            let valid = |word: &String| {
                (1..=FEATURE_WORDS).contains(&word.len())
                    && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            };
            if words.len() > FEATURE_WORDS || !words.iter().all(valid) || !words.is_sorted_by(|a, b| a < b) {
                return Err("feature words are not sorted words of a-z 0-9 -".to_owned());
            }
        }
        if !(64 << 10..=128 << 20).contains(&self.pack_target) {
            return Err("the pack target is not within 64 KiB and 128 MiB".to_owned());
        }
        if !(-7..=19).contains(&self.compression_level) {
            return Err("the compression level is not within -7 and 19".to_owned());
        }
        Ok(())
    }
}

fn words(array: cbor::ArrayReader<'_>) -> Result<Vec<String>> {
    if array.remaining() > to_u64(FEATURE_WORDS) {
        return Err(array.damaged("too many feature words"));
    }
    array.map(|value| value.text().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Config {
        Config {
            features_compatible: vec!["a".into(), "b-2".into()],
            single_writer: true,
            padding: Padding::Frames,
            compression_level: -7,
            ..Config::new(RepositoryId::new([1; 16]), [2; 32], [3; 32])
        }
    }

    #[test]
    fn round_trip() {
        for config in [sample(), Config::new(RepositoryId::new([0; 16]), [0; 32], [0; 32])] {
            let bytes = config.encode().unwrap();
            assert_eq!(Config::decode(&bytes).unwrap(), config);
            assert_eq!(config.access().unwrap(), Access::Full);
        }
    }

    #[test]
    fn every_flipped_bit_is_rejected_or_changes_the_config() {
        let bytes = sample().encode().unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Ok(config) = Config::decode(&changed) {
                assert_ne!(config, sample(), "{bit}");
                assert_eq!(config.encode().unwrap(), changed, "{bit}");
            }
        }
    }

    #[test]
    fn parameters_out_of_range_are_neither_written_nor_read() {
        type Change = fn(&mut Config);
        let changes: [Change; 13] = [
            |config| config.chunking.fixed_size = 32 << 10,
            |config| config.chunking.fixed_size = 8 << 20,
            |config| config.chunking.fixed_size = (1 << 20) + 1,
            |config| config.chunking.stream_min = 1 << 20,
            |config| config.chunking.stream_min = 0,
            |config| config.chunking.stream_max = (16 << 20) + 1,
            |config| config.chunking.stream_avg = (1 << 20) + 1,
            |config| config.pack_target = 0,
            |config| config.pack_target = u32::MAX,
            |config| config.compression_level = 20,
            |config| config.features_compatible = vec!["b".into(), "a".into()],
            |config| config.features_read_only = vec!["Upper".into()],
            |config| config.features_incompatible = vec![String::new()],
        ];
        for change in changes {
            let mut config = sample();
            change(&mut config);
            assert_eq!(config.encode().unwrap_err().kind(), crate::ErrorKind::InvalidArgument, "{config:?}");
        }
    }

    #[test]
    fn unknown_features_are_judged_by_their_list() {
        let mut config = sample();
        config.features_read_only.push("new-index".into());
        let decoded = Config::decode(&config.encode().unwrap()).unwrap();
        assert_eq!(decoded.access().unwrap(), Access::ReadOnly { feature: "new-index".into() });
        config.features_incompatible.push("new-frames".into());
        let decoded = Config::decode(&config.encode().unwrap()).unwrap();
        assert_eq!(decoded.access().unwrap_err().to_string(), "unsupported feature: new-frames");
    }

    #[test]
    fn other_versions_are_unsupported_and_other_files_damaged() {
        let later = cbor::encode_map(|map| {
            map.text(0, MAGIC);
            map.u64(1, 2);
            map.u64(2, 0);
        });
        assert_eq!(Config::decode(&later.unwrap()).unwrap_err().to_string(), "unsupported format version: 2");
        let foreign = cbor::encode_map(|map| map.text(0, "something else")).unwrap();
        for bytes in [&foreign[..], b"", b"version = 1\n"] {
            assert_eq!(Config::decode(bytes).unwrap_err().kind(), crate::ErrorKind::Damaged);
        }
        assert_eq!(Config::decode(&[0; (64 << 10) + 1]).unwrap_err().kind(), crate::ErrorKind::LimitExceeded);
    }
}
