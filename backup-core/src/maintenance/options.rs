//! How a collection is done.

use std::time::Duration;

/// What becomes of sessions that began before a collection's mark and have not ended: of running backups, and of
/// those that crashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenSessions {
    /// The collection stops and waits for them: it is continued by the next call. One that crashed never ends.
    #[default]
    Wait,
    /// Those that say that they are older than this, by the clock of the environment, are revoked: they cannot commit
    /// any more. The collection waits for the others.
    RevokeOlderThan(Duration),
    /// All of them are revoked.
    RevokeAll,
}

/// How a collection is done. The default waits for every session, and refuses where anything is not as it must be.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CollectOptions {
    /// What becomes of sessions that have not ended.
    pub open_sessions: OpenSessions,
    /// Collect although commits are damaged or missing, or packs that backups need are: what could still be used to
    /// mend them may be deleted.
    pub despite_damage: bool,
    /// Collect although backups name others that are not there: in a place that got copies of some backups only.
    pub partial_history: bool,
}

impl CollectOptions {
    /// Sets what becomes of sessions that have not ended.
    #[must_use]
    pub const fn with_open_sessions(mut self, open_sessions: OpenSessions) -> Self {
        self.open_sessions = open_sessions;
        self
    }

    /// Sets whether damage is put up with.
    #[must_use]
    pub const fn with_despite_damage(mut self, despite_damage: bool) -> Self {
        self.despite_damage = despite_damage;
        self
    }

    /// Sets whether backups may name others that are not there.
    #[must_use]
    pub const fn with_partial_history(mut self, partial_history: bool) -> Self {
        self.partial_history = partial_history;
        self
    }
}
