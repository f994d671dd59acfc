//! Where passwords, key files and recovery keys come from. None of them is ever an argument, the
//! value of an environment variable, or part of a message.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup_core::keys::{Credential, MaintenanceKey, RecoveryKey};
use backup_core::secret::Password;
use zeroize::{Zeroize, Zeroizing};

use crate::arguments::{Global, NewPassword, ToPassword};
use crate::exit::Failure;
use crate::input::{read_limited, read_small};
use crate::interrupt;
use crate::output::Output;

/// The longest password, and the largest recovery key file.
const PASSWORD_LIMIT: u64 = 4 << 10;
/// The largest key file.
const KEY_FILE_LIMIT: u64 = 1 << 20;

/// What opens a repository, owned. [`Self::credential`] is what the engine takes.
pub(crate) enum Unlock {
    /// A password, perhaps with a key file.
    Password { password: Password, key_file: Option<Zeroizing<Vec<u8>>> },
    /// A recovery key.
    Recovery(RecoveryKey),
}

impl Unlock {
    /// For opening: what the options and the environment name, or a prompt.
    pub(crate) fn existing(global: &Global, output: &Output) -> Result<Self, Failure> {
        if let Some(path) = &global.recovery_key_file {
            if Source::of_options(global)?.is_some() || global.key_file.is_some() {
                return Err(Failure::usage("--recovery-key-file is used in place of a password and a key file"));
            }
            return recovery_key(path, output).map(Self::Recovery);
        }
        let source = Source::existing(global, |name| std::env::var_os(name))?;
        Self::read(&source, global.key_file.as_deref(), output)
    }

    /// The same, where nobody has to be asked.
    pub(crate) fn given(global: &Global, output: &Output) -> Result<Option<Self>, Failure> {
        let source = Source::existing(global, |name| std::env::var_os(name))?;
        if global.recovery_key_file.is_none() && matches!(source, Source::Prompt(_)) {
            return Ok(None);
        }
        Self::existing(global, output).map(Some)
    }

    /// For a repository that is being created: the same options, but a prompt asks twice.
    pub(crate) fn initial(global: &Global, output: &Output) -> Result<Self, Failure> {
        if global.recovery_key_file.is_some() {
            return Err(Failure::usage("a repository is created with a password; add a recovery key afterwards"));
        }
        let source = match Source::existing(global, |name| std::env::var_os(name))? {
            Source::Prompt(_) => Source::Prompt(Asked::Initial),
            source => source,
        };
        Self::read(&source, global.key_file.as_deref(), output)
    }

    /// A password that will open a repository from now on.
    pub(crate) fn new(new: &NewPassword, output: &Output) -> Result<Self, Failure> {
        let source = Source::only(
            [
                new.new_password_file.as_ref().map(|path| Source::File(path.clone())),
                new.new_password_fd.map(Source::Descriptor),
                new.new_password_command.as_ref().map(|command| Source::Command(command.clone())),
            ],
            "--new-password-file, --new-password-fd and --new-password-command",
        )?
        .unwrap_or(Source::Prompt(Asked::New));
        Self::read(&source, new.new_key_file.as_deref(), output)
    }

    /// For opening the destination of a copy, called `name`.
    pub(crate) fn destination(to: &ToPassword, name: &str, output: &Output) -> Result<Self, Failure> {
        let source = Source::of_destination(to)?.unwrap_or_else(|| Source::PromptFor(name.to_owned()));
        Self::read(&source, to.to_key_file.as_deref(), output)
    }

    /// Whether there is something to open the repository with, without asking.
    pub(crate) fn is_given(global: &Global) -> Result<bool, Failure> {
        let source = Source::existing(global, |name| std::env::var_os(name))?;
        Ok(global.recovery_key_file.is_some() || !matches!(source, Source::Prompt { .. }))
    }

    /// Whether a password for the destination of a copy is given or can be asked for.
    pub(crate) fn has_destination(to: &ToPassword) -> Result<bool, Failure> {
        Ok(Source::of_destination(to)?.is_some() || io::stderr().is_terminal())
    }

