//! How a command ends: exit codes, and failures with their chain of causes.

use std::error::Error as _;
use std::io;
use std::process::ExitCode;

use backup_core::{Error, ErrorKind};

/// The exit codes of `docs/cli.md`. Stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Everything was done.
    Fine = 0,
    /// Something failed.
    Failure = 1,
    /// The command line or an argument is wrong.
    Usage = 2,
    /// Data is damaged, or a backup, restore or verification is incomplete.
    Damaged = 3,
    /// No key slot opens with the password.
    WrongPassword = 4,
    /// SIGINT or SIGTERM.
    Interrupted = 130,
    /// Whoever read the output went away; as if the program had died of SIGPIPE.
    BrokenPipe = 141,
}

impl Exit {
    /// [`Exit::Fine`], or [`Exit::Damaged`] for a result that lacks something.
    pub(crate) const fn complete(complete: bool) -> Self {
        if complete { Self::Fine } else { Self::Damaged }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine or an adapter failed.
    Engine(Error),
    /// No key slot of the repository that is copied to opens with its password. It is called so.
    WrongDestinationPassword(String),
    /// The command line asks for something that makes no sense.
    Usage(String),
    /// A file, command or terminal beside the repository and the data could not be used.
    Io {
        /// What was being done, naming the object.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Results could not be written to standard output.
    Output(io::Error),
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// Writing content to standard output, where a reader that went away is no failure.
    pub(crate) fn to_stdout(error: Error) -> Self {
        match error {
            Error::Sink { source, .. } => Self::Output(source),
            error => Self::Engine(error),
        }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Engine(error) => match error.kind() {
                ErrorKind::InvalidArgument => Exit::Usage,
                ErrorKind::Damaged => Exit::Damaged,
                ErrorKind::WrongPassword => Exit::WrongPassword,
                ErrorKind::Cancelled => Exit::Interrupted,
                _ => Exit::Failure,
            },
            Self::WrongDestinationPassword(_) => Exit::WrongPassword,
            Self::Usage(_) => Exit::Usage,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::BrokenPipe,
            Self::Io { .. } | Self::Output(_) => Exit::Failure,
        }
    }

    /// A stable name: those of [`ErrorKind`], and `usage`, `io`, `output`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Engine(error) => error.kind().name(),
            Self::WrongDestinationPassword(_) => ErrorKind::WrongPassword.name(),
            Self::Usage(_) => "usage",
            Self::Io { .. } => "io",
            Self::Output(_) => "output",
        }
    }

    /// The message and its causes, outermost first.
    pub(crate) fn chain(&self) -> Vec<String> {
        let mut chain = Vec::new();
        let mut cause: Option<&dyn std::error::Error> = match self {
            Self::Engine(Error::Cancelled) => {
                chain.push("interrupted".to_owned());
                None
            }
            Self::Engine(error) => {
                chain.push(error.to_string());
                error.source()
            }
            Self::WrongDestinationPassword(name) => {
                chain.push(format!("no key slot of {name} opens with the password of the destination"));
                None
            }
            Self::Usage(message) => {
                chain.push(message.clone());
                None
            }
            Self::Io { what, source } => {
                chain.push(what.clone());
                Some(source)
            }
            Self::Output(source) => {
                chain.push("cannot write standard output".to_owned());
                Some(source)
            }
        };
        while let Some(error) = cause {
            let text = error.to_string();
            // An error that only passes its source on shows the same text twice.
            if chain.last() != Some(&text) {
                chain.push(text);
            }
            cause = error.source();
        }
        chain
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> io::Error {
        io::Error::new(io::ErrorKind::NotFound, "gone")
    }

    #[test]
    fn every_kind_of_error_has_its_code() {
        let damaged = Error::Damaged { what: "pack", name: "x".into(), reason: "y".into() };
        assert_eq!(Failure::from(damaged).exit(), Exit::Damaged);
        assert_eq!(Failure::from(Error::WrongPassword).exit(), Exit::WrongPassword);
        assert_eq!(Failure::from(Error::Cancelled).exit(), Exit::Interrupted);
        assert_eq!(Failure::from(Error::InvalidArgument { what: "x".into(), reason: "y".into() }).exit(), Exit::Usage);
        assert_eq!(Failure::from(Error::NotFound { what: "backup", name: "x".into() }).exit(), Exit::Failure);
        assert_eq!(Failure::usage("x").exit(), Exit::Usage);
        assert_eq!(Failure::io("x", missing()).exit(), Exit::Failure);
        assert_eq!(Failure::Output(io::ErrorKind::BrokenPipe.into()).exit(), Exit::BrokenPipe);
        assert_eq!(Failure::Output(missing()).exit(), Exit::Failure);
    }

    #[test]
    fn the_chain_names_every_cause_once() {
        let failure = Failure::from(Error::Source { name: "a/b".into(), source: missing() });
        assert_eq!(failure.chain(), ["cannot read source a/b", "gone"]);
        assert_eq!(Failure::io("cannot read x", missing()).chain(), ["cannot read x", "gone"]);
    }

    #[test]
    fn a_reader_that_went_away_is_told_from_a_full_target() {
        let sink = |kind: io::ErrorKind| Error::Sink { name: "x".into(), source: kind.into() };
        assert_eq!(Failure::to_stdout(sink(io::ErrorKind::BrokenPipe)).exit(), Exit::BrokenPipe);
        assert_eq!(Failure::to_stdout(sink(io::ErrorKind::StorageFull)).exit(), Exit::Failure);
    }
}
