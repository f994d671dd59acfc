//! The one error type: variants by who must act, each naming the object concerned.

use std::fmt;

use crate::storage::{Key, StorageError};

/// The result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by who must act.
///
/// Messages are lower case, name the object, give no advice and do not repeat their source; walk
/// [`std::error::Error::source`] for the chain. [`Error::kind`] has stable numbers that the C ABI,
/// Python and the command-line tool share.
///
/// An error never holds a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller passed something that cannot be used.
    #[error("invalid argument: {what}: {reason}")]
    InvalidArgument {
        /// The argument.
        what: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A named thing does not exist.
    #[error("{what} not found: {name}")]
    NotFound {
        /// The kind of thing: "backup", "entry", "repository", "key slot".
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A thing that must be new exists already.
    #[error("{what} already exists: {name}")]
    AlreadyExists {
        /// The kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// No key slot opens with the password, key file or recovery key that was given.
    ///
    /// Wrong passwords and damaged slots cannot be told apart, by design.
    #[error("no key slot opens with the given password or recovery key")]
    WrongPassword,
    /// An object on storage is not what it must be: damaged, truncated, swapped or forged.
    #[error("damaged {what} {name}: {reason}")]
    Damaged {
        /// The kind of object: "config", "pack", "chunk", "commit".
        what: &'static str,
        /// Its storage key or id.
        name: String,
        /// The rule of `docs/format.md` that it breaks.
        reason: String,
    },
    /// A version, feature or algorithm that this program does not know.
    #[error("unsupported {what}: {name}")]
    Unsupported {
        /// The kind of thing: "format version", "feature".
        what: &'static str,
        /// Its number or name.
        name: String,
    },
    /// A limit of the format or of the caller would be exceeded.
    #[error("{what} is {value}, the limit is {limit}")]
    LimitExceeded {
        /// The quantity.
        what: String,
        /// Its value.
        value: u64,
        /// The limit that holds.
        limit: u64,
    },
    /// The storage failed.
    #[error("storage failed to {operation} {key}")]
    Storage {
        /// The operation: "put", "get", "stat", "list", "delete".
        operation: &'static str,
        /// The key or prefix.
        key: String,
        /// What the storage said.
        #[source]
        source: StorageError,
    },
    /// The data to back up could not be read. Nothing was committed for it.
    #[error("cannot read source {name}")]
    Source {
        /// The entry or path.
        name: String,
        /// What the source said.
        #[source]
        source: std::io::Error,
    },
    /// Restored data could not be written to its target.
    #[error("cannot write target {name}")]
    Sink {
        /// The entry or path.
        name: String,
        /// What the target said.
        #[source]
        source: std::io::Error,
    },
    /// The caller's [`CancelToken`](crate::progress::CancelToken) was used.
    #[error("cancelled")]
    Cancelled,
    /// Another party won: a session was revoked by a collection, a slot was taken.
    #[error("conflict over {what}: {reason}")]
    Conflict {
        /// The object fought over.
        what: String,
        /// What the other party did.
        reason: String,
        /// Whether the same call may succeed when it is made again.
        transient: bool,
    },
    /// The storage did not say whether a commit was stored. It may or may not exist.
    #[error("outcome of {what} is unknown")]
    UnknownOutcome {
        /// The session whose commit is unknown.
        what: String,
        /// What the storage said last.
        #[source]
        source: StorageError,
    },
    /// The storage, repository or medium can only be read.
    #[error("read-only: {what}")]
    ReadOnly {
        /// What cannot be written.
        what: String,
    },
    /// A defect of this program. The operation was stopped; nothing was committed.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

/// [`Error`] as a number. Numbers are stable: never reused, never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum ErrorKind {
    /// [`Error::InvalidArgument`]
    InvalidArgument = 1,
    /// [`Error::NotFound`]
    NotFound = 2,
    /// [`Error::AlreadyExists`]
    AlreadyExists = 3,
    /// [`Error::WrongPassword`]
    WrongPassword = 4,
    /// [`Error::Damaged`]
    Damaged = 5,
    /// [`Error::Unsupported`]
    Unsupported = 6,
    /// [`Error::LimitExceeded`]
    LimitExceeded = 7,
    /// [`Error::Storage`]
    Storage = 8,
    /// [`Error::Source`]
    Source = 9,
    /// [`Error::Sink`]
    Sink = 10,
    /// [`Error::Cancelled`]
    Cancelled = 11,
    /// [`Error::Conflict`]
    Conflict = 12,
    /// [`Error::UnknownOutcome`]
    UnknownOutcome = 13,
    /// [`Error::ReadOnly`]
    ReadOnly = 14,
    /// [`Error::Internal`]
    Internal = 15,
}

impl ErrorKind {
    /// Every kind, in order of its number.
    pub const ALL: [Self; 15] = [
        Self::InvalidArgument,
        Self::NotFound,
        Self::AlreadyExists,
        Self::WrongPassword,
        Self::Damaged,
        Self::Unsupported,
        Self::LimitExceeded,
        Self::Storage,
        Self::Source,
        Self::Sink,
        Self::Cancelled,
        Self::Conflict,
        Self::UnknownOutcome,
        Self::ReadOnly,
        Self::Internal,
    ];

    /// A stable name in lower case with hyphens, as the JSON of the command-line tool shows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid-argument",
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::WrongPassword => "wrong-password",
            Self::Damaged => "damaged",
            Self::Unsupported => "unsupported",
            Self::LimitExceeded => "limit-exceeded",
            Self::Storage => "storage",
            Self::Source => "source",
            Self::Sink => "sink",
            Self::Cancelled => "cancelled",
            Self::Conflict => "conflict",
            Self::UnknownOutcome => "unknown-outcome",
            Self::ReadOnly => "read-only",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Error {
    /// Which variant this is, as a stable number.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidArgument { .. } => ErrorKind::InvalidArgument,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            Self::WrongPassword => ErrorKind::WrongPassword,
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::LimitExceeded { .. } => ErrorKind::LimitExceeded,
            Self::Storage { .. } => ErrorKind::Storage,
            Self::Source { .. } => ErrorKind::Source,
            Self::Sink { .. } => ErrorKind::Sink,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::UnknownOutcome { .. } => ErrorKind::UnknownOutcome,
            Self::ReadOnly { .. } => ErrorKind::ReadOnly,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Whether the same call may succeed later without anything being mended.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Storage { source, .. } | Self::UnknownOutcome { source, .. } => source.is_transient(),
            Self::Conflict { transient, .. } => *transient,
            _ => false,
        }
    }

    /// Whether an object cannot be used as it is, while others may well be.
    pub(crate) const fn is_of_one_object(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Unsupported { .. } | Self::LimitExceeded { .. })
    }

    pub(crate) fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidArgument { what: what.into(), reason: reason.into() }
    }

    pub(crate) fn not_found(what: &'static str, name: impl fmt::Display) -> Self {
        Self::NotFound { what, name: name.to_string() }
    }

    pub(crate) fn damaged(what: &'static str, name: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self::Damaged { what, name: name.to_string(), reason: reason.into() }
    }

    pub(crate) fn unsupported(what: &'static str, name: impl fmt::Display) -> Self {
        Self::Unsupported { what, name: name.to_string() }
    }

    pub(crate) fn limit(what: impl Into<String>, value: u64, limit: u64) -> Self {
        Self::LimitExceeded { what: what.into(), value, limit }
    }

    /// A failure to list what begins with `prefix`.
    pub(crate) fn list(prefix: &str, source: StorageError) -> Self {
        Self::Storage { operation: "list", key: prefix.to_owned(), source }
    }

    /// A storage failure, sorted by who must act: a missing object that must exist is damage of the
    /// repository and is reported as such by the caller; a refusal to write is [`Error::ReadOnly`].
    pub(crate) fn storage(operation: &'static str, key: &Key, source: StorageError) -> Self {
        match source {
            StorageError::ReadOnly => Self::ReadOnly { what: key.to_string() },
            source => Self::Storage { operation, key: key.to_string(), source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_consecutive_and_names_unique() {
        let mut names = std::collections::BTreeSet::new();
        for (position, kind) in ErrorKind::ALL.iter().enumerate() {
            assert_eq!(usize::from(*kind as u8), position + 1, "{kind}");
            assert!(names.insert(kind.name()));
        }
    }
}
