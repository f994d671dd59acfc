//! What can be read and referred to: the index as history says it is, mended where it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::format::header;
use crate::format::layout::{self, Place};
use crate::id::ObjectName;
use crate::index::{Index, Segment};
use crate::length::{to_u64, to_usize};
use crate::limits;
use crate::object::{ObjectReader, ObjectType, verify_name};
use crate::pack::{Directory, HEADER_LENGTH, PackEntry};
use crate::progress::Event;
use crate::repository::backup::error_chain;
use crate::repository::environment::Control;
use crate::repository::handle::Inner;
use crate::repository::parallel::{for_each, lock};
use crate::session::History;
use crate::storage::{Key, list_all};

/// Packs that no index object names, with their sizes and chunks.
pub(crate) type Orphans = BTreeMap<ObjectName, (u64, Vec<PackEntry>)>;

/// Index objects that cannot be used, and why.
pub(crate) type Unusable = BTreeMap<ObjectName, Error>;

/// The index of a session and the packs in it that only their directories describe.
pub(crate) struct View {
    pub(crate) index: Arc<Index>,
    pub(crate) orphans: Orphans,
}

/// What becomes of an index that the storage does not give out now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    /// It is an error: what is not known would be taken for damage, as long as the index is kept.
    Stops,
    /// It is done without.
    IsTolerated,
}
/// First read of a pack of which only the directory is wanted: the object's header and a frame of the larger usual size.
const DIRECTORY_READ: u64 = header::HEADER_BYTES + (64 << 10) + header::TAG_LENGTH;

/// The index for reading: everything that valid commits name. Where an index object is lost or damaged,
/// the directories of the packs that it would name take its place.
///
/// # Errors
///
/// [`Error::Storage`] where one of them cannot be read now.
pub(crate) fn for_reading(inner: &Inner, history: &History, control: &Control) -> Result<Arc<Index>> {
    Ok(whole(inner, history, Failing::Stops, control)?.0)
}

/// The same for verification, and what is wrong with index objects; those that cannot be read now are among them.
pub(crate) fn for_verifying(inner: &Inner, history: &History, control: &Control) -> Result<(Arc<Index>, Unusable)> {
    whole(inner, history, Failing::IsTolerated, control)
}

fn whole(inner: &Inner, history: &History, failing: Failing, control: &Control) -> Result<(Arc<Index>, Unusable)> {
    let (index, failed) = load_segments(inner, history, failing, control)?;
    if !failed.is_empty() {
        supplement(inner, &index, history, failing, control)?;
    }
    Ok((Arc::new(index), failed))
}

/// Adds to an index the packs that are there and that no segment of the index set names: those of a backup that was
/// copied from another place, and whatever a lost segment named. Returns whether there were any.
///
/// # Errors
///
/// [`Error::Storage`] where nothing can be listed, or where something cannot be read now and `failing` says so.
pub(crate) fn supplement(
    inner: &Inner,
    index: &Index,
    history: &History,
    failing: Failing,
    control: &Control,
) -> Result<bool> {
    let listed = listed_packs(inner)?;
    Ok(!adopt(inner, index, history, &listed, &BTreeSet::new(), failing, control)?.is_empty())
}

/// The index for writing (step W2): without packs that a collection condemned or that are gone, and with
/// packs that no index object names, such as those of a crashed session.
pub(crate) fn for_writing(inner: &Inner, history: &History, control: &Control) -> Result<View> {
    // What is not known is stored again.
    let (mut index, _) = load_segments(inner, history, Failing::IsTolerated, control)?;
    let listed = listed_packs(inner)?;
    let known = index.packs();
    let mut unusable: BTreeSet<ObjectName> = history.condemned.iter().copied().collect();
    // A pack of another size is not the pack that was stored.
    unusable.extend(known.iter().filter(|(name, size)| listed.get(name) != Some(size)).map(|(name, _)| *name));
    index.remove_packs(&unusable);
    let orphans = adopt(inner, &index, history, &listed, &unusable, Failing::IsTolerated, control)?;
    Ok(View { index: Arc::new(index), orphans })
}

