//! Collections: steps G0 to G7 of `docs/format.md`, "Collection". What they delete is in [`sweep`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hashbrown::HashSet;

use crate::crypto::SigningKey;
use crate::error::{Error, Result};
use crate::format::cbor;
use crate::format::layout::{self, Place};
use crate::id::{BackupId, ObjectName};
use crate::keys::MaintenanceKey;
use crate::length::to_u64;
use crate::limits;
use crate::maintenance::indexes;
use crate::maintenance::options::CollectOptions;
use crate::maintenance::plan::{CollectionReport, CollectionState, OpenSession, PackAmount, amount, open_sessions};
use crate::maintenance::record::{self, Decision};
use crate::maintenance::site::Site;
use crate::maintenance::survey::{Needs, Stage, check_outcome, check_packs, check_sound, packs};
use crate::maintenance::sweep::{self, Swept};
use crate::repository::{Control, LockedRepository, Repository};
use crate::session::{
    CollectionOutcome, Commit, Final, History, probe, read_outcome, seal_abort, seal_final, seal_mark, seal_revocation,
};
use crate::storage::{PutMode, StorageError};

impl LockedRepository {
    /// Deletes what no backup needs: packs, and bodies, closures, index segments and records without a backup. Whole packs only;
    /// index segments of backups stay, as they cannot be read.
    ///
    /// A collection that crashed, or waits for sessions, is continued. What it must not delete, because a running
    /// backup may need it, is left for the next one.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] naming what keeps the collection from knowing what backups need; [`Error::Conflict`] where
    /// another collector is at work or was quicker; [`Error::UnknownOutcome`] where the storage does not say whether
    /// it took a record; [`Error::Unsupported`] where it does not honour put-if-absent; [`Error::InvalidArgument`]
    /// for the key of another repository; [`Error::ReadOnly`], [`Error::Storage`], [`Error::Cancelled`]. After any of them nothing is lost
    /// and the call can be made again.
    pub fn collect(
        &self,
        key: &MaintenanceKey,
        options: &CollectOptions,
        control: &Control,
    ) -> Result<CollectionReport> {
        collect(&Site::locked(self, control), key, options)
    }
}

impl Repository {
    /// As [`LockedRepository::collect`], with the key from the keyring. Index segments are written anew without what
    /// is deleted.
    ///
    /// # Errors
    ///
    /// As [`LockedRepository::collect`], and those of reading the keyring.
    pub fn collect(&self, options: &CollectOptions, control: &Control) -> Result<CollectionReport> {
        let key = self.maintenance_key()?;
        let report = collect(&Site::unlocked(self, control), &key, options);
        self.inner.forget_view();
        report
    }
}

/// A collection with its mark.
struct Marked {
    number: u32,
    condemned: HashSet<ObjectName>,
    needs: Needs,
    is_new: bool,
}

fn collect(site: &Site<'_>, key: &MaintenanceKey, options: &CollectOptions) -> Result<CollectionReport> {
    let key = site.signing_key(key)?;
    if !site.config.single_writer {
        probe(site.storage, &*site.environment.entropy)?;
    }
    let history = site.history(&History::default())?;
    check_sound(site, &history, options)?;
    check_outcome(site, &history, options)?;
    let result = run(site, &key, &history, options);
    match &result {
        // What is missing now may be what another collector deleted meanwhile.
        Err(Error::Damaged { .. } | Error::Storage { source: StorageError::NotFound, .. })
            if history.is_overtaken(site.storage)? =>
        {
            Err(overtaken(history.newest_mark.saturating_add(1), "another collector ended a collection meanwhile"))
        }
        _ => result,
    }
}

fn run(site: &Site<'_>, key: &SigningKey, history: &History, options: &CollectOptions) -> Result<CollectionReport> {
    let mut swept = finish_last(site, history)?;
    let marked = match Stage::find(site, history)? {
        Stage::Begin { number, spoiled } => {
            for number in spoiled {
                abort(site, key, number)?;
            }
            begin(site, key, number, history, options)?
        }
        Stage::Continue { number, condemned } => Marked { number, condemned, needs: Needs::default(), is_new: false },
    };
    let mut report = CollectionReport {
        number: marked.number,
        state: CollectionState::Waiting,
        continued: !marked.is_new,
        backups: to_u64(history.commits.len()),
        deleted: PackAmount::default(),
        deleted_objects: 0,
        live: PackAmount::default(),
        revoked: Vec::new(),
        waiting_for: Vec::new(),
    };
    settle(site, key, &marked, history, options, &mut report)?;
    if report.waiting_for.is_empty() {
        decide(site, key, marked, history, options, &mut report, &mut swept)?;
        report.state = CollectionState::Finished;
    }
    report.deleted = swept.packs;
    report.deleted_objects = swept.objects;
    Ok(report)
}

/// Deletes what the newest final left to be deleted, should its collector not have come to its end (G8).
fn finish_last(site: &Site<'_>, history: &History) -> Result<Swept> {
    let mut swept = Swept::default();
    if history.newest_final == 0 {
        return Ok(swept);
    }
    if let Some(last) = read_final(site, history.newest_final)? {
        sweep::after_final(site, history.newest_final, &last.condemned, history, &mut swept)?;
    }
    Ok(swept)
}

