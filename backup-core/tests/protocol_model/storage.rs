//! What happens to the storage at any time: backups are forgotten, winners of finals delete, readers read.

use crate::collector::may_remove_forget;
use crate::rules::{Action, Protocol, Rule};
use crate::state::{Collection, Forget, Outcome, PACKS, Reader, SESSIONS, State, Wrong, bit, has};

pub(crate) fn steps(protocol: &Protocol, state: &State, take: &mut dyn FnMut(Action, State)) {
    for session in protocol.live(state) {
        let mut next = *state;
        let id = if protocol.keeps(Rule::ForgetsFirstId) { protocol.first(session) } else { session };
        next.sessions[id].forget = Forget::Record;
        take(Action::Storage("forgets the backup of session", session), next);
    }
    for pack in (0..PACKS).filter(|pack| has(state.doomed & state.packs, *pack)) {
        let mut next = *state;
        next.packs &= !bit(pack);
        if !has(state.named, pack) {
            next.wrong = Wrong::DeletedWithoutFinal;
        }
        take(Action::Storage("deletes pack", pack), next);
    }
    let newest = state.newest_final();
    for session in (0..SESSIONS).filter(|session| state.sessions[*session].generation <= newest) {
        let of = &state.sessions[session];
        if of.open || of.outcome != Outcome::None {
            let mut next = *state;
            (next.sessions[session].open, next.sessions[session].outcome) = (false, Outcome::None);
            take(Action::Storage("deletes the slot of session", session), next);
        }
        if may_remove_forget(protocol, state, session) {
            let mut next = *state;
            next.sessions[session].forget = Forget::Removed;
            take(Action::Storage("deletes the forget record of session", session), next);
        }
    }
    if !protocol.keeps(Rule::OutcomesStay) {
        for number in 1..newest {
            let mut next = *state;
            *next.collection_mut(number) = Collection::default();
            take(Action::Storage("deletes all of collection", usize::from(number)), next);
        }
    }
    if protocol.reads {
        read(protocol, state, take);
    }
}

/// A reader: collections, then sessions, then whether a collection ended meanwhile.
fn read(protocol: &Protocol, state: &State, take: &mut dyn FnMut(Action, State)) {
    let mut next = *state;
    let newest = state.reader.newest_final;
    if !state.reader.reads {
        next.reader = Reader { reads: true, newest_final: state.newest_final(), ended: state.ended() };
        return take(Action::Reader("reads the collections"), next);
    }
    next.reader = Reader::default();
    if state.ended() & !state.reader.ended != 0 && protocol.keeps(Rule::ReadAgainAfterFinal) {
        return take(Action::Reader("begins anew"), next);
    }
    let checkpoint = if newest > 0 { state.collection(newest).checkpoint } else { 0 };
    let is_seen = |session: usize| {
        let of = &state.sessions[session];
        has(checkpoint, session) || (of.outcome == Outcome::Commit && of.generation > newest)
    };
    let is_due = |session: &usize| {
        let of = &state.sessions[*session];
        of.was_acknowledged && state.sessions[protocol.first(*session)].forget == Forget::None
    };
    let is_seen_of =
        |session: usize| (0..SESSIONS).any(|other| protocol.first(other) == protocol.first(session) && is_seen(other));
    if !(0..SESSIONS).filter(is_due).all(is_seen_of) {
        next.wrong = Wrong::ReaderMissedABackup;
    }
    take(Action::Reader("reads the sessions"), next);
}
