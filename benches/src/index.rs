//! A repository of very many chunks: how long its index takes to load, and how much memory.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use backup_adapters::OsClock;
use backup_adapters::local::LocalStorage;
use backup_core::crypto::Argon2Parameters;
use backup_core::entropy::OsEntropy;
use backup_core::id::{ChunkId, ObjectName};
use backup_core::keys::Credential;
use backup_core::repository::{Environment, InitOptions, Repository};
use backup_core::secret::Password;
use backup_core::storage::{PutMode, Storage};
use backup_core::testing;
use backup_core::testing::stages::{index_key, index_segment};
use serde::Serialize;

use crate::arguments;
use crate::generate::Random;
use crate::input::scratch;
use crate::measure::{Cost, Job};
use crate::operation::{Index, Outcome, PASSWORD};
use crate::table::{Table, mebibytes, seconds};

/// Chunks of a pack: the fewest that there are at the default sizes, so most packs and most memory.
const PACK: u64 = 16;
/// Chunks of an index object, as backups write them.
const SEGMENT: u64 = 1 << 16;

/// What loading the index cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Report {
    /// Index objects.
    pub objects: u64,
    /// Their bytes.
    pub stored: u64,
    /// What was loaded.
    pub index: Index,
    /// Threads.
    pub threads: u16,
    /// Seconds of loading, by the clock.
    pub seconds: f64,
    /// Seconds of CPU of loading.
    pub cpu: f64,
    /// The whole process, unlocking with the cheapest password derivation included.
    pub cost: Cost,
}

impl Report {
    /// Bytes of memory for each chunk, as the index counts them.
    #[must_use]
    pub fn bytes_per_chunk(&self) -> f64 {
        self.index.bytes as f64 / self.index.chunks as f64
    }

    /// The same by what the process grew.
    #[must_use]
    pub fn resident_per_chunk(&self) -> f64 {
        self.index.resident as f64 / self.index.chunks as f64
    }
}

/// `index`
///
/// # Errors
///
/// Where the repository cannot be made or opened.
pub fn run(arguments: &arguments::Index) -> Result<Report> {
    let scratch = scratch(arguments.directory.as_deref())?;
    let repository = scratch.path().join("repository");
    let (objects, stored) = generate(&repository, arguments.count)?;
    let job = Job::new(std::env::current_exe()?)
        .args(["operation", "open", "--threads", &arguments.threads.to_string(), "--repository"])
        .arg(&repository);
    let (cost, printed) = job.run(scratch.path())?;
    let outcome: Outcome = serde_json::from_slice(&printed).context("an operation said something else")?;
    let index = outcome.index.context("an operation said nothing of the index")?;
    ensure!(index.chunks == arguments.count, "{} chunks were loaded of {}", index.chunks, arguments.count);
    let Outcome { seconds, cpu, .. } = outcome;
    Ok(Report { objects, stored, index, threads: arguments.threads, seconds, cpu, cost })
}

/// The report as a table.
#[must_use]
pub fn show(report: &Report) -> String {
    let mut table = Table::new(&["loading the index", ""]);
    let mut row = |name: &str, value: String| table.push(vec![name.to_owned(), value]);
    row("chunks", report.index.chunks.to_string());
    row("packs", report.index.packs.to_string());
    row("index objects", report.objects.to_string());
    row("their MiB", mebibytes(report.stored));
    row("threads", report.threads.to_string());
    row("seconds", seconds(report.seconds));
    row("seconds of CPU", seconds(report.cpu));
    row("bytes a chunk, counted", format!("{:.1}", report.bytes_per_chunk()));
    row("bytes a chunk, resident", format!("{:.1}", report.resident_per_chunk()));
    row("peak of the process, MiB", mebibytes(report.cost.peak));
    table.render()
}

/// Makes a repository whose only backups are long gone: what names its index is the record of a collection.
fn generate(path: &Path, count: u64) -> Result<(u64, u64)> {
    let storage = Arc::new(LocalStorage::create(path)?);
    let password = Password::from(PASSWORD);
    let cheapest = Argon2Parameters::new(64 << 10, 1, 1)?;
    let options = InitOptions::default().with_argon2(cheapest);
    let environment = Environment::new(Arc::new(OsClock), Arc::new(OsEntropy));
    let repository =
        Repository::init(Arc::clone(&storage) as Arc<_>, &Credential::from(&password), &options, environment)?;
    let index_type = 4;
    let mut random = Random::new(11);
    let mut name = || {
        let mut bytes = [0; 32];
        random.fill(&mut bytes);
        bytes
    };
    let (mut names, mut stored, mut made) = (Vec::new(), 0, 0);
    while made < count {
        let mut packs = Vec::new();
        let end = count.min(made + SEGMENT);
        while made < end {
            let chunks: Vec<ChunkId> = (0..PACK.min(end - made)).map(|_| ChunkId::new(name())).collect();
            made += chunks.len() as u64;
            packs.push((ObjectName::new(name()), chunks));
        }
        let (name, bytes) = testing::seal_object(&repository, index_type, &index_segment(&packs)?)?;
        stored += bytes.len() as u64;
        storage.put(&index_key(name), bytes.into(), PutMode::Create)?;
        names.push(name);
    }
    let (key, bytes) = testing::collection_final(&repository, 1, &[], &[], &names)?;
    storage.put(&key, bytes.into(), PutMode::Create)?;
    Ok((names.len() as u64, stored))
}