fn read_final(site: &Site<'_>, number: u32) -> Result<Option<Final>> {
    let key = Place::CollectionOutcome(number).key();
    let bytes = site.storage.get(&key, limits::COLLECTION).map_err(|error| Error::storage("get", &key, error))?;
    match read_outcome(&bytes, &site.signers.maintenance, site.repository(), number, key.as_str())? {
        CollectionOutcome::Final(found) => Ok(Some(found)),
        CollectionOutcome::Aborted => Ok(None),
    }
}

/// Ends a collection whose mark nobody can use.
fn abort(site: &Site<'_>, key: &SigningKey, number: u32) -> Result<()> {
    let place = Place::CollectionOutcome(number).key();
    record::put(site.storage, &place, seal_abort(key, site.repository(), number)?, limits::COLLECTION).map(drop)
}

/// G0 to G3.
fn begin(site: &Site<'_>, key: &SigningKey, number: u32, before: &History, options: &CollectOptions) -> Result<Marked> {
    let open = Place::CollectionOpen(number).key();
    let (seconds, nanoseconds) = site.environment.now().to_unix();
    let bytes = cbor::encode_map(|map| {
        map.u64(1, u64::from(number));
        map.i64(2, seconds);
        map.u64(3, u64::from(nanoseconds));
    })?;
    // It tells people that somebody began. What decides is the mark.
    match site.storage.put(&open, bytes.into(), PutMode::Create) {
        Ok(()) | Err(StorageError::AlreadyExists) => {}
        Err(error) => return Err(Error::storage("put", &open, error)),
    }
    let mut condemned: BTreeSet<ObjectName> = BTreeSet::new();
    condemned.extend(site.list(layout::BODIES)?.iter().filter_map(|object| match Place::parse(&object.key) {
        Some(Place::Body(name)) => Some(name),
        _ => None,
    }));
    // Segments outside of the index set may be all that names the packs of a copied backup: they go where somebody can
    // read them and write others.
    if site.unlocked.is_some() {
        condemned.extend(index_segments(site)?);
    }
    let listed = packs(site)?;
    let history = site.history(before)?;
    if history.newest_mark >= number {
        return Err(overtaken(number, "another collector put its mark first"));
    }
    check_sound(site, &history, options)?;
    let mut needs = Needs::default();
    needs.add(site, &history)?;
    check_packs(site, &needs, &listed, options)?;
    // Segments of the index set are condemned as well: the final names others in their place.
    for name in history.live.values().flat_map(|commit| &commit.content.indexes) {
        condemned.remove(name);
    }
    for commit in history.live.values() {
        condemned.remove(&commit.content.body);
    }
    condemned.extend(listed.into_keys().filter(|name| !needs.contains(name)));
    let condemned: Vec<ObjectName> = condemned.into_iter().collect();
    let mark = seal_mark(key, site.repository(), number, &condemned)?;
    site.control.cancel().check()?;
    match record::put(site.storage, &Place::CollectionMark(number).key(), mark, limits::COLLECTION)? {
        Decision::Stored | Decision::Same => {}
        Decision::Taken => return Err(overtaken(number, "another collector put its mark first")),
    }
    Ok(Marked { number, condemned: condemned.into_iter().collect(), needs, is_new: true })
}

fn index_segments(site: &Site<'_>) -> Result<BTreeSet<ObjectName>> {
    let name = |object: &crate::storage::ObjectInfo| match Place::parse(&object.key) {
        Some(Place::Index(name)) => Some(name),
        _ => None,
    };
    Ok(site.list(layout::INDEXES)?.iter().filter_map(name).collect())
}

fn overtaken(number: u32, reason: &str) -> Error {
    Error::Conflict { what: format!("collection {number}"), reason: reason.into(), transient: true }
}

/// The history, if `number` is still the collection that is going on.
fn history_of(site: &Site<'_>, number: u32, before: &History, options: &CollectOptions) -> Result<History> {
    let history = site.history(before)?;
    if history.newest_mark != number || history.newest_final >= number {
        return Err(overtaken(number, "another collector ended it"));
    }
    check_sound(site, &history, options)?;
    Ok(history)
}

/// G4 and G5: every session that may refer to condemned packs ends. A session that copies has the generation of what it
/// copies, so that no generation tells which ones began after the mark and saw it.
fn settle(
    site: &Site<'_>,
    key: &SigningKey,
    marked: &Marked,
    before: &History,
    options: &CollectOptions,
    report: &mut CollectionReport,
) -> Result<()> {
    let history = history_of(site, marked.number, before, options)?;
    for session in open_sessions(site, &history, options)? {
        if session.is_revocable {
            if revoke(site, key, &session)? {
                report.revoked.push(session);
            }
        } else {
            report.waiting_for.push(session);
        }
    }
    Ok(())
}

