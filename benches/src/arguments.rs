//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::input::Kind;
use crate::tools::ToolName;

/// Measure the backup engine
#[derive(Debug, Parser)]
#[command(name = "backup-bench", max_term_width = 100, disable_help_subcommand = false)]
pub struct Arguments {
    /// What is measured.
    #[command(subcommand)]
    pub command: Command,
}

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The speed of hashing, chunking, sealing, compressing, reading and writing, one core and all threads
    Primitives(Primitives),
    /// Every operation of the engine in a process of its own, and its efficiency against the primitives
    Engine(Engine),
    /// The backup command beside restic, rustic, borg and bupstash, whichever are on PATH
    Compare(Compare),
    /// Opening a generated repository of many chunks: time and memory of its index
    Index(Index),
    /// What the storage is asked for, operation by operation: requests by kind, and bytes
    Requests(Requests),
    /// One operation on a repository: what `engine` runs
    #[command(hide = true)]
    Operation(Operation),
    /// Runs a command and writes what it cost: what `engine` and `compare` run
    #[command(hide = true)]
    Measured(Measured),
}

/// Options of every measurement.
#[derive(Debug, Args)]
pub struct Common {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// What the input is [default: a dump where FILE ends in .sql or .dump, else an image]
    #[arg(long, value_name = "KIND")]
    pub kind: Option<Kind>,
    /// Length of generated inputs, such as 512M [default: 2G for an image, a quarter of it data; 256M for a dump]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub size: Option<u64>,
    /// Where generated inputs, repositories and restored data go [default: below the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Threads [default: all processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
}

impl Common {
    /// The threads that were asked for, or all.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
    }
}

/// `primitives`
#[derive(Debug, Args)]
pub struct Primitives {
    /// The input; generated where none is given
    pub file: Option<PathBuf>,
    /// How much of the input is measured, evenly spread over its data
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "256M")]
    pub sample: u64,
    #[command(flatten)]
    #[allow(missing_docs, reason = "see the type")]
    pub common: Common,
}

/// `engine`
#[derive(Debug, Args)]
pub struct Engine {
    /// The input of the first day; generated, with its next day, where none is given
    pub file: Option<PathBuf>,
    /// The input of the next day
    pub next: Option<PathBuf>,
    /// How much of the input the primitives are measured on
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "256M")]
    pub sample: u64,
    /// The implementation of AES-256-GCM
    #[arg(long, default_value = "aes-gcm")]
    pub aead: Aead,
    #[command(flatten)]
    #[allow(missing_docs, reason = "see the type")]
    pub common: Common,
}

/// `compare`
#[derive(Debug, Args)]
pub struct Compare {
    /// The input of the first day; generated, with its next day, where none is given
    pub file: Option<PathBuf>,
    /// The input of the next day
    #[arg(requires = "file")]
    pub next: Option<PathBuf>,
    /// Times that everything is run; the medians are shown
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    pub runs: u16,
    /// The tools, in the order of the table [default: backup, restic, rustic, borg, bupstash]
    #[arg(long, value_name = "TOOL", value_delimiter = ',')]
    pub tools: Vec<ToolName>,
    /// The backup command [default: the one beside this program, else the one on PATH]
    #[arg(long, value_name = "PROGRAM")]
    pub backup: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "see the type")]
    pub common: Common,
}

/// `index`
#[derive(Debug, Args)]
pub struct Index {
    /// Chunks of the repository
    #[arg(default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub count: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where the repository goes [default: below the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Threads [default: one, as the CPU time of one core is what is looked for]
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
}

/// `requests`
#[derive(Debug, Args)]
pub struct Requests {
    /// Length of the input; the repository is kept in memory
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "1G")]
    pub size: u64,
    /// Days after the first
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub days: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `operation`
#[derive(Debug, Args)]
pub struct Operation {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
    /// The repository, a directory.
    #[arg(long, global = true, default_value = "repository")]
    pub repository: PathBuf,
    /// The kind of the input.
    #[arg(long, global = true, default_value = "image")]
    pub kind: Kind,
    /// Worker threads.
    #[arg(long, global = true, default_value_t = 1)]
    pub threads: usize,
    /// The implementation of AES-256-GCM.
    #[arg(long, global = true, default_value = "aes-gcm")]
    pub aead: Aead,
}

/// An operation of the engine.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Create the repository.
    Init,
    /// Open it and load its index.
    Open,
    /// Back up, with the newest backup as parent.
    Backup {
        /// The input.
        file: PathBuf,
        /// What changed since the parent: a JSON list of pairs of offset and length.
        #[arg(long)]
        changes: Option<PathBuf>,
    },
    /// Restore the newest backup to a new file.
    Restore {
        /// The new file.
        target: PathBuf,
    },
    /// Verify all data.
    VerifyContent,
    /// Verify the bytes of all objects.
    VerifyBytes,
}

/// `measured`
#[derive(Debug, Args)]
pub struct Measured {
    /// Where the cost goes, as JSON.
    pub result: PathBuf,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// An implementation of AES-256-GCM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Aead {
    /// RustCrypto, the engine's default.
    AesGcm,
    /// AWS libcrypto.
    AwsLcRs,
}

impl Aead {
    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AesGcm => "aes-gcm",
            Self::AwsLcRs => "aws-lc-rs",
        }
    }
}

/// Bytes, with K, M or G for powers of 1024.
///
/// # Errors
///
/// Anything but a positive number with at most one of these letters.
pub fn parse_size(text: &str) -> Result<u64> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().with_context(|| format!("{text:?} is no size such as 512M"))?;
    ensure!(number > 0, "a size of nothing");
    number.checked_mul(1 << shift).with_context(|| format!("{text} is too large"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn sizes() {
        for (text, size) in [("1", 1), ("3k", 3 << 10), ("512M", 512 << 20), ("6G", 6 << 30)] {
            assert_eq!(parse_size(text).unwrap(), size);
        }
        for bad in ["", "M", "0", "0G", "-1", "1.5G", "1T", "99999999999G", "ü"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn commands_of_the_documentation() {
        for line in [
            "primitives",
            "primitives disk.img --json --sample 1G",
            "engine disk.img next.img --threads 2 --aead aws-lc-rs",
            "engine --kind dump --size 1G",
            "compare a.sql b.sql --runs 5 --tools backup,borg-lz4,borg-fixed",
            "index",
            "index 1000000 --json",
            "measured cost -- true --version",
            "operation backup file --changes map --repository r --kind image --threads 2",
        ] {
            if let Err(error) = Arguments::try_parse_from(format!("backup-bench {line}").split(' ')) {
                panic!("{line}: {error}");
            }
        }
        for line in ["", "engine --threads 0", "compare --runs 0", "index 0", "primitives --kind tape", "measured cost"]
        {
            let words = format!("backup-bench {line}");
            assert!(Arguments::try_parse_from(words.split(' ').filter(|word| !word.is_empty())).is_err(), "{line}");
        }
    }
}