    /// As the engine takes it.
    pub(crate) fn credential(&self) -> Credential<'_> {
        match self {
            Self::Password { password, key_file } => {
                Credential::Password { password, key_file: key_file.as_ref().map(|bytes| bytes.as_slice()) }
            }
            Self::Recovery(key) => Credential::RecoveryKey(key),
        }
    }

    fn read(source: &Source, key_file: Option<&Path>, output: &Output) -> Result<Self, Failure> {
        let key_file = match key_file {
            Some(path) => {
                warn_if_readable_by_others(path, "key file", output);
                let bytes = read_small(path, KEY_FILE_LIMIT, "key file")?;
                if bytes.is_empty() {
                    return Err(Failure::usage(format!("key file {} is empty", path.display())));
                }
                Some(bytes)
            }
            None => None,
        };
        let password = source.read(output)?;
        if password.is_empty() {
            return Err(Failure::usage("the password is empty"));
        }
        Ok(Self::Password { password, key_file })
    }
}

/// Where a password is read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Descriptor(u32),
    Command(OsString),
    Prompt(Asked),
    /// A prompt that names what is opened.
    PromptFor(String),
}

/// What a prompt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// A password that opens the repository.
    Existing,
    /// The first one of a new repository.
    Initial,
    /// A further one.
    New,
}

impl Source {
    /// An option wins over the environment, the environment over a prompt.
    fn existing(global: &Global, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Failure> {
        if let Some(source) = Self::of_options(global)? {
            return Ok(source);
        }
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let from_environment = Self::only(
            [
                variable("BACKUP_PASSWORD_FILE").map(|path| Self::File(path.into())),
                variable("BACKUP_PASSWORD_COMMAND").map(Self::Command),
                None,
            ],
            "BACKUP_PASSWORD_FILE and BACKUP_PASSWORD_COMMAND",
        )?;
        Ok(from_environment.unwrap_or(Self::Prompt(Asked::Existing)))
    }

    fn of_options(global: &Global) -> Result<Option<Self>, Failure> {
        Self::only(
            [
                global.password_file.as_ref().map(|path| Self::File(path.clone())),
                global.password_fd.map(Self::Descriptor),
                global.password_command.as_ref().map(|command| Self::Command(command.clone())),
            ],
            "--password-file, --password-fd and --password-command",
        )
    }

    fn of_destination(to: &ToPassword) -> Result<Option<Self>, Failure> {
        Self::only(
            [
                to.to_password_file.as_ref().map(|path| Self::File(path.clone())),
                to.to_password_fd.map(Self::Descriptor),
                to.to_password_command.as_ref().map(|command| Self::Command(command.clone())),
            ],
            "--to-password-file, --to-password-fd and --to-password-command",
        )
    }

    fn only(sources: [Option<Self>; 3], names: &str) -> Result<Option<Self>, Failure> {
        let mut given = sources.into_iter().flatten();
        let first = given.next();
        match given.next() {
            None => Ok(first),
            Some(_) => Err(Failure::usage(format!("only one of {names} can be given"))),
        }
    }

    fn read(&self, output: &Output) -> Result<Password, Failure> {
        match self {
            Self::File(path) => {
                warn_if_readable_by_others(path, "password file", output);
                read_small(path, PASSWORD_LIMIT, "password file").map(password)
            }
            Self::Descriptor(number) => {
                let failed = |error| Failure::io(format!("cannot read the password from descriptor {number}"), error);
                let bytes = match number {
                    0 => read_limited(io::stdin(), PASSWORD_LIMIT),
                    number => {
                        File::open(format!("/dev/fd/{number}")).and_then(|file| read_limited(file, PASSWORD_LIMIT))
                    }
                };
                bytes.map(password).map_err(failed)
            }
            Self::Command(command) => from_command(command),
            Self::Prompt(asked) => prompt(*asked),
            Self::PromptFor(name) => ask(&format!("Password of {name}: ")).map(|text| Password::new(text.into_bytes())),
        }
    }
}

/// The maintenance key in a file.
pub(crate) fn maintenance_key(path: &Path, output: &Output) -> Result<MaintenanceKey, Failure> {
    warn_if_readable_by_others(path, "maintenance key file", output);
    let bytes = read_small(path, PASSWORD_LIMIT, "maintenance key file")?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::usage(format!("{} does not hold a maintenance key", path.display())))?;
    Ok(MaintenanceKey::parse(text.trim())?)
}

fn recovery_key(path: &Path, output: &Output) -> Result<RecoveryKey, Failure> {
    warn_if_readable_by_others(path, "recovery key file", output);
    let bytes = read_small(path, PASSWORD_LIMIT, "recovery key file")?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::usage(format!("{} does not hold a recovery key", path.display())))?;
    Ok(RecoveryKey::parse(text.trim())?)
}

