//! What a storage is asked for: requests by kind and bytes, operation by operation. Nothing here is a time.

use std::io::{self, Read};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use backup_adapters::OsClock;
use backup_core::content::EntryPath;
use backup_core::crypto::Argon2Parameters;
use backup_core::entropy::OsEntropy;
use backup_core::keys::Credential;
use backup_core::repository::{
    BackupKind, BackupOptions, Control, Environment, InitOptions, LockedRepository, Repository, VerifyLevel,
    VerifyOptions,
};
use backup_core::secret::Password;
use backup_core::storage::fault::{FaultStorage, OperationKind};
use backup_core::storage::{MemoryStorage, Storage};
use serde::Serialize;

use crate::arguments;
use crate::generate::Random;
use crate::operation::{Fetched, PASSWORD};
use crate::table::{Table, megabytes};

/// Name of the only entry of every backup.
const ENTRY: &str = "input";
/// What changes from day to day changes in pieces of this length.
const PIECE: u64 = 1 << 20;

/// What an operation asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Step {
    /// The operation.
    pub name: String,
    /// Objects that were put.
    pub put: u64,
    /// Whole objects that were read.
    pub get: u64,
    /// Ranges that were read.
    pub get_range: u64,
    /// Objects whose size was asked for.
    pub stat: u64,
    /// Pages of listings, of up to 1,000 objects.
    pub list: u64,
    /// Objects that were deleted.
    pub delete: u64,
    /// Bytes by which the storage grew.
    pub uploaded: u64,
    /// Bytes that were read.
    pub downloaded: u64,
}

/// What a repository was asked for during its first days.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Bytes of the input, none of which can be compressed.
    pub input: u64,
    /// Days after the first.
    pub days: u64,
    /// The operations, in order.
    pub steps: Vec<Step>,
}

/// `requests`
///
/// # Errors
///
/// Whatever the engine says.
pub fn run(arguments: &arguments::Requests) -> Result<Report> {
    let counted = Arc::new(FaultStorage::new(MemoryStorage::new()));
    let storage: Arc<dyn Storage> = Arc::clone(&counted) as Arc<_>;
    let password = Password::from(PASSWORD);
    let credential = Credential::from(&password);
    let mut steps = Vec::new();
    let mut step = |name: String, work: &mut dyn FnMut(&Control) -> Result<()>| -> Result<()> {
        let (calls, bytes) = (counted.log().len(), stored(counted.inner())?);
        let fetched = Arc::new(Fetched::default());
        work(&Control::default().with_observer(Arc::clone(&fetched) as Arc<_>)).with_context(|| name.clone())?;
        let mut step = Step { name, ..Step::default() };
        for operation in counted.log().iter().skip(calls) {
            *match operation.kind {
                OperationKind::Put => &mut step.put,
                OperationKind::Get => &mut step.get,
                OperationKind::GetRange => &mut step.get_range,
                OperationKind::Stat => &mut step.stat,
                OperationKind::List => &mut step.list,
                OperationKind::Delete => &mut step.delete,
            } += 1;
        }
        step.uploaded = stored(counted.inner())?.saturating_sub(bytes);
        step.downloaded = fetched.bytes();
        steps.push(step);
        Ok(())
    };

    let cheapest = Argon2Parameters::new(64 << 10, 1, 1)?;
    step("create repository".into(), &mut |_| {
        let options = InitOptions::default().with_argon2(cheapest);
        Repository::init(Arc::clone(&storage), &credential, &options, environment())?;
        Ok(())
    })?;
    let open = || Repository::open(Arc::clone(&storage), &credential, environment());
    let entry = EntryPath::try_from(ENTRY)?;
    for day in 0..=arguments.days {
        step(if day == 0 { "first backup".into() } else { format!("day {day}") }, &mut |control| {
            let options = BackupOptions::new(BackupKind::Data).with_host("bench").with_control(control.clone());
            let repository = open()?;
            let mut session = repository.begin(options)?;
            session.add_stream(entry.clone(), &mut Days::new(arguments.size, day))?;
            ensure!(session.commit()?.is_complete(), "the backup is incomplete");
            Ok(())
        })?;
    }
    step("list backups".into(), &mut |_| {
        ensure!(open()?.list()?.len() as u64 == arguments.days + 1, "backups are missing");
        Ok(())
    })?;
    for (name, level) in [("verify bytes", VerifyLevel::Bytes), ("verify presence", VerifyLevel::Presence)] {
        step(name.into(), &mut |control| {
            let report = LockedRepository::open(Arc::clone(&storage), environment())?
                .verify(&VerifyOptions::new(level), control)?;
            ensure!(report.ok, "{:?}", report.findings);
            Ok(())
        })?;
    }
    step("verify content".into(), &mut |control| {
        let report = open()?.verify(&VerifyOptions::new(VerifyLevel::Content), None, control)?;
        ensure!(report.ok, "{:?}", report.findings);
        Ok(())
    })?;
    step("restore".into(), &mut |control| {
        let repository = open()?;
        let backup = repository.find_backup("latest")?;
        let written = repository.restore_stream(&repository.entry(&backup, &entry)?, &mut io::sink(), control)?;
        ensure!(written == arguments.size, "{written} bytes came back");
        Ok(())
    })?;
    Ok(Report { input: arguments.size, days: arguments.days, steps })
}

/// The report as a table.
#[must_use]
pub fn show(report: &Report) -> String {
    let mut table = Table::new(&["requests", "put", "get", "range", "size", "list", "delete", "MB up", "MB down"]);
    for step in &report.steps {
        let counts = [step.put, step.get, step.get_range, step.stat, step.list, step.delete];
        let mut row = vec![step.name.clone()];
        row.extend(counts.map(|count| count.to_string()));
        row.extend([step.uploaded, step.downloaded].map(megabytes));
        table.push(row);
    }
    let note = "one percent of the input is new every day, in pieces of 1 MiB";
    format!("{} MB that cannot be compressed; {note}\n\n{}", megabytes(report.input), table.render())
}

fn environment() -> Environment {
    Environment::new(Arc::new(OsClock), Arc::new(OsEntropy))
}

/// Bytes of all objects.
fn stored(storage: &MemoryStorage) -> Result<u64> {
    let (mut bytes, mut after) = (0, None);
    loop {
        let page = storage.list("", after.as_ref())?;
        bytes += page.objects.iter().map(|object| object.size).sum::<u64>();
        after = page.objects.last().map(|object| object.key.clone());
        if !page.more {
            return Ok(bytes);
        }
    }
}

/// Random bytes of which a hundredth is written anew every day.
struct Days {
    length: u64,
    day: u64,
    position: u64,
    piece: Vec<u8>,
}

impl Days {
    const fn new(length: u64, day: u64) -> Self {
        Self { length, day, position: 0, piece: Vec::new() }
    }

    /// The last day, up to this one, on which a piece was written.
    fn written(&self, number: u64) -> u64 {
        (1..=self.day).rev().find(|day| Random::new(number ^ (day << 40)).below(100) == 0).unwrap_or(0)
    }
}

impl Read for Days {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.length {
            return Ok(0);
        }
        let offset = self.position % PIECE;
        if offset == 0 {
            let number = self.position / PIECE;
            let mut random = Random::new((number << 20) ^ self.written(number) ^ 0x00c0_ffee);
            self.piece.resize(PIECE.min(self.length - self.position) as usize, 0);
            random.fill(&mut self.piece);
        }
        let rest = &self.piece[offset as usize..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count as u64;
        Ok(count)
    }
}