/// Every index object that can be used, and why others cannot.
fn load_segments(inner: &Inner, history: &History, failing: Failing, control: &Control) -> Result<(Index, Unusable)> {
    let names: Vec<ObjectName> = history.indexes.iter().copied().collect();
    let index = Mutex::new((Index::new(), BTreeMap::new()));
    for_each(control, names.len(), &|| Ok(()), &|(), number| {
        let Some(name) = names.get(number) else { return Ok(()) };
        let key = Place::Index(*name).key();
        let loaded = read_segment(inner, name, &key, control);
        let mut index = lock(&index)?;
        let loaded = loaded.and_then(|body| index.0.load(&Segment::parse(&body, &key)?));
        if let Err(error) = loaded {
            index.1.insert(*name, tolerate(error, &key, failing, control)?);
        }
        Ok(())
    })?;
    let (mut index, failed) = index.into_inner().map_err(|_| crate::repository::parallel::POISONED)?;
    index.settle();
    Ok((index, failed))
}

/// The body of an index object.
fn read_segment(inner: &Inner, name: &ObjectName, key: &Key, control: &Control) -> Result<Vec<u8>> {
    let bytes = inner.get(key, limits::INDEX, control)?;
    verify_name("index", key.as_str(), name, &bytes)?;
    inner.keys.open(ObjectType::Index, key.as_str(), &bytes)
}

/// Reports an object that cannot be used, and returns why, where that stops nothing.
fn tolerate(error: Error, key: &Key, failing: Failing, control: &Control) -> Result<Error> {
    control.event(&Event::Problem { name: key.as_str(), message: &error_chain(&error) });
    match error {
        // What a later program wrote cannot be used any more than what is damaged.
        Error::Damaged { .. } | Error::Unsupported { .. } | Error::LimitExceeded { .. } => Ok(error),
        Error::Storage { .. } if failing == Failing::IsTolerated => Ok(error),
        error => Err(error),
    }
}

fn listed_packs(inner: &Inner) -> Result<BTreeMap<ObjectName, u64>> {
    let listed = list_all(&*inner.storage, layout::PACKS).map_err(|source| Error::list(layout::PACKS, source))?;
    let parse = |object: crate::storage::ObjectInfo| match Place::parse(&object.key) {
        Some(Place::Pack(name)) => Some((name, object.size)),
        _ => None,
    };
    Ok(listed.into_iter().filter_map(parse).collect())
}

/// Adds packs that the index does not know: from segments outside of the index set, and then by reading their
/// directories. A pack that is damaged, or was deleted since it was listed, is left alone: nothing refers to it.
fn adopt(
    inner: &Inner,
    index: &Index,
    history: &History,
    listed: &BTreeMap<ObjectName, u64>,
    unusable: &BTreeSet<ObjectName>,
    failing: Failing,
    control: &Control,
) -> Result<Orphans> {
    let mut unknown: BTreeMap<ObjectName, u64> = listed
        .iter()
        .filter(|(name, _)| index.pack_size(name).is_none() && !unusable.contains(*name))
        .map(|(name, size)| (*name, *size))
        .collect();
    if unknown.is_empty() {
        return Ok(Orphans::new());
    }
    let named = named_elsewhere(inner, history, &unknown, failing, control)?;
    for (name, (size, entries)) in &named {
        index.insert_pack(*name, *size, entries)?;
        unknown.remove(name);
    }
    let unknown: Vec<(ObjectName, u64)> = unknown.into_iter().collect();
    let orphans = Mutex::new(named);
    for_each(control, unknown.len(), &|| Ok(()), &|(), number| {
        let Some((name, size)) = unknown.get(number) else { return Ok(()) };
        match read_directory(inner, name, *size, control) {
            Ok(directory) => {
                let entries = directory.into_entries();
                index.insert_pack(*name, *size, &entries)?;
                lock(&orphans)?.insert(*name, (*size, entries));
            }
            Err(error @ (Error::Damaged { .. } | Error::Unsupported { .. } | Error::LimitExceeded { .. })) => {
                let key = Place::Pack(*name).key();
                control.event(&Event::Problem { name: key.as_str(), message: &error_chain(&error) });
            }
            Err(Error::Storage { .. }) if failing == Failing::IsTolerated => {}
            Err(error) => return Err(error),
        }
        Ok(())
    })?;
    orphans.into_inner().map_err(|_| crate::repository::parallel::POISONED)
}

