//! One operation of the engine, in a process of its own so that its time and memory can be told from others'.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use backup_adapters::local::LocalStorage;
use backup_adapters::tree::OverwritePolicy;
use backup_adapters::{FileSink, ImageSource, OsClock};
use backup_core::content::EntryPath;
use backup_core::crypto::{AesGcm, AwsLcRs};
use backup_core::entropy::OsEntropy;
use backup_core::keys::Credential;
use backup_core::progress::{Event, Observer};
use backup_core::repository::{
    BackupKind, BackupOptions, Control, Environment, InitOptions, LockedRepository, Parent, Repository, VerifyLevel,
    VerifyOptions, VerifyReport,
};
use backup_core::secret::Password;
use backup_core::source::BlockSink;
use backup_core::testing::stages::load_index;
use nix::sys::resource::UsageWho;
use serde::{Deserialize, Serialize};

use crate::arguments::{Action, Aead, Operation};
use crate::changes;
use crate::efficiency::Amounts;
use crate::input::Kind;
use crate::measure::usage;

/// Name of the only entry of every backup.
const ENTRY: &str = "input";
/// It protects nothing.
pub(crate) const PASSWORD: &str = "a password for a measurement";

/// What an operation did and how long it took, without the opening of the repository before it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Seconds by the clock.
    pub seconds: f64,
    /// Seconds of CPU, in programs and in the kernel.
    pub cpu: f64,
    /// What was done.
    pub amounts: Amounts,
    /// The index, where it was asked for.
    pub index: Option<Index>,
}

/// An index in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Places of chunks.
    pub chunks: u64,
    /// Packs.
    pub packs: u64,
    /// Bytes that it says it takes.
    pub bytes: u64,
    /// By how many bytes the process grew.
    pub resident: u64,
}

/// Memory of this process that is resident now, in bytes.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    Ok(kib * 1024)
}

