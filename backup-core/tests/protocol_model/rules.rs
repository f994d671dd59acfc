//! The rules of `docs/format.md`, "Commit protocol", each of which a model can lack, and what must hold.

use crate::search::Model;
use crate::state::{
    Collection, Decision, FIRST, Forget, OLD, Outcome, SESSIONS, Session, Set, State, Writer, WriterStep, Wrong, bit,
    exchanged, has, new_pack, with_collectors_exchanged, with_writers_exchanged,
};
use crate::{collector, storage, writer};

/// Rules, by the step that they belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// W0: the generation is counted from marks and outcomes; a collection that only began counts for nothing. Where
    /// sessions of any generation are settled, that makes up for it.
    GenerationFromMarks,
    /// W1 before W2: the session is open before anything is read.
    OpenBeforeReading,
    /// W2: where a mark of the session's generation or a later one is there, it begins again.
    BeginAgainAfterMark,
    /// W2: nothing condemned is referred to.
    CondemnedNotReferredTo,
    /// Adoption: nothing condemned is adopted.
    CondemnedNotAdopted,
    /// Adoption: what is adopted is named in an index segment of the session.
    AdoptedIsNamed,
    /// W3 before W4: everything is durable before the commit.
    UploadBeforeCommit,
    /// W4: the outcome is put only where there is none.
    CommitOnlyIfAbsent,
    /// W5: success is reported only after the commit was found valid.
    CheckAfterCommit,
    /// Validity: what is not newer than the newest final counts only in its checkpoint.
    ValidityByGeneration,
    /// G0: a collection begins only where the one before has an outcome.
    OutcomeBeforeNext,
    /// G4 after G3: sessions are listed when the mark is durable.
    SessionsAfterMark,
    /// G4: sessions of any generation: the commit of a copy can be of a later one than its destination has come to.
    SessionsOfAnyGeneration,
    /// G5: every open session is settled.
    SessionsSettled,
    /// G6: commits are listed again.
    CommitsListedAgain,
    /// G7: the checkpoint holds the valid commits.
    FinalHasCheckpoint,
    /// G7: the final names index segments of all that is retained.
    FinalHasIndexes,
    /// G7: the final is put only where there is no outcome, and who did not win deletes nothing.
    FinalOnlyIfAbsent,
    /// G8: packs are deleted after the final.
    DeleteAfterFinal,
    /// G8: the record that forgets a backup stays as long as the checkpoint has the backup.
    ForgetsStay,
    /// G8: outcomes of collections stay when others follow: nobody wins their slots again, and what they condemned is
    /// not brought back by copies and late puts.
    OutcomesStay,
    /// G8: the newest final stays, whatever marks there are.
    NewestFinalStays,
    /// Reading: a history during which a collection ended is read again.
    ReadAgainAfterFinal,
    /// Copies: who gives up leaves `open` to others who copy the same backup.
    CopiesLeaveOpen,
    /// Copies: a backup that needs a condemned pack is not copied.
    CondemnedNotCopied,
    /// Replacements: one that is not valid replaces nothing.
    OnlyValidReplace,
    /// Replacements: none has a smaller generation than what it replaces. Where the first id is forgotten, that makes up for it.
    ReplacementsNotOlder,
    /// Repacking: only what is live when its session is open is replaced.
    OnlyLiveReplaced,
    /// Forgetting: a record for one id forgets every commit that replaces it, too.
    ForgetsFollow,
    /// Forgetting: the record is one for the first id of the backup, which all its commits have.
    ForgetsFirstId,
    /// G8: the record stays where G6 found a valid commit that has the id or replaces it.
    NamedForgetsStay,
}

impl Rule {
    pub(crate) const ALL: &[Self] = &[
        Self::GenerationFromMarks,
        Self::OpenBeforeReading,
        Self::BeginAgainAfterMark,
        Self::CondemnedNotReferredTo,
        Self::CondemnedNotAdopted,
        Self::AdoptedIsNamed,
        Self::UploadBeforeCommit,
        Self::CommitOnlyIfAbsent,
        Self::CheckAfterCommit,
        Self::ValidityByGeneration,
        Self::OutcomeBeforeNext,
        Self::SessionsAfterMark,
        Self::SessionsOfAnyGeneration,
        Self::SessionsSettled,
        Self::CommitsListedAgain,
        Self::FinalHasCheckpoint,
        Self::FinalHasIndexes,
        Self::FinalOnlyIfAbsent,
        Self::DeleteAfterFinal,
        Self::ForgetsStay,
        Self::OutcomesStay,
        Self::NewestFinalStays,
        Self::ReadAgainAfterFinal,
        Self::CopiesLeaveOpen,
        Self::CondemnedNotCopied,
        Self::OnlyValidReplace,
        Self::ReplacementsNotOlder,
        Self::OnlyLiveReplaced,
        Self::ForgetsFollow,
        Self::ForgetsFirstId,
        Self::NamedForgetsStay,
    ];
}

