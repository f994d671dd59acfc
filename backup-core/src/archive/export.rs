//! Writing an archive of backups.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use bytes::Bytes;
use serde::Serialize;

use crate::archive::block::Identity;
use crate::archive::geometry::Profile;
use crate::archive::layout::{Layout, Step, table_record};
use crate::archive::record::{Placed, Record, encode_end, padding};
use crate::archive::writer::BlockWriter;
use crate::crypto::hash;
use crate::error::{Error, Result};
use crate::format::layout::{self, Place};
use crate::id::{BackupId, Digest, ObjectName};
use crate::length::to_u64;
use crate::limits;
use crate::progress::Event;
use crate::repository::{Control, LockedRepository, read_closure, read_error};
use crate::session::{Commit, History, outcome_object};
use crate::storage::{Key, Storage, list_all};

/// How an archive is written.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ExportOptions {
    /// How much error correction it has.
    pub profile: Profile,
    /// The backups to export; all where there are none.
    pub backups: Vec<BackupId>,
}

impl ExportOptions {
    /// Sets the profile.
    #[must_use]
    pub const fn with_profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Sets the backups.
    #[must_use]
    pub fn with_backups(mut self, backups: impl IntoIterator<Item = BackupId>) -> Self {
        self.backups = backups.into_iter().collect();
        self
    }
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ExportReport {
    /// The archive's id, in hexadecimal.
    pub archive: String,
    /// The backups in it, oldest first.
    pub backups: Vec<BackupId>,
    /// Objects in it, each counted once.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Bytes of the archive.
    pub bytes: u64,
    /// Bytes in one piece that may be lost of it, wherever they begin.
    pub survives: u64,
}

/// Writes `repository`'s backups to `sink`, from the beginning to the end. Needs no password.
///
/// Objects are compared with their names as they pass: what is damaged in the repository is not exported. The
/// same objects and the same randomness make the same bytes. Memory: the largest object, and 16 data blocks and the parity blocks
/// of each stripe, some 30 MiB.
///
/// # Errors
///
/// [`Error::NotFound`] for a backup that is not there; [`Error::Damaged`] naming an object that is missing or damaged;
/// [`Error::Sink`] where `sink` fails; [`Error::Storage`], [`Error::Cancelled`]. What was written by then is no
/// archive of all that was asked for: throw it away.
pub fn export(
    repository: &LockedRepository,
    options: &ExportOptions,
    sink: &mut dyn Write,
    control: &Control,
) -> Result<ExportReport> {
    let history = repository.with_records(control, History::read)?;
    let commits = history.select(&options.backups)?;
    let (critical, others, small) = gather(repository, &history, &commits, control)?;
    let layout = Layout::new(&critical, &others, options.profile)?;
    let mut id = [0; 16];
    repository.environment.entropy.fill(&mut id)?;
    let expected = others.iter().fold(0u64, |sum, record| sum.saturating_add(record.size));
    control.event(&Event::Expected { entries: 0, bytes: expected });
    let mut writer = BlockWriter::new(sink, Identity { id, geometry: layout.geometry })?;
    for step in layout.steps() {
        control.cancel().check()?;
        match step {
            Step::Object(placed) => {
                let bytes = object(&*repository.storage, placed, &small, control)?;
                write_record(&mut writer, &placed.record, &bytes)?;
                control.event(&Event::Stored { bytes: placed.record.size });
            }
            Step::Table => {
                let record = table_record(to_u64(layout.table.len()), hash::digest(&layout.table));
                write_record(&mut writer, &record, &layout.table)?;
            }
        }
    }
    let written = layout.tables.get(1).map_or(0, |table| {
        let last = layout.records.last().map_or(0, |placed| placed.offset.saturating_add(placed.record.length()));
        last.max(*table)
    });
    let end = encode_end(layout.tables);
    writer.zeros(layout.length().saturating_sub(written).saturating_sub(to_u64(end.len())))?;
    writer.write(&end)?;
    writer.finish()?;
    let distinct = critical.iter().chain(&others);
    Ok(ExportReport {
        archive: id.iter().map(|byte| format!("{byte:02x}")).collect(),
        backups: commits.iter().map(|commit| commit.id).collect(),
        objects: to_u64(critical.len().saturating_add(others.len())),
        object_bytes: distinct.fold(0, |sum, record| sum.saturating_add(record.size)),
        bytes: layout.geometry.bytes(),
        survives: layout.geometry.promise(),
    })
}

fn write_record(writer: &mut BlockWriter<'_>, record: &Record, bytes: &[u8]) -> Result<()> {
    writer.write(&record.encode())?;
    writer.write(bytes)?;
    writer.zeros(padding(record.size))
}

/// The bytes of an object, which are those that its record promises.
fn object(storage: &dyn Storage, placed: &Placed, small: &BTreeMap<Key, Bytes>, control: &Control) -> Result<Bytes> {
    let key = placed.record.key.as_ref().ok_or(Error::Internal("an object without a key"))?;
    let bytes = match small.get(key) {
        Some(bytes) => bytes.clone(),
        None => storage.get(key, placed.record.size).map_err(|error| read_error(key, error))?,
    };
    control.event(&Event::Fetched { bytes: to_u64(bytes.len()) });
    if to_u64(bytes.len()) != placed.record.size || hash::digest(&bytes) != placed.record.hash {
        return Err(Error::damaged("object", key, "its bytes are not those that it was stored with"));
    }
    Ok(bytes)
}

/// Records of what everything depends on, records of the rest, and the bytes of what has no hash for a name.
type Gathered = (Vec<Record>, Vec<Record>, BTreeMap<Key, Bytes>);

fn gather(repository: &LockedRepository, history: &History, commits: &[Commit], control: &Control) -> Result<Gathered> {
    let storage = &*repository.storage;
    let mut small = BTreeMap::new();
    let mut keep = |key: Key, bytes: Bytes| -> Record {
        let record = Record { key: Some(key.clone()), size: to_u64(bytes.len()), hash: hash::digest(&bytes) };
        small.insert(key, bytes);
        record
    };
    let mut critical = vec![keep(Place::Config.key(), repository.config_bytes.clone())];
    for (prefix, limit) in [(layout::SLOTS, limits::SLOT), (layout::KEYRINGS, limits::KEYRING)] {
        for object in list_all(storage, prefix).map_err(|source| Error::list(prefix, source))? {
            // What is no slot or keyring by its key, or too large to be one, opens nothing.
            if Place::parse(&object.key).is_some() && object.size <= limit {
                let bytes = storage.get(&object.key, limit).map_err(|error| read_error(&object.key, error))?;
                critical.push(keep(object.key, bytes));
            }
        }
    }
    let mut packs: BTreeMap<ObjectName, u64> = BTreeMap::new();
    let mut places: BTreeSet<Place> = history.indexes.iter().map(|name| Place::Index(*name)).collect();
    for commit in commits {
        control.cancel().check()?;
        critical.push(keep(
            commit.place().key(),
            repository.with_records(control, |records| outcome_object(records, history, commit))?,
        ));
        packs.extend(read_closure(storage, commit, control)?.packs);
        places.insert(Place::Body(commit.content.body));
        places.insert(Place::Closure(commit.content.closure));
    }
    let named = |place: Place, name: &ObjectName, size: u64| Record {
        key: Some(place.key()),
        size,
        hash: Digest::new(*name.as_bytes()),
    };
    let mut others = Vec::new();
    for place in places {
        let (Place::Index(name) | Place::Body(name) | Place::Closure(name)) = place else { continue };
        let key = place.key();
        let size = storage.stat(&key).map_err(|error| read_error(&key, error))?.size;
        others.push(named(place, &name, size));
    }
    others.extend(packs.iter().map(|(name, size)| named(Place::Pack(*name), name, *size)));
    Ok((critical, others, small))
}