/// `operation`: runs it and prints its [`Outcome`] as JSON.
///
/// # Errors
///
/// Whatever the engine says.
pub fn run(arguments: &Operation) -> Result<()> {
    let fetched = Arc::new(Fetched::default());
    let control = Control::default().with_threads(arguments.threads).with_observer(Arc::clone(&fetched) as Arc<_>);
    let mut outcome = match &arguments.action {
        Action::Init => timed(|| {
            let storage = Arc::new(LocalStorage::create(&arguments.repository)?);
            let password = Password::from(PASSWORD);
            Repository::init(storage, &Credential::from(&password), &InitOptions::default(), environment(arguments))?;
            Ok(Amounts::default())
        }),
        Action::Open => {
            let repository = repository(arguments)?;
            let before = resident()?;
            let (outcome, (chunks, packs, bytes)) = timed(|| Ok(load_index(&repository, &control)?))?;
            let index = Some(Index { chunks, packs, bytes, resident: resident()?.saturating_sub(before) });
            Ok((Outcome { index, ..outcome }, Amounts::default()))
        }
        Action::Backup { file, changes } => back_up(arguments, &control, file, changes.as_deref()),
        Action::Restore { target } => restore(arguments, &control, target),
        Action::VerifyContent => {
            let repository = repository(arguments)?;
            let options = VerifyOptions::new(VerifyLevel::Content);
            let (outcome, report) = timed(|| Ok(repository.verify(&options, None, &control)?))?;
            let restored = repository.statistics()?.unique_bytes;
            let fetched = checked(&report)?;
            Ok((outcome, Amounts { restored, fetched, ..Amounts::default() }))
        }
        Action::VerifyBytes => {
            let storage = Arc::new(LocalStorage::open(&arguments.repository)?);
            let locked = LockedRepository::open(storage, environment(arguments))?;
            let options = VerifyOptions::new(VerifyLevel::Bytes);
            let (outcome, report) = timed(|| Ok(locked.verify(&options, &control)?))?;
            Ok((outcome, Amounts { checked: checked(&report)?, ..Amounts::default() }))
        }
    }
    .map(|(outcome, amounts)| outcome.with(amounts))?;
    if let Action::Restore { .. } = arguments.action {
        outcome.amounts.fetched = fetched.bytes();
    }
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

impl Outcome {
    const fn with(self, amounts: Amounts) -> Self {
        Self { amounts, ..self }
    }
}

fn back_up(
    arguments: &Operation,
    control: &Control,
    file: &Path,
    changes: Option<&Path>,
) -> Result<(Outcome, Amounts)> {
    let repository = repository(arguments)?;
    let changes = changes.map(|path| changes::from_json(&fs::read(path)?)).transpose()?;
    let mut options = BackupOptions::new(BackupKind::VirtualMachine).with_host("bench").with_control(control.clone());
    if changes.is_some() {
        options = options.with_parent(Parent::Backup(repository.find_backup("latest")?.id));
    }
    let entry = EntryPath::try_from(ENTRY)?;
    timed(|| {
        let mut session = repository.begin(options)?;
        match arguments.kind {
            Kind::Image => {
                let mut source = ImageSource::open(file)?;
                if let Some(changes) = changes {
                    source = source.with_changes(changes);
                }
                session.add_blocks(entry, &source)?
            }
            Kind::Dump => session.add_stream(entry, &mut File::open(file)?)?,
        };
        let backup = session.commit()?;
        ensure!(backup.is_complete(), "the backup is incomplete: {:?}", backup.problems);
        let amounts = backup.statistics;
        Ok(Amounts {
            read: amounts.bytes_read,
            new: amounts.bytes_new,
            stored: amounts.bytes_stored,
            ..Amounts::default()
        })
    })
}

fn restore(arguments: &Operation, control: &Control, target: &Path) -> Result<(Outcome, Amounts)> {
    let repository = repository(arguments)?;
    timed(|| {
        let backup = repository.find_backup("latest")?;
        let entry = repository.entry(&backup, &EntryPath::try_from(ENTRY)?)?;
        let written = match arguments.kind {
            Kind::Image => {
                let sink =
                    Counting { sink: FileSink::create(target, OverwritePolicy::Refuse)?, written: AtomicU64::new(0) };
                repository.restore_blocks(&entry, &sink, control)?;
                sink.written.into_inner()
            }
            Kind::Dump => repository.restore_stream(&entry, &mut File::create_new(target)?, control)?,
        };
        Ok(Amounts { restored: written, written, ..Amounts::default() })
    })
}

/// Runs something and tells how long it took.
fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(Outcome, T)> {
    let (user, system, _) = usage(UsageWho::RUSAGE_SELF)?;
    let started = Instant::now();
    let result = work()?;
    let seconds = started.elapsed().as_secs_f64();
    let (user_after, system_after, _) = usage(UsageWho::RUSAGE_SELF)?;
    let cpu = user_after - user + system_after - system;
    Ok((Outcome { seconds, cpu, ..Outcome::default() }, result))
}

fn checked(report: &VerifyReport) -> Result<u64> {
    ensure!(report.ok, "the repository is damaged: {:?}", report.findings);
    Ok(report.bytes_checked)
}

fn repository(arguments: &Operation) -> Result<Repository> {
    let storage = Arc::new(LocalStorage::open(&arguments.repository)?);
    let password = Password::from(PASSWORD);
    Repository::open(storage, &Credential::from(&password), environment(arguments))
        .context("cannot open the repository")
}

fn environment(arguments: &Operation) -> Environment {
    let environment = Environment::new(Arc::new(OsClock), Arc::new(OsEntropy));
    match arguments.aead {
        Aead::AesGcm => environment.with_aead(Arc::new(AesGcm)),
        Aead::AwsLcRs => environment.with_aead(Arc::new(AwsLcRs)),
    }
}

/// Counts what comes from the storage.
#[derive(Debug, Default)]
pub(crate) struct Fetched(AtomicU64);

impl Fetched {
    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Observer for Fetched {
    fn event(&self, event: &Event<'_>) {
        if let Event::Fetched { bytes } = event {
            self.0.fetch_add(*bytes, Ordering::Relaxed);
        }
    }
}

/// Counts what is written.
struct Counting {
    sink: FileSink,
    written: AtomicU64,
}

impl BlockSink for Counting {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.written.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.sink.write_at(offset, data)
    }

    fn hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.sink.hole(offset, length)
    }

    fn finish(&self, length: u64) -> io::Result<()> {
        self.sink.finish(length)
    }
}
