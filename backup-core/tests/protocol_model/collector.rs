//! Steps G0 to G7. What G8 deletes is deleted by whoever ever won a final, at any time from then on: see `storage`.

use crate::rules::{Action, Protocol, Rule, is_undecided};
use crate::state::{
    Collector, CollectorStep, Decision, Forget, Outcome, PACKS, SESSIONS, Set, State, bit, copied_pack, has,
};

pub(crate) fn steps(protocol: &Protocol, state: &State, number: usize, take: &mut dyn FnMut(Action, State)) {
    let collector = state.collectors[number];
    let of = collector.number;
    let mut next = *state;
    let mut go = |what, mut next: State, collector: Collector| {
        next.collectors[number] = collector;
        take(Action::Collector(number, what, collector.number), next);
    };
    match collector.step {
        CollectorStep::Choose => choose(protocol, state, &mut go),
        CollectorStep::ListPacks => {
            go("lists packs", next, Collector { step: CollectorStep::ListCommits, packs: state.packs, ..collector });
        }
        CollectorStep::ListCommits => list_commits(protocol, state, number, &mut go),
        CollectorStep::Mark => {
            // Refused where the collection was decided and tidied away meanwhile and begun anew.
            let mark = &mut next.collection_mut(of).mark;
            mark.get_or_insert(collector.packs);
            go("puts its mark", next, Collector { step: CollectorStep::ListSessions, ..collector });
        }
        CollectorStep::ListSessions => {
            let sessions = if protocol.keeps(Rule::SessionsAfterMark) {
                open_sessions(protocol, state, of)
            } else {
                collector.sessions
            };
            go("lists sessions", next, Collector { step: CollectorStep::Settle, sessions, ..collector });
        }
        CollectorStep::Settle => {
            let is_unsettled = |session: &usize| state.sessions[*session].outcome == Outcome::None;
            let unsettled = (0..SESSIONS).filter(is_unsettled).fold(0, |sessions, session| sessions | bit(session));
            let unsettled = collector.sessions & unsettled;
            for session in (0..SESSIONS).filter(|session| has(unsettled, *session)) {
                let mut next = *state;
                next.sessions[session].outcome = Outcome::Revocation;
                // In a slot that a final has voided and somebody deleted, a revocation counts as little as a commit.
                next.sessions[session].was_revoked |= state.sessions[session].generation > state.newest_final();
                go("revokes a session", next, collector);
            }
            if unsettled == 0 || !protocol.keeps(Rule::SessionsSettled) {
                list_again(protocol, state, number, &mut go);
            }
        }
        CollectorStep::Final => put_final(protocol, state, number, &mut go),
        CollectorStep::Confirm => {
            if state.newest_mark() > of {
                next.collection_mut(of).outcome = Decision::None;
                next.collection_mut(of).mark = None;
            }
            go("deletes its final where there is a younger mark", next, Collector::default());
        }
        CollectorStep::End => {}
    }
}

type Go<'g> = dyn FnMut(&'static str, State, Collector) + 'g;

/// G0: the next collection where the newest has an outcome; else it is taken over: ended by an abort, or finished.
fn choose(protocol: &Protocol, state: &State, go: &mut Go<'_>) {
    let newest = state.newest_open();
    if is_undecided(state, newest) {
        let mut next = *state;
        next.collection_mut(newest).outcome = Decision::Abort;
        go("aborts the collection of another", next, Collector { number: 0, ..Collector::default() });
        if let Some(packs) = state.collection(newest).mark {
            let resumed =
                Collector { step: CollectorStep::ListSessions, number: newest, packs, ..Collector::default() };
            go("goes on with the collection of another", *state, resumed);
        }
        if protocol.keeps(Rule::OutcomeBeforeNext) {
            return;
        }
    }
    if newest < protocol.collections {
        let mut next = *state;
        let number = newest + 1;
        next.collection_mut(number).open = true;
        go("begins", next, Collector { step: CollectorStep::ListPacks, number, ..Collector::default() });
    }
}

fn open_sessions(protocol: &Protocol, state: &State, collection: u8) -> Set {
    let is_open = |session: &usize| {
        let of = &state.sessions[*session];
        let is_asked = of.generation <= collection || protocol.keeps(Rule::SessionsOfAnyGeneration);
        of.open && of.outcome == Outcome::None && is_asked
    };
    (0..SESSIONS).filter(is_open).fold(0, |sessions, session| sessions | bit(session))
}

/// Valid commits, without those that are forgotten.
fn checkpoint(protocol: &Protocol, state: &State) -> Set {
    protocol.live(state).fold(0, |sessions, session| sessions | bit(session))
}

