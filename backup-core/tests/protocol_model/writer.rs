//! Steps W0 to W5. A writer that crashes is one that takes no further step: every state on its way is looked at.

use crate::rules::{Action, OLD_CHUNKS, Protocol, Rule, Work, is_undecided};
use crate::state::{COLLECTIONS, OLD, Outcome, PACKS, Session, Set, State, Writer, WriterStep, bit, has, new_pack};

pub(crate) fn steps(protocol: &Protocol, state: &State, number: usize, take: &mut dyn FnMut(Action, State)) {
    let writer = state.writers[number];
    let of = protocol.session(number);
    let session = state.sessions[of];
    let mut next = *state;
    let mut go = |what, mut next: State, step| {
        next.writers[number].step = step;
        if step != WriterStep::ReadRest {
            (next.writers[number].condemned, next.writers[number].ended) = (0, 0);
        }
        take(Action::Writer(number, what), next);
    };
    let newest_mark = if protocol.keeps(Rule::GenerationFromMarks) { state.newest_mark() } else { state.newest_open() };
    match writer.step {
        WriterStep::Generation => {
            let generation = if let Work::Copy(generation) = protocol.work[number] {
                if has_collected_to(state, generation) {
                    return go("finds that the destination has collected further", next, WriterStep::End);
                }
                generation
            } else if let Work::Repack(target) = protocol.work[number]
                && protocol.keeps(Rule::ReplacementsNotOlder)
            {
                let replaced = commits_of(protocol, state, target).map(|session| state.sessions[session].generation);
                replaced.fold(newest_mark + 1, u8::max)
            } else {
                newest_mark + 1
            };
            next.writers[number].generation = generation;
            if protocol.keeps(Rule::OpenBeforeReading) {
                go("takes a generation", next, WriterStep::Open);
            } else {
                next.sessions[of] = Session { generation, ..Session::default() };
                go("takes a generation and does not open a session", next, WriterStep::ReadCollections);
            }
        }
        WriterStep::Open => {
            if !protocol.keeps(Rule::OpenBeforeReading) {
                next.sessions[of].open = true;
                return go("opens its session only now", next, WriterStep::Upload);
            }
            if session.generation == 0 || !matches!(protocol.work[number], Work::Copy(_)) {
                next.sessions[of] = Session { generation: writer.generation, ..Session::default() };
            }
            next.sessions[of].open = true;
            go("opens its session", next, WriterStep::ReadCollections);
        }
        WriterStep::ReadCollections => read_collections(protocol, state, number, &mut go),
        WriterStep::ReadRest => {
            if state.ended() & !writer.ended != 0 {
                return go("begins reading anew: a collection ended", next, WriterStep::ReadCollections);
            }
            read_rest(protocol, state, number, &mut go);
        }
        WriterStep::Upload => {
            let behind = if protocol.keeps(Rule::UploadBeforeCommit) { WriterStep::Commit } else { WriterStep::Check };
            next.packs |= own_packs(protocol, state, number);
            go("uploads", next, behind);
        }
        WriterStep::Commit => {
            let is_refused = match session.outcome {
                Outcome::None => false,
                Outcome::Commit => !matches!(protocol.work[number], Work::Copy(_)),
                Outcome::Revocation => protocol.keeps(Rule::CommitOnlyIfAbsent),
            };
            if is_refused {
                return go("finds its session decided", next, WriterStep::End);
            }
            next.sessions[of].outcome = Outcome::Commit;
            if !protocol.keeps(Rule::UploadBeforeCommit) {
                go("commits before it uploads", next, WriterStep::Upload);
            } else if protocol.keeps(Rule::CheckAfterCommit) {
                go("commits", next, WriterStep::Check);
            } else {
                next.sessions[of].was_acknowledged = true;
                go("commits and reports success", next, WriterStep::End);
            }
        }
        WriterStep::Check => {
            if protocol.is_valid(state, of) {
                next.sessions[of].was_acknowledged = true;
                go("reports success", next, WriterStep::End);
            } else {
                go("finds its commit void", next, WriterStep::End);
            }
        }
        WriterStep::End => {}
    }
    if protocol.repeats {
        repeats(protocol, state, number, take);
    }
}

type Go<'g> = dyn FnMut(&'static str, State, WriterStep) + 'g;

fn read_collections(protocol: &Protocol, state: &State, number: usize, go: &mut Go<'_>) {
    let of = protocol.session(number);
    let mut next = *state;
    let is_copy = matches!(protocol.work[number], Work::Copy(_));
    let generation = state.writers[number].generation;
    if is_copy && has_collected_to(state, generation) {
        next.sessions[of].open &= protocol.keeps(Rule::CopiesLeaveOpen);
        return go("gives the copy up", next, WriterStep::End);
    }
    if !is_copy && state.newest_mark() >= generation && protocol.keeps(Rule::BeginAgainAfterMark) {
        // A session with another id from here on: who waits for the old one sees that its mark is gone.
        next.collectors.iter_mut().for_each(|collector| collector.sessions &= !bit(of));
        next.sessions[of] = Session::default();
        next.writers[number].generation = 0;
        return go("begins again: there is a mark", next, WriterStep::Generation);
    }
    let condemned = state.condemned();
    if is_copy {
        if has(condemned, OLD) && protocol.keeps(Rule::CondemnedNotCopied) {
            return go("refuses to copy a condemned pack", next, WriterStep::End);
        }
        (next.sessions[of].index, next.sessions[of].closure) = (bit(OLD), bit(OLD));
        return go("reads the collections", next, WriterStep::Upload);
    }
    next.writers[number] = Writer { condemned, ended: state.ended(), ..next.writers[number] };
    go("reads the collections", next, WriterStep::ReadRest);
}

