//! What stands on the storage, where every process is, and what must hold of it.

/// A set of packs, of chunks, or of sessions: one bit each.
pub(crate) type Set = u8;

pub(crate) const PACKS: usize = 5;
/// The pack of the first backup.
pub(crate) const OLD: usize = 0;

/// The pack that a writer uploads.
pub(crate) const fn new_pack(writer: usize) -> usize {
    1 + writer
}

/// The pack that a collector copies live chunks into.
pub(crate) const fn copied_pack(collector: usize) -> usize {
    3 + collector
}

/// Sessions of the two writers, and the one that made the first backup.
pub(crate) const SESSIONS: usize = 3;
pub(crate) const FIRST: usize = 2;

pub(crate) const fn bit(number: usize) -> Set {
    1 << number
}

pub(crate) const fn has(set: Set, number: usize) -> bool {
    set & bit(number) != 0
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Outcome {
    #[default]
    None,
    Commit,
    Revocation,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Forget {
    #[default]
    None,
    Record,
    /// The record was there and is gone: nobody may see the backup again.
    Removed,
}

/// `sessions/<generation>/<session>`, and the commit that its writer makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Session {
    pub(crate) open: bool,
    pub(crate) outcome: Outcome,
    pub(crate) generation: u8,
    /// Packs that its index segments name.
    pub(crate) index: Set,
    /// Packs that its backup needs.
    pub(crate) closure: Set,
    /// Sessions whose commits its commit replaces.
    pub(crate) replaces: Set,
    pub(crate) forget: Forget,
    /// What is on no storage: it was revoked, its writer was told of success.
    pub(crate) was_revoked: bool,
    pub(crate) was_acknowledged: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Decision {
    #[default]
    None,
    Abort,
    Final,
}

/// `collections/<number>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Collection {
    pub(crate) open: bool,
    pub(crate) mark: Option<Set>,
    pub(crate) outcome: Decision,
    /// Of the final: packs, packs that its index segments name, sessions whose commits it holds.
    pub(crate) condemned: Set,
    pub(crate) indexes: Set,
    pub(crate) checkpoint: Set,
    /// What is on no storage: the sessions that G6 found valid or replaced by valid ones. Kept where commits are replaced.
    pub(crate) known: Set,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum WriterStep {
    #[default]
    Generation,
    Open,
    ReadCollections,
    ReadRest,
    Upload,
    Commit,
    Check,
    End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Writer {
    pub(crate) step: WriterStep,
    pub(crate) generation: u8,
    /// What the collections said when they were read, and which had an outcome.
    pub(crate) condemned: Set,
    pub(crate) ended: Set,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum CollectorStep {
    #[default]
    Choose,
    ListPacks,
    ListCommits,
    Mark,
    ListSessions,
    Settle,
    Final,
    /// What no collector does: it looks again, and deletes its own final.
    Confirm,
    End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Collector {
    pub(crate) step: CollectorStep,
    pub(crate) number: u8,
    /// Packs that were listed, then those that it condemns.
    pub(crate) packs: Set,
    pub(crate) sessions: Set,
    /// Whether it copied chunks into a pack of its own.
    pub(crate) copied: bool,
    pub(crate) indexes: Set,
    pub(crate) checkpoint: Set,
    pub(crate) known: Set,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Reader {
    pub(crate) reads: bool,
    pub(crate) newest_final: u8,
    pub(crate) ended: Set,
}

/// What a step did that no rule allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Wrong {
    #[default]
    Nothing,
    DeletedWithoutFinal,
    ReaderMissedABackup,
}

pub(crate) const COLLECTIONS: usize = 3;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct State {
    /// Packs that are there, and the chunks in each.
    pub(crate) packs: Set,
    pub(crate) contents: [Set; PACKS],
    pub(crate) sessions: [Session; SESSIONS],
    /// By number, from 1.
    pub(crate) collections: [Collection; COLLECTIONS],
    pub(crate) writers: [Writer; 2],
    pub(crate) collectors: [Collector; 2],
    pub(crate) reader: Reader,
    /// Packs that somebody deletes, now or in months, and those that a final named that was put.
    pub(crate) doomed: Set,
    pub(crate) named: Set,
    pub(crate) wrong: Wrong,
}

impl State {
    pub(crate) fn collection(&self, number: u8) -> &Collection {
        &self.collections[usize::from(number) - 1]
    }

    pub(crate) fn collection_mut(&mut self, number: u8) -> &mut Collection {
        &mut self.collections[usize::from(number) - 1]
    }

    fn newest(&self, test: impl Fn(&Collection) -> bool) -> u8 {
        (1..=COLLECTIONS as u8).rev().find(|number| test(self.collection(*number))).unwrap_or(0)
    }

    pub(crate) fn newest_mark(&self) -> u8 {
        self.newest(|collection| collection.mark.is_some() || collection.outcome != Decision::None)
    }

    pub(crate) fn newest_open(&self) -> u8 {
        self.newest(|collection| collection.open || collection.mark.is_some() || collection.outcome != Decision::None)
    }

    pub(crate) fn newest_final(&self) -> u8 {
        self.newest(|collection| collection.outcome == Decision::Final)
    }

    /// Collections that have an outcome.
    pub(crate) fn ended(&self) -> Set {
        let has_outcome = |number: &usize| self.collections[*number].outcome != Decision::None;
        (0..COLLECTIONS).filter(has_outcome).fold(0, |ended, number| ended | bit(number))
    }

    pub(crate) fn condemned_by_finals(&self) -> Set {
        let finals = self.collections.iter().filter(|collection| collection.outcome == Decision::Final);
        finals.fold(0, |packs, collection| packs | collection.condemned)
    }

    pub(crate) fn condemned(&self) -> Set {
        let marks = self.collections.iter().filter(|collection| collection.outcome == Decision::None);
        marks.fold(self.condemned_by_finals(), |packs, collection| packs | collection.mark.unwrap_or(0))
    }

    pub(crate) fn chunks_of(&self, packs: Set) -> Set {
        (0..PACKS).filter(|pack| has(packs, *pack)).fold(0, |chunks, pack| chunks | self.contents[pack])
    }

    /// Packs with one of the chunks.
    pub(crate) fn packs_with(&self, chunks: Set) -> Set {
        (0..PACKS).filter(|pack| self.contents[*pack] & chunks != 0).fold(0, |packs, pack| packs | bit(pack))
    }
}

/// The same under other names: writers exchanged, with what belongs to them.
pub(crate) fn with_writers_exchanged(state: &State, chunks: impl Fn(Set) -> Set) -> State {
    let packs = |set: Set| exchanged(set, new_pack(0), new_pack(1));
    let sessions = |set: Set| exchanged(set, 0, 1);
    let mut other = renamed(state, packs);
    other.contents.swap(new_pack(0), new_pack(1));
    other.contents = other.contents.map(chunks);
    other.sessions.swap(0, 1);
    other.writers.swap(0, 1);
    for collection in &mut other.collections {
        collection.checkpoint = sessions(collection.checkpoint);
    }
    for collector in &mut other.collectors {
        collector.sessions = sessions(collector.sessions);
        collector.checkpoint = sessions(collector.checkpoint);
    }
    other
}

/// The same under other names: collectors exchanged.
pub(crate) fn with_collectors_exchanged(state: &State) -> State {
    let mut other = renamed(state, |set| exchanged(set, copied_pack(0), copied_pack(1)));
    other.contents.swap(copied_pack(0), copied_pack(1));
    other.collectors.swap(0, 1);
    other
}

fn renamed(state: &State, packs: impl Fn(Set) -> Set) -> State {
    let mut other = *state;
    other.packs = packs(state.packs);
    other.doomed = packs(state.doomed);
    other.named = packs(state.named);
    for session in &mut other.sessions {
        (session.index, session.closure) = (packs(session.index), packs(session.closure));
    }
    for collection in &mut other.collections {
        collection.mark = collection.mark.map(&packs);
        (collection.condemned, collection.indexes) = (packs(collection.condemned), packs(collection.indexes));
    }
    for writer in &mut other.writers {
        writer.condemned = packs(writer.condemned);
    }
    for collector in &mut other.collectors {
        (collector.packs, collector.indexes) = (packs(collector.packs), packs(collector.indexes));
    }
    other
}

/// A set in which two members have changed their places.
pub(crate) const fn exchanged(set: Set, a: usize, b: usize) -> Set {
    let differ = (set >> a ^ set >> b) & 1;
    set ^ (differ << a | differ << b)
}