/// Whether a session was revoked; `false` where it ended by itself.
fn revoke(site: &Site<'_>, key: &SigningKey, session: &OpenSession) -> Result<bool> {
    site.control.cancel().check()?;
    let place = Place::SessionOutcome(session.generation, session.session).key();
    let revocation = seal_revocation(key, site.repository(), session.session)?;
    Ok(record::put(site.storage, &place, revocation, limits::COMMIT)? != Decision::Taken)
}

/// G6 and G7, and the deletion of what the final condemns.
fn decide(
    site: &Site<'_>,
    key: &SigningKey,
    mut marked: Marked,
    before: &History,
    options: &CollectOptions,
    report: &mut CollectionReport,
    swept: &mut Swept,
) -> Result<()> {
    let number = marked.number;
    let history = history_of(site, number, before, options)?;
    marked.needs.add(site, &history)?;
    let listed = packs(site)?;
    check_packs(site, &marked.needs, &listed, options)?;
    let pinned: BTreeSet<ObjectName> =
        history.live.values().flat_map(|commit| &commit.content.indexes).copied().collect();
    let mut carried: BTreeSet<ObjectName> = history.indexes.difference(&pinned).copied().collect();
    // One that an older final condemned may still be there, and go at any moment. One that the mark condemned may be of a
    // session that has committed since.
    let mut segments = index_segments(site)?;
    segments.retain(|name| !history.gone.contains(name) && !pinned.contains(name));
    match site.unlocked {
        Some(_) => carried.extend(segments.iter().filter(|name| marked.condemned.contains(*name))),
        None => carried.extend(segments),
    }
    let bodies: HashSet<ObjectName> = history.live.values().map(|commit| commit.content.body).collect();
    // Segments of forgotten commits that stay valid, as their generation is greater, are still named by these.
    let young = history.valid.values().filter(|commit| commit.content.generation > number);
    let named: HashSet<&ObjectName> = pinned.iter().chain(young.flat_map(|commit| &commit.content.indexes)).collect();
    let mut condemned = marked.condemned;
    condemned.retain(|name| !(marked.needs.contains(name) || bodies.contains(name) || named.contains(name)));
    let new = match site.unlocked {
        Some(inner) => {
            let (gone, listed, needs) = (&condemned, &listed, &marked.needs);
            let before =
                indexes::Before { pinned: &pinned, carried: &carried, set: &history.indexes, gone, listed, needs };
            indexes::shrink(site, inner, &before)?
        }
        None => carried.clone(),
    };
    // What is in the set stays. What was replaced in it goes if the mark condemned it: else a commit that came since may name
    // it, and the next collection's mark does.
    condemned.retain(|name| !new.contains(name));
    let set: Vec<ObjectName> = pinned.union(&new).copied().collect();
    let checkpoint = checkpoint(site, &history)?;
    record_forgotten(site, key, &history, number)?;
    let names: Vec<ObjectName> = condemned.iter().copied().collect();
    let finale = seal_final(key, site.repository(), number, &names, &checkpoint, &set)?;
    drop(checkpoint);
    site.control.cancel().check()?;
    match record::put(site.storage, &Place::CollectionOutcome(number).key(), finale, limits::COLLECTION)? {
        Decision::Stored | Decision::Same => {}
        Decision::Taken => return Err(overtaken(number, "another collector ended it")),
    }
    report.backups = to_u64(history.commits.len());
    report.live = amount(marked.needs.iter());
    sweep::after_final(site, number, &condemned, &history, swept)?;
    sweep::forgets(site, &history, swept)
}

/// Puts the forget records that are lacking for ids of backups that are forgotten and whose commits this final makes void:
/// whoever names one of these ids must not miss it.
fn record_forgotten(site: &Site<'_>, key: &SigningKey, history: &History, number: u32) -> Result<()> {
    let goes = |commit: &&Commit| commit.content.generation <= number && history.is_forgotten(commit);
    let ids: BTreeSet<BackupId> = history.valid.values().filter(goes).flat_map(Commit::ids).copied().collect();
    for id in ids.difference(&history.forgotten) {
        site.control.cancel().check()?;
        record::put_forget(site, key, *id)?;
    }
    Ok(())
}

/// The outcome objects of the live commits.
fn checkpoint(site: &Site<'_>, history: &History) -> Result<Vec<Bytes>> {
    let mut known: BTreeMap<BackupId, Vec<u8>> = BTreeMap::new();
    if history.newest_final > 0
        && let Some(last) = read_final(site, history.newest_final)?
    {
        known.extend(last.checkpoint.into_iter().map(|bytes| (Commit::id_of(&bytes), bytes)));
    }
    let mut checkpoint = Vec::with_capacity(history.live.len());
    for commit in history.live.values() {
        let bytes = match known.remove(&commit.id) {
            Some(bytes) => Bytes::from(bytes),
            None => {
                site.control.cancel().check()?;
                let key = commit.place().key();
                let bytes =
                    site.storage.get(&key, limits::COMMIT).map_err(|error| Error::storage("get", &key, error))?;
                if Commit::id_of(&bytes) != commit.id {
                    return Err(Error::damaged("session outcome", &key, "it is another one than a moment ago"));
                }
                bytes
            }
        };
        checkpoint.push(bytes);
    }
    Ok(checkpoint)
}
