//! A repository in a temporary directory, and the binary run on it.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The password of every repository here. It must never be seen.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// The cheapest key derivation that repositories may have.
const CHEAP: [&str; 4] = ["--kdf-memory", "64M", "--kdf-iterations", "1"];

/// A directory with a password file, a place for a repository, and room for data.
pub(crate) struct World {
    directory: TempDir,
}

impl World {
    /// Without a repository.
    pub(crate) fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let world = Self { directory };
        world.secret("password", PASSWORD);
        world
    }

    /// With an empty repository.
    pub(crate) fn new() -> Self {
        let world = Self::empty();
        world.run(["init"].iter().chain(&CHEAP)).success();
        world
    }

    /// With a repository and one backup of [`Self::tree`].
    pub(crate) fn with_backup() -> (Self, String) {
        let world = Self::new();
        let tree = world.tree();
        let backup = world.create([tree.as_os_str()]);
        (world, backup)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.path("repository")
    }

    /// A file that only its owner can read.
    pub(crate) fn secret(&self, name: &str, content: &str) -> PathBuf {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.path(name);
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        path
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Some files, a link, and a name that is not text.
    pub(crate) fn tree(&self) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        self.file("tree/hello.txt", "hello\n");
        self.file("tree/empty", "");
        self.file("tree/sub/large", noise(3 << 20, 1));
        let odd = self.path("tree/sub").join(OsStr::from_bytes(b"caf\xe9"));
        fs::write(odd, "latin").unwrap();
        std::os::unix::fs::symlink("hello.txt", self.path("tree/link")).unwrap();
        self.path("tree")
    }

    /// The binary with the repository and the password.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.bare(arguments);
        command.env("BACKUP_REPO", self.repository()).env("BACKUP_PASSWORD_FILE", self.path("password"));
        command
    }

    /// The binary alone.
    pub(crate) fn bare<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backup"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_remove("BACKUP_REPO")
            .env_remove("BACKUP_PASSWORD_FILE")
            .env_remove("BACKUP_PASSWORD_COMMAND")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        outcome(&mut self.command(arguments))
    }

    /// The JSON of a command that must succeed.
    pub(crate) fn json<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Value {
        let mut command = self.command(arguments);
        // Options end where the command line of another program begins; the front is always good.
        let arguments: Vec<_> = command.get_args().map(OsStr::to_owned).collect();
        let mut with_json = self.command(["--json".into()].into_iter().chain(arguments));
        std::mem::swap(&mut command, &mut with_json);
        outcome(&mut command).success().json()
    }

    /// Makes a backup and returns its id.
    pub(crate) fn create<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
        let result = self.json(["create".into()].into_iter().chain(arguments));
        result["backup"].as_str().unwrap().to_owned()
    }

    /// A backup of `tree` that lacks the file `tree/secret`; `None`, said loudly, where every file can be read here.
    pub(crate) fn create_incomplete(&self) -> Option<Outcome> {
        use std::os::unix::fs::PermissionsExt;
        let drop_override = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
        if !self.path("tree").exists() {
            self.tree();
        }
        let secret = self.secret("tree/secret", "x");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
        let inner = self.command(["create", "tree", "--json"]);
        if fs::read(&secret).is_err() {
            let mut inner = inner;
            return Some(outcome(&mut inner));
        }
        // The superuser reads everything; without this capability it does not.
        if !works("unreadable files", &[&drop_override[..], &["true"]].concat()) {
            return None;
        }
        let mut command = Command::new(drop_override[0]);
        command.args(&drop_override[1..]).arg(inner.get_program()).args(inner.get_args()).current_dir(self.path(""));
        command.env("BACKUP_REPO", self.repository()).env("BACKUP_PASSWORD_FILE", self.path("password"));
        Some(outcome(&mut command))
    }

    /// Ids of the backups, oldest first.
    pub(crate) fn backups(&self) -> Vec<String> {
        let list = self.json(["list"]);
        list["backups"].as_array().unwrap().iter().map(|b| b["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Feeds `input` to a command.
    pub(crate) fn run_with_input<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Outcome {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // The other side may have enough early.
                let _ = stdin.write_all(input);
            });
            Outcome::of(child.wait_with_output().unwrap())
        })
    }

    /// Every file of the repository with its content, to show that nothing changed.
    pub(crate) fn repository_files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        files(&self.repository())
    }
}

/// Every file below a directory with its content, in order.
pub(crate) fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        // What another process renames or removes meanwhile is not there.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push((path.clone(), fs::read(&path).unwrap_or_default()));
            }
        }
    }
    found.sort();
    found
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

pub(crate) fn outcome(command: &mut Command) -> Outcome {
    Outcome::of(command.output().unwrap())
}

impl Outcome {
    pub(crate) fn of(output: std::process::Output) -> Self {
        let outcome = Self {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        let seen = format!("{}{}", outcome.text(), outcome.stderr);
        assert!(!seen.contains(PASSWORD), "the password was printed: {seen}");
        assert!(!seen.contains("panicked"), "{seen}");
        outcome
    }

    /// It ended with this code.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn success(self) -> Self {
        self.code(0)
    }

    /// Standard error says this.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{text:?} is not in: {}", self.stderr);
        self
    }

    /// Standard output as one JSON object.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let value: Value = serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.text(), self.stderr));
        assert!(value.is_object(), "{value}");
        value
    }

    /// The last line of standard error as JSON.
    #[track_caller]
    pub(crate) fn error(&self) -> Value {
        let line = self.stderr.lines().last().unwrap_or_default();
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {}", self.stderr));
        value["error"].clone()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Says that a test could not be run here; a failure where `CI` is set.
#[cfg(feature = "object")]
pub(crate) fn skip(why: &str) {
    // Not `eprintln!`, which the test harness keeps to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
    assert!(std::env::var_os("CI").is_none(), "a test was skipped: {why}");
}

/// Whether a helper of the system works here; says loudly when a test cannot run, which is a failure where `CI` is set.
pub(crate) fn works(test: &str, command: &[&str]) -> bool {
    let works = Command::new(command[0])
        .args(&command[1..])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !works {
        let message = format!("SKIPPED: {test}: `{}` does not work here", command.join(" "));
        assert!(std::env::var_os("CI").is_none(), "{message}");
        // Not `eprintln!`, which the test harness keeps to itself.
        let _ = writeln!(std::io::stderr(), "{message}");
    }
    works
}
