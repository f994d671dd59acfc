//! Storing anew what is needed of packs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use hashbrown::HashSet;

use crate::compress::Decompressor;
use crate::error::{Error, Result};
use crate::format::layout::Place;
use crate::id::{ObjectName, SessionId};
use crate::index::Index;
use crate::length::{to_u64, to_usize};
use crate::maintenance::repack::choose::{Candidate, Choice};
use crate::maintenance::repack::{Shared, problem};
use crate::pack::{ChunkKind, Directory, PackEntry};
use crate::progress::Event;
use crate::repository::{ChunkStore, Control, POISONED, Problem, for_each, lock, pack_reader, read_directory};

/// What was stored anew.
pub(super) struct Rewritten {
    /// For every pack that is replaced, the packs that have what is needed of it.
    pub(super) stand_ins: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    /// The packs that were written, with their sizes.
    pub(super) packs: BTreeMap<ObjectName, u64>,
    /// The index segments that name them.
    pub(super) indexes: Vec<ObjectName>,
    /// Chunks in them.
    pub(super) chunks: u64,
    pub(super) store: ChunkStore,
}

/// Stores anew what is needed of the packs of a choice, for a session. What cannot be read keeps its pack.
///
/// # Errors
///
/// [`Error::Storage`], [`Error::Cancelled`].
pub(super) fn rewrite(
    inner: &Shared,
    choice: &Choice,
    session: SessionId,
    control: &Control,
    problems: &mut Vec<Problem>,
) -> Result<Rewritten> {
    // Of what other packs have nothing counts: a chunk that was read and checked is not exchanged for one that was not.
    let index = Arc::new(Index::new());
    let level = inner.config.compression_level;
    let store =
        ChunkStore::new(Arc::clone(inner), session, level, control.clone(), Arc::clone(&index), BTreeMap::new())?;
    control.event(&Event::Expected { entries: 0, bytes: choice.plan.chunk_bytes });
    let done = Mutex::new((HashSet::new(), BTreeMap::new()));
    for_each(control, choice.candidates.len(), &Decompressor::new, &|decompressor, number| {
        let Some(candidate) = choice.candidates.get(number) else { return Ok(()) };
        let chunks = if candidate.usage.marked_chunks == 0 {
            Vec::new()
        } else {
            match needed_chunks(inner, choice, candidate, decompressor, control) {
                Ok(chunks) => chunks,
                Err(error) if error.is_of_one_object() => {
                    lock(&done)?.1.insert(candidate.name, error);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        };
        for (entry, stored) in chunks {
            store.store_payload(&entry, stored)?;
        }
        lock(&done)?.0.insert(candidate.name);
        Ok(())
    })?;
    let (replaced, failed): (HashSet<ObjectName>, BTreeMap<ObjectName, Error>) =
        done.into_inner().map_err(|_| POISONED)?;
    for (name, error) in failed {
        let message = format!("it stays, as something in it that backups need cannot be read: {error}");
        problem(control, problems, Place::Pack(name).key().as_str(), message);
    }
    let stored = store.finish()?;
    let mut stand_ins: BTreeMap<ObjectName, BTreeSet<ObjectName>> =
        replaced.iter().map(|name| (*name, BTreeSet::new())).collect();
    index.for_each_shared(&choice.index, &mut |old, new| {
        if let Some(packs) = stand_ins.get_mut(&old) {
            packs.insert(new);
        }
    });
    Ok(Rewritten { stand_ins, packs: stored.packs, indexes: stored.indexes, chunks: index.chunk_count(), store })
}

/// Every chunk of a pack that is needed, as it is stored, each compared with its id.
fn needed_chunks(
    inner: &Shared,
    choice: &Choice,
    candidate: &Candidate,
    decompressor: &mut Decompressor,
    control: &Control,
) -> Result<Vec<(PackEntry, Vec<u8>)>> {
    let key = Place::Pack(candidate.name).key();
    let damaged = |reason: &str| Error::damaged("pack", &key, reason);
    let object = inner.get(&key, candidate.size, control)?;
    if to_u64(object.len()) != candidate.size {
        return Err(damaged("it has another size than a backup says that needs it"));
    }
    let reader = pack_reader(inner, key.as_str(), &object, candidate.size)?;
    // Where something in it is damaged that nobody needs, the rest is read piece by piece.
    let body = reader.open_all(&object).ok();
    let entries = match &body {
        Some(body) => Directory::parse(body, to_u64(body.len()), &key)?.into_entries(),
        None => read_directory(inner, &candidate.name, candidate.size, control)?.into_entries(),
    };
    let payload = |range: Range<u64>| -> Result<Vec<u8>> {
        let part = |bytes: &[u8], range: &Range<u64>| {
            let (from, to) = (to_usize(range.start, "offset of a chunk")?, to_usize(range.end, "end of a chunk")?);
            bytes.get(from..to).map(<[u8]>::to_vec).ok_or_else(|| damaged("it ends early"))
        };
        match &body {
            Some(body) => part(body, &range),
            None => reader.open_span(&range, &part(&object, &reader.span(&range)?)?),
        }
    };
    let mut chunks = Vec::new();
    for entry in entries.into_iter().filter(|entry| choice.marks.contains(&entry.id)) {
        control.cancel().check()?;
        let begin = u64::from(entry.offset);
        let stored = payload(begin..begin.saturating_add(u64::from(entry.stored)))?;
        let plain = decompressor.decompress(entry.codec, &stored, entry.raw, &entry.id)?;
        let id = match entry.kind {
            ChunkKind::Data => inner.chunk_keys.data_id(&plain),
            ChunkKind::Meta => inner.chunk_keys.meta_id(&plain),
        };
        drop(plain);
        if id != entry.id {
            return Err(Error::damaged("chunk", entry.id, "its content does not have its id"));
        }
        chunks.push((entry, stored));
    }
    if to_u64(chunks.len()) != candidate.usage.marked_chunks {
        return Err(damaged("its directory does not have the chunks that the index says"));
    }
    Ok(chunks)
}