/// What a writer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Nothing,
    /// A backup of these chunks.
    Backup(Set),
    /// It copies a backup of the old pack from elsewhere, whose commit is of this generation. All who do share one session.
    Copy(u8),
    /// It stores anew what the backup of this session needs and replaces its commits.
    Repack(usize),
}

/// A world and the rules that hold in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    pub(crate) work: [Work; 2],
    pub(crate) collectors: usize,
    /// How many collections there can be.
    pub(crate) collections: u8,
    /// Whether collectors copy live chunks out of packs that are partly dead, or go by closures alone, without a key.
    pub(crate) copies_chunks: bool,
    pub(crate) adopts: bool,
    /// Whether puts that were done arrive once more, at any time.
    pub(crate) repeats: bool,
    pub(crate) reads: bool,
    /// Whether it begins when a collection has ended the session of the first writer and deleted what it had uploaded.
    pub(crate) begins_late: bool,
    pub(crate) without: &'static [Rule],
}

/// What a step was, for people.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "shown as they are by Debug")]
pub(crate) enum Action {
    Writer(usize, &'static str),
    Collector(usize, &'static str, u8),
    Storage(&'static str, usize),
    Reader(&'static str),
}

/// Chunks of the old pack.
pub(crate) const OLD_CHUNKS: Set = 0b011;

impl Protocol {
    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }

    /// The session of a writer.
    pub(crate) fn session(&self, writer: usize) -> usize {
        if matches!(self.work[writer], Work::Copy(_)) { 0 } else { writer }
    }

    /// What the backup of a session holds.
    pub(crate) fn chunks(&self, session: usize) -> Set {
        match self.work.get(session) {
            Some(Work::Backup(chunks)) => *chunks,
            Some(Work::Nothing) => 0,
            Some(Work::Copy(_)) | None => OLD_CHUNKS,
            Some(Work::Repack(of)) => self.chunks(*of),
        }
    }

    /// The session of the first commit of a backup.
    pub(crate) fn first(&self, session: usize) -> usize {
        match self.work.get(session) {
            Some(Work::Repack(of)) => self.first(*of),
            _ => session,
        }
    }

    pub(crate) fn repacks(&self) -> bool {
        self.work.iter().any(|work| matches!(work, Work::Repack(_)))
    }

    /// Sessions that are valid, and those that these replace.
    pub(crate) fn known(&self, state: &State) -> Set {
        self.valid(state).fold(0, |known, session| known | bit(session) | state.sessions[session].replaces)
    }

    fn is_forgotten(&self, state: &State, session: usize) -> bool {
        let follows = self.keeps(Rule::ForgetsFollow);
        let ids = bit(session) | if follows { state.sessions[session].replaces } else { 0 };
        (0..SESSIONS).any(|id| has(ids, id) && state.sessions[id].forget == Forget::Record)
    }

    fn is_replaced(&self, state: &State, session: usize) -> bool {
        (0..SESSIONS).any(|by| {
            let of = &state.sessions[by];
            let counts = match self.keeps(Rule::OnlyValidReplace) {
                true => self.is_valid(state, by),
                false => of.outcome == Outcome::Commit,
            };
            let is_older = of.generation < state.sessions[session].generation;
            has(of.replaces, session) && counts && !(is_older && self.keeps(Rule::ReplacementsNotOlder))
        })
    }

    pub(crate) fn is_valid(&self, state: &State, session: usize) -> bool {
        let newest = state.newest_final();
        let of = &state.sessions[session];
        let in_checkpoint = newest > 0 && has(state.collection(newest).checkpoint, session);
        let is_new = of.generation > newest || !self.keeps(Rule::ValidityByGeneration);
        in_checkpoint || (of.outcome == Outcome::Commit && is_new)
    }

    pub(crate) fn valid(&self, state: &State) -> impl Iterator<Item = usize> {
        (0..SESSIONS).filter(|session| self.is_valid(state, *session))
    }

    /// Commits that are valid, wanted and not replaced.
    pub(crate) fn live(&self, state: &State) -> impl Iterator<Item = usize> {
        let is_live = |session: &usize| !self.is_forgotten(state, *session) && !self.is_replaced(state, *session);
        self.valid(state).filter(is_live)
    }

    pub(crate) fn live_chunks(&self, state: &State) -> Set {
        self.live(state).fold(0, |chunks, session| chunks | self.chunks(session))
    }

    pub(crate) fn closures(&self, state: &State) -> Set {
        self.live(state).fold(0, |packs, session| packs | state.sessions[session].closure)
    }

    /// Packs that the index set names. The segments of commits are deleted with their slots, as the final replaces them.
    pub(crate) fn indexed(&self, state: &State) -> Set {
        let newest = state.newest_final();
        let of_final = if newest > 0 { state.collection(newest).indexes } else { 0 };
        let commits = self.valid(state).map(|session| &state.sessions[session]);
        commits
            .filter(|session| session.outcome == Outcome::Commit)
            .fold(of_final, |packs, session| packs | session.index)
    }

    fn lost(&self, state: &State) -> bool {
        let there = self.indexed(state) & state.packs & !state.doomed;
        self.live_chunks(state) & !state.chunks_of(there) != 0
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn initial(&self) -> State {
        let mut state = State { packs: bit(OLD), ..State::default() };
        state.contents[OLD] = OLD_CHUNKS;
        state.sessions[FIRST] = Session {
            open: true,
            outcome: Outcome::Commit,
            generation: 1,
            index: bit(OLD),
            closure: bit(OLD),
            was_acknowledged: true,
            ..Session::default()
        };
        if self.begins_late {
            let (pack, indexes, checkpoint) = (bit(new_pack(0)), bit(OLD), bit(FIRST));
            state.contents[new_pack(0)] = self.chunks(0);
            state.sessions[0] = Session { generation: 1, index: pack, closure: pack, ..Session::default() };
            state.writers[0] = Writer { step: WriterStep::Commit, generation: 1, ..Writer::default() };
            (state.named, state.doomed) = (pack, pack);
            let (mark, outcome) = (Some(pack), Decision::Final);
            let final_of = Collection { open: true, mark, outcome, condemned: pack, indexes, checkpoint, known: 0 };
            state.collections[0] = final_of;
        }
        state
    }

    fn steps(&self, state: &State, take: &mut dyn FnMut(Action, State)) {
        for number in 0..2 {
            if self.work[number] != Work::Nothing {
                writer::steps(self, state, number, take);
            }
        }
        for number in 0..self.collectors {
            collector::steps(self, state, number, take);
        }
        storage::steps(self, state, take);
    }

    /// Writers whose work differs only in the names of chunks are exchanged, and collectors; the least is taken.
    fn representative(&self, state: State) -> State {
        let chunks: fn(Set) -> Set = match self.work {
            _ if !self.without.is_empty() || self.begins_late => return state,
            [Work::Backup(0b001), Work::Backup(0b010)] => |set| exchanged(set, 0, 1),
            [Work::Backup(a), Work::Backup(b)] if a == b => |set| set,
            _ if self.collectors == 2 => return state.min(with_collectors_exchanged(&state)),
            _ => return state,
        };
        let other = with_writers_exchanged(&state, chunks);
        let least = state.min(other);
        if self.collectors < 2 {
            return least;
        }
        least.min(with_collectors_exchanged(&state)).min(with_collectors_exchanged(&other))
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        match state.wrong {
            Wrong::DeletedWithoutFinal => return Some("a pack is deleted only after a final that names it was put"),
            Wrong::ReaderMissedABackup => return Some("a reader sees every backup that was acknowledged"),
            Wrong::Nothing => {}
        }
        if self.lost(state) {
            return Some("every chunk of a live commit is in a pack that is there and that the index set names");
        }
        for (number, session) in state.sessions.iter().enumerate() {
            let is_valid = self.is_valid(state, number);
            if session.was_revoked && is_valid {
                return Some("a session has at most one outcome");
            }
            // The commits of the same backup.
            let of_it = |other: &usize| self.first(*other) == self.first(number);
            let is_forgotten = (0..SESSIONS).filter(of_it).any(|other| state.sessions[other].forget != Forget::None);
            let is_shown = self.live(state).any(|other| of_it(&other));
            if session.was_acknowledged && !is_forgotten && !is_shown {
                return Some("an acknowledged commit stays valid until it is forgotten");
            }
            if is_forgotten && is_shown {
                return Some("what was forgotten does not come back");
            }
        }
        None
    }
}

/// Whether a collection is undecided.
pub(crate) fn is_undecided(state: &State, number: u8) -> bool {
    number > 0 && state.collection(number).outcome == Decision::None
}
