//! The input: files that were given, or made-up ones.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Serialize;

use crate::arguments::Common;
use crate::changes;
use crate::generate::{write_dump, write_image};

/// What an input is, and so how it is backed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A disk image: chunks of fixed length, holes are not read.
    Image,
    /// A stream: chunks by content, read from a pipe or a file from front to back.
    Dump,
}

impl Kind {
    /// The kind that the name of a file suggests.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("sql" | "dump") => Self::Dump,
            _ => Self::Image,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Dump => "dump",
        }
    }

    const fn default_size(self) -> u64 {
        match self {
            Self::Image => 2 << 30,
            Self::Dump => 256 << 20,
        }
    }
}

/// An input and, where there is one, its next day.
#[derive(Clone, Debug, Serialize)]
pub struct Input {
    /// What it is.
    pub kind: Kind,
    /// The file of the first day.
    pub file: PathBuf,
    /// The file of the next day.
    pub next: Option<PathBuf>,
    /// Length of the first in bytes.
    pub length: u64,
    /// Bytes of it that are not holes.
    pub data: u64,
}

impl Input {
    /// The input that was given; without one, generated inputs of the kind that was asked for, or of all kinds.
    ///
    /// # Errors
    ///
    /// Where files cannot be read or written.
    pub fn all(
        file: Option<&Path>,
        next: Option<&Path>,
        with_next: bool,
        common: &Common,
        scratch: &Path,
    ) -> Result<Vec<Self>> {
        if let Some(file) = file {
            let kind = common.kind.unwrap_or_else(|| Kind::of(file));
            return Ok(vec![Self::given(kind, file, next)?]);
        }
        let kinds = common.kind.map_or_else(|| vec![Kind::Image, Kind::Dump], |kind| vec![kind]);
        kinds.into_iter().map(|kind| Self::generated(kind, common.size, with_next, scratch)).collect()
    }

    fn given(kind: Kind, file: &Path, next: Option<&Path>) -> Result<Self> {
        let whole = |path: &Path| fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()));
        let (file, next) = (whole(file)?, next.map(whole).transpose()?);
        let data = data_of(&file)?;
        let length = fs::metadata(&file)?.len();
        let data_length = data.iter().map(|range| range.end - range.start).sum();
        ensure!(data_length > 0, "{} is empty", file.display());
        let input = Self { kind, file, next, length, data: data_length };
        input.warm()?;
        Ok(input)
    }

    fn generated(kind: Kind, size: Option<u64>, with_next: bool, scratch: &Path) -> Result<Self> {
        let size = size.unwrap_or_else(|| kind.default_size());
        let write = |name: &str, day| -> Result<PathBuf> {
            let path = scratch.join(name);
            match kind {
                Kind::Image => write_image(&path, size, day),
                Kind::Dump => write_dump(&path, size, day),
            }
            .with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        };
        let (first, second) = match kind {
            Kind::Image => ("generated-1.img", "generated-2.img"),
            Kind::Dump => ("generated-1.sql", "generated-2.sql"),
        };
        let next = if with_next { Some(write(second, 1)?) } else { None };
        Self::given(kind, &write(first, 0)?, next.as_deref())
    }

    /// Reads everything once, so that all that follows reads from memory.
    fn warm(&self) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        for path in [Some(&self.file), self.next.as_ref()].into_iter().flatten() {
            let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            for range in data_of(path)? {
                let mut at = range.start;
                while at < range.end {
                    let length = (range.end - at).min(1 << 20) as usize;
                    file.read_exact_at(&mut buffer[..length], at)?;
                    at += length as u64;
                }
            }
        }
        Ok(())
    }
}

/// The ranges of a file that are not holes, in order.
///
/// # Errors
///
/// Where the file cannot be read.
pub fn data_of(path: &Path) -> Result<Vec<Range<u64>>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    changes::data_ranges(&file).with_context(|| format!("cannot read {}", path.display()))
}

/// Where things go: the directory that was given, or the one for temporary files. Removed when it is dropped.
///
/// # Errors
///
/// Where it cannot be made.
pub fn scratch(directory: Option<&Path>) -> Result<tempfile::TempDir> {
    let parent = directory.map_or_else(std::env::temp_dir, Path::to_owned);
    fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let parent = fs::canonicalize(&parent)?;
    tempfile::Builder::new().prefix("backup-bench-").tempdir_in(parent).context("cannot make a temporary directory")
}

/// Requires that two files have the same length and bytes.
///
/// # Errors
///
/// Where they differ or cannot be read.
pub fn require_same(one: &Path, two: &Path) -> Result<()> {
    let differences = changes::changed_ranges(one, two)?;
    let lengths = (fs::metadata(one)?.len(), fs::metadata(two)?.len());
    ensure!(
        differences.is_empty() && lengths.0 == lengths.1,
        "{} differs from {}: lengths {lengths:?}, first at {:?}",
        two.display(),
        one.display(),
        differences.first()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_name() {
        assert_eq!(Kind::of(Path::new("a/b.sql")), Kind::Dump);
        assert_eq!(Kind::of(Path::new("b.dump")), Kind::Dump);
        assert_eq!(Kind::of(Path::new("disk.img")), Kind::Image);
        assert_eq!(Kind::of(Path::new("disk")), Kind::Image);
    }

    #[test]
    fn differences_are_found() {
        let here = tempfile::tempdir().unwrap();
        let (a, b) = (here.path().join("a"), here.path().join("b"));
        fs::write(&a, [1; 100_000]).unwrap();
        fs::write(&b, [1; 100_000]).unwrap();
        require_same(&a, &b).unwrap();
        for other in [&[1; 99_999][..], &[1; 100_001], &[[1; 99_999].as_slice(), &[2]].concat()] {
            fs::write(&b, other).unwrap();
            assert!(require_same(&a, &b).is_err());
        }
    }
}