/// One trailing newline belongs to the file or the command, everything else to the password.
fn password(mut bytes: Zeroizing<Vec<u8>>) -> Password {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Password::new(std::mem::take(&mut *bytes))
}

fn from_command(command: &OsStr) -> Result<Password, Failure> {
    let failed = |error| Failure::io("cannot take the password from the password command", error);
    // Standard input may be the data to back up.
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let _waiting = interrupt::while_running(child.id());
    let bytes = match child.stdout.take() {
        Some(stdout) => read_limited(stdout, PASSWORD_LIMIT),
        None => Err(io::Error::other("it has no output")),
    };
    let status = child.wait().map_err(failed)?;
    let bytes = bytes.map_err(failed)?;
    if !status.success() {
        return Err(failed(io::Error::other(format!("it ended with {status}"))));
    }
    Ok(password(bytes))
}

fn ask(prompt: &str) -> Result<String, Failure> {
    let _waiting = interrupt::while_typing();
    rpassword::prompt_password(prompt).map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => Failure::Engine(backup_core::Error::Cancelled),
        _ => Failure::io("cannot ask for the password", error),
    })
}

fn prompt(asked: Asked) -> Result<Password, Failure> {
    if !io::stderr().is_terminal() {
        let (which, sources) = match asked {
            Asked::Existing | Asked::Initial => (
                "no password",
                "--password-file, --password-fd, --password-command, BACKUP_PASSWORD_FILE or BACKUP_PASSWORD_COMMAND",
            ),
            Asked::New => ("no new password", "--new-password-file, --new-password-fd or --new-password-command"),
        };
        return Err(Failure::usage(format!("{which} given, and no terminal to ask for one: use {sources}")));
    }
    if asked == Asked::Existing {
        return ask("Password: ").map(|text| Password::new(text.into_bytes()));
    }
    let first = ask("New password: ")?;
    let mut second = Zeroizing::new(ask("New password again: ")?);
    let first = Zeroizing::new(first);
    let same = *first == *second;
    second.zeroize();
    if !same {
        return Err(Failure::usage("the two passwords differ"));
    }
    Ok(Password::new(first.as_bytes().to_vec()))
}

/// A warning only: the file may be on a medium without permissions.
fn warn_if_readable_by_others(path: &Path, what: &str, output: &Output) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        output.warning(&format!("{what} {} can be used by others (mode {mode:03o})", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::Arguments;

    fn global(line: &str) -> Global {
        Arguments::try_parse_from(line.split(' ')).unwrap().global
    }

    fn bytes(text: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(text.as_bytes().to_vec())
    }

    /// A password cannot be looked at; its length can be told by what is empty.
    #[test]
    fn one_newline_is_stripped() {
        for empty in ["", "\n", "\r\n"] {
            assert!(password(bytes(empty)).is_empty(), "{empty:?}");
        }
        for kept in ["\n\n", " ", "\r", "x\n"] {
            assert!(!password(bytes(kept)).is_empty(), "{kept:?}");
        }
    }

    #[test]
    fn options_win_over_the_environment() {
        let environment = |name: &str| (name == "BACKUP_PASSWORD_FILE").then(|| "from-environment".into());
        let source = Source::existing(&global("backup list --password-fd 3"), environment).unwrap();
        assert_eq!(source, Source::Descriptor(3));
        let source = Source::existing(&global("backup list"), environment).unwrap();
        assert_eq!(source, Source::File("from-environment".into()));
        let source = Source::existing(&global("backup list"), |_| Some("".into())).unwrap();
        assert_eq!(source, Source::Prompt(Asked::Existing));
        let source = Source::existing(&global("backup list"), |_| None).unwrap();
        assert_eq!(source, Source::Prompt(Asked::Existing));
    }

    #[test]
    fn two_sources_are_one_too_many() {
        assert!(Source::existing(&global("backup --password-fd 3 list --password-file x"), |_| None).is_err());
        assert!(Source::existing(&global("backup list"), |_| Some("x".into())).is_err());
    }

    #[test]
    fn a_failing_command_gives_no_password() {
        assert!(from_command(OsStr::new("printf secret; exit 3")).is_err());
        assert!(!from_command(OsStr::new("printf secret")).unwrap().is_empty());
        let large = format!("head -c {} /dev/zero", PASSWORD_LIMIT + 1);
        assert!(from_command(OsStr::new(&large)).is_err());
    }
}