/// G2: what is live; with the key, live chunks are copied out of packs that are partly dead, or not.
fn list_commits(protocol: &Protocol, state: &State, number: usize, go: &mut Go<'_>) {
    let listed = state.collectors[number].packs;
    let of = state.collectors[number].number;
    let sessions = if protocol.keeps(Rule::SessionsAfterMark) { 0 } else { open_sessions(protocol, state, of) };
    let checkpoint = if protocol.keeps(Rule::CommitsListedAgain) { 0 } else { checkpoint(protocol, state) };
    let base = Collector { step: CollectorStep::Mark, sessions, checkpoint, ..state.collectors[number] };
    if !protocol.copies_chunks {
        let packs = listed & !protocol.closures(state);
        return go("lists commits", *state, Collector { packs, ..base });
    }
    let live = protocol.live_chunks(state);
    let usable = protocol.indexed(state) & listed & !state.condemned_by_finals();
    let kept = usable & state.packs_with(live);
    go("lists commits", *state, Collector { packs: listed & !kept, ..base });
    let is_mixed = |pack: &usize| has(kept, *pack) && state.contents[*pack] & !live != 0;
    let mixed = (0..PACKS).filter(is_mixed).fold(0, |packs, pack| packs | bit(pack));
    if mixed != 0 {
        let mut next = *state;
        next.packs |= bit(copied_pack(number));
        next.contents[copied_pack(number)] = state.chunks_of(mixed) & live;
        let packs = listed & !(kept & !mixed);
        go("lists commits and copies live chunks", next, Collector { packs, copied: true, ..base });
    }
}

/// G6: commits that were made meanwhile need packs that were condemned.
fn list_again(protocol: &Protocol, state: &State, number: usize, go: &mut Go<'_>) {
    let collector = state.collectors[number];
    let own = if collector.copied { bit(copied_pack(number)) } else { 0 };
    let dead = state.condemned_by_finals();
    let indexed = protocol.indexed(state) & !dead;
    let mut saved = 0;
    let mut commits = checkpoint(protocol, state);
    if !protocol.keeps(Rule::CommitsListedAgain) {
        commits = collector.checkpoint;
    } else if protocol.copies_chunks {
        let elsewhere = state.chunks_of((indexed | own) & !collector.packs);
        saved = indexed & state.packs_with(protocol.live_chunks(state) & !elsewhere);
    } else {
        saved = protocol.closures(state);
    }
    let packs = collector.packs & !saved;
    let mut indexes = (indexed | own) & !packs;
    if !protocol.keeps(Rule::FinalHasIndexes) {
        indexes = own;
    }
    if !protocol.keeps(Rule::FinalHasCheckpoint) {
        commits = 0;
    }
    let mut next = *state;
    if !protocol.keeps(Rule::DeleteAfterFinal) {
        next.doomed |= packs;
    }
    let step = CollectorStep::Final;
    let known = if protocol.repacks() { protocol.known(state) } else { 0 };
    let listed = Collector { step, packs, sessions: 0, indexes, checkpoint: commits, known, ..collector };
    go("lists commits again", next, listed);
}

/// G7. Who has copied nothing may collect again.
fn put_final(protocol: &Protocol, state: &State, number: usize, go: &mut Go<'_>) {
    let collector = state.collectors[number];
    let step = if collector.copied { CollectorStep::End } else { CollectorStep::Choose };
    let after = Collector { step, ..Collector::default() };
    let mut next = *state;
    let record = next.collection_mut(collector.number);
    if record.outcome == Decision::None {
        record.outcome = Decision::Final;
        (record.condemned, record.indexes, record.checkpoint) =
            (collector.packs, collector.indexes, collector.checkpoint);
        record.known = collector.known;
    } else if protocol.keeps(Rule::FinalOnlyIfAbsent) {
        return go("finds its collection decided", next, after);
    }
    next.named |= collector.packs;
    next.doomed |= collector.packs;
    if protocol.keeps(Rule::NewestFinalStays) {
        go("puts its final", next, after);
    } else {
        go("puts its final", next, Collector { step: CollectorStep::Confirm, ..collector });
    }
}

/// Whether a forget record is one that a final replaces.
pub(crate) fn may_remove_forget(protocol: &Protocol, state: &State, session: usize) -> bool {
    let newest = state.newest_final();
    let of = &state.sessions[session];
    let is_old = newest > 0 && of.forget == Forget::Record && of.generation <= newest;
    if protocol.repacks() && protocol.keeps(Rule::NamedForgetsStay) {
        // Nobody who has not ended can have seen the backup otherwise, and no valid commit replaces it.
        return is_old && !has(state.collection(newest).known, session);
    }
    is_old && (!has(state.collection(newest).checkpoint, session) || !protocol.keeps(Rule::ForgetsStay))
}