/// What segments outside of the index set say of packs that no other segment names. They are of sessions that run or
/// crashed, or came with a copy. One read of them takes the place of many reads of directories.
fn named_elsewhere(
    inner: &Inner,
    history: &History,
    unknown: &BTreeMap<ObjectName, u64>,
    failing: Failing,
    control: &Control,
) -> Result<Orphans> {
    let listed = list_all(&*inner.storage, layout::INDEXES).map_err(|source| Error::list(layout::INDEXES, source))?;
    let others: Vec<ObjectName> = listed
        .iter()
        .filter_map(|object| match Place::parse(&object.key) {
            Some(Place::Index(name)) if !history.indexes.contains(&name) => Some(name),
            _ => None,
        })
        .collect();
    let found = Mutex::new(Orphans::new());
    for_each(control, others.len(), &|| Ok(()), &|(), number| {
        let Some(name) = others.get(number) else { return Ok(()) };
        let key = Place::Index(*name).key();
        let read = read_segment(inner, name, &key, control)
            .and_then(|body| Ok(wanted_packs(&Segment::parse(&body, &key)?, unknown)));
        match read {
            Ok(packs) => lock(&found)?.extend(packs),
            Err(error) => drop(tolerate(error, &key, failing, control)?),
        }
        Ok(())
    })?;
    found.into_inner().map_err(|_| crate::repository::parallel::POISONED)
}

/// The packs of a segment that are `unknown`. One of another size is not the pack that was stored.
fn wanted_packs(segment: &Segment<'_>, unknown: &BTreeMap<ObjectName, u64>) -> Orphans {
    let mut wanted: BTreeMap<u32, (ObjectName, u64, Vec<PackEntry>)> = (0..)
        .zip(segment.packs())
        .filter(|(_, (name, size))| unknown.get(name) == Some(size))
        .map(|(number, (name, size))| (number, (name, size, Vec::new())))
        .collect();
    for entry in segment.entries() {
        if let Some((_, _, entries)) = wanted.get_mut(&entry.pack) {
            entries.push(entry.entry);
        }
    }
    wanted.into_values().map(|(name, size, entries)| (name, (size, entries))).collect()
}

/// The chunks of a pack, as its directory says.
pub(crate) fn read_directory(inner: &Inner, name: &ObjectName, size: u64, control: &Control) -> Result<Directory> {
    let key = Place::Pack(*name).key();
    // Mostly this is enough.
    let begin = inner.get_range(&key, 0..DIRECTORY_READ.min(size), control)?;
    let header = begin.get(..header::HEADER_LENGTH).unwrap_or(&begin);
    let reader = pack_reader(inner, key.as_str(), header, size)?;
    let read = |span: Range<u64>| -> Result<Bytes> {
        let known = to_u64(begin.len());
        let from = to_usize(span.start, "offset of a frame")?;
        let part = |end: u64| Ok(begin.slice(from..to_usize(end, "offset of a frame")?));
        match span.end <= known {
            true => part(span.end),
            false => Ok([part(known)?, inner.get_range(&key, known..span.end, control)?].concat().into()),
        }
    };
    let body = 0..to_u64(HEADER_LENGTH);
    let first = reader.open_span(&body, &read(reader.span(&body)?)?)?;
    let body = 0..to_u64(Directory::length(&first, &key)?);
    let bytes = read(reader.span(&body)?)?;
    let directory = reader.open_span(&body, &bytes)?;
    let first_frame = reader.length_span();
    let first_frame = bytes
        .get(..usize::try_from(first_frame.end.saturating_sub(first_frame.start)).unwrap_or(usize::MAX))
        .ok_or_else(|| Error::damaged("pack", &key, "it ends early"))?;
    let body_length = reader.body_length(first_frame)?;
    Directory::parse(&directory, body_length, &key)
}

/// Opens a pack of either kind; its header says which.
pub(crate) fn pack_reader(inner: &Inner, key: &str, header: &[u8], size: u64) -> Result<ObjectReader> {
    let kind = match header.get(9) {
        Some(number) if *number == ObjectType::MetaPack.number() => ObjectType::MetaPack,
        _ => ObjectType::DataPack,
    };
    inner.keys.reader(kind, key, header, size)
}