/// Whether a commit of this generation comes too late: a final has voided it, or a collection that does not wait for it may.
fn has_collected_to(state: &State, generation: u8) -> bool {
    let is_open = |number: &u8| is_undecided(state, *number) && state.collection(*number).mark.is_some();
    state.newest_final() >= generation || (generation..=COLLECTIONS as u8).any(|number| is_open(&number))
}

fn read_rest(protocol: &Protocol, state: &State, number: usize, go: &mut Go<'_>) {
    let of = protocol.session(number);
    let wanted = match protocol.work[number] {
        Work::Backup(wanted) => wanted,
        Work::Repack(target) => return repack(protocol, state, number, target, go),
        Work::Copy(_) | Work::Nothing => return,
    };
    let condemned = state.writers[number].condemned;
    let indexed = protocol.indexed(state);
    let mut usable = indexed & state.packs;
    if protocol.keeps(Rule::CondemnedNotReferredTo) {
        usable &= !condemned;
    }
    let behind = if protocol.keeps(Rule::OpenBeforeReading) { WriterStep::Upload } else { WriterStep::Open };
    let behind = match behind {
        WriterStep::Upload if !protocol.keeps(Rule::UploadBeforeCommit) => WriterStep::Commit,
        behind => behind,
    };
    let mut refer = |what, usable: Set, adopted: Set| {
        let mut next = *state;
        let found = wanted & state.chunks_of(usable);
        let missing = wanted & !found;
        next.contents[new_pack(number)] = missing;
        let own = if missing == 0 { 0 } else { bit(new_pack(number)) };
        let named = if protocol.keeps(Rule::AdoptedIsNamed) { adopted } else { 0 };
        next.sessions[of].index = own | named;
        next.sessions[of].closure = own | first_packs_with(state, usable, found);
        go(what, next, behind);
    };
    refer("reads the rest", usable, 0);
    let mut orphans = state.packs & !indexed & state.packs_with(wanted & !state.chunks_of(usable));
    if protocol.keeps(Rule::CondemnedNotAdopted) {
        orphans &= !condemned;
    }
    if protocol.adopts && orphans != 0 {
        refer("reads the rest and adopts packs", usable | orphans, orphans);
    }
}

/// The valid commits of a backup.
fn commits_of(protocol: &Protocol, state: &State, target: usize) -> impl Iterator<Item = usize> {
    let first = protocol.first(target);
    protocol.valid(state).filter(move |session| protocol.first(*session) == first)
}

/// What a backup needs is read, to be stored anew; its commits will be replaced.
fn repack(protocol: &Protocol, state: &State, number: usize, target: usize, go: &mut Go<'_>) {
    let of = protocol.session(number);
    let first = protocol.first(target);
    let mut next = *state;
    let wanted = protocol.chunks(of);
    let is_live = protocol.live(state).any(|session| protocol.first(session) == first);
    let generation = state.writers[number].generation;
    let is_older = commits_of(protocol, state, target).any(|session| state.sessions[session].generation > generation);
    let is_replaceable = is_live || !protocol.keeps(Rule::OnlyLiveReplaced);
    let is_refused = is_older && protocol.keeps(Rule::ReplacementsNotOlder);
    if !is_replaceable || is_refused || wanted & !state.chunks_of(state.packs) != 0 {
        next.sessions[of].open = false;
        return go("has nothing to replace", next, WriterStep::End);
    }
    let commits = commits_of(protocol, state, target).filter(|session| *session != of);
    let ids = commits.fold(bit(first), |ids, session| ids | bit(session) | state.sessions[session].replaces);
    next.contents[new_pack(number)] = wanted;
    let own = bit(new_pack(number));
    (next.sessions[of].index, next.sessions[of].closure, next.sessions[of].replaces) = (own, own, ids);
    go("reads what the backup needs", next, WriterStep::Upload);
}

/// For each chunk the first pack that has it: where a session looks it up.
fn first_packs_with(state: &State, packs: Set, chunks: Set) -> Set {
    let first = |chunk: Set| (0..PACKS).find(|pack| has(packs, *pack) && state.contents[*pack] & chunk != 0);
    let chunks = (0..8).map(bit).filter(|chunk| chunks & chunk != 0);
    chunks.filter_map(first).fold(0, |packs, pack| packs | bit(pack))
}

fn own_packs(protocol: &Protocol, state: &State, number: usize) -> Set {
    match protocol.work[number] {
        Work::Copy(_) => {
            debug_assert_eq!(state.contents[OLD], OLD_CHUNKS);
            bit(OLD)
        }
        _ if state.contents[new_pack(number)] == 0 => 0,
        _ => bit(new_pack(number)),
    }
}

/// Puts that were done before, or whose answer was lost, arrive once more.
fn repeats(protocol: &Protocol, state: &State, number: usize, take: &mut dyn FnMut(Action, State)) {
    let of = protocol.session(number);
    let step = state.writers[number].step;
    let own = own_packs(protocol, state, number);
    let mut next = *state;
    if step >= WriterStep::Commit && step < WriterStep::End && state.packs & own != own {
        next.packs |= own;
        take(Action::Writer(number, "has its pack put once more"), next);
    }
    let has_committed = state.sessions[of].was_acknowledged || step == WriterStep::Check;
    let mut next = *state;
    if has_committed && state.sessions[of].outcome == Outcome::None {
        next.sessions[of].outcome = Outcome::Commit;
        take(Action::Writer(number, "has its commit put once more"), next);
    }
}
