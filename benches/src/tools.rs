//! The programs that are compared, on equal terms: encrypted, zstd level 3, no cache, the same file in a directory or on
//! standard input, restored to a file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;

use crate::input::Kind;
use crate::measure::Job;

/// A program, in one of the ways of using it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToolName {
    /// This project's command
    Backup,
    /// restic, compression "auto"
    Restic,
    /// rustic, zstd 3
    Rustic,
    /// borg, zstd 3, repokey-blake2
    Borg,
    /// borg with its fastest compression, lz4
    BorgLz4,
    /// borg with chunks of fixed length, which lets it skip holes; for images only
    BorgFixed,
    /// bupstash, zstd 3
    Bupstash,
}

impl ToolName {
    /// What is compared unless something else is asked for.
    pub const DEFAULT: [Self; 5] = [Self::Backup, Self::Restic, Self::Rustic, Self::Borg, Self::Bupstash];

    /// The name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Restic => "restic",
            Self::Rustic => "rustic",
            Self::Borg => "borg",
            Self::BorgLz4 => "borg, lz4",
            Self::BorgFixed => "borg, fixed",
            Self::Bupstash => "bupstash",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Restic => "restic",
            Self::Rustic => "rustic",
            Self::Borg | Self::BorgLz4 | Self::BorgFixed => "borg",
            Self::Bupstash => "bupstash",
        }
    }

    /// Whether it can be used for such an input.
    #[must_use]
    pub fn takes(self, kind: Kind) -> bool {
        self != Self::BorgFixed || kind == Kind::Image
    }
}

/// A program that is there.
#[derive(Clone, Debug)]
pub struct Tool {
    /// Which.
    pub name: ToolName,
    program: PathBuf,
}

impl Tool {
    /// Looks for it: at `backup` for this project's command, else on PATH.
    #[must_use]
    pub fn find(name: ToolName, backup: Option<&Path>) -> Option<Self> {
        if let (ToolName::Backup, Some(program)) = (name, backup) {
            return Some(Self { name, program: program.to_owned() });
        }
        let path = std::env::var_os("PATH")?;
        let program = std::env::split_paths(&path).map(|directory| directory.join(name.program())).find(|program| {
            fs::metadata(program).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })?;
        Some(Self { name, program })
    }

    /// What it says about its version.
    ///
    /// # Errors
    ///
    /// Where it cannot be run.
    pub fn version(&self, scratch: &Path) -> Result<String> {
        let argument = if self.name == ToolName::Restic { "version" } else { "--version" };
        let (_, said) = Job::new(&self.program).arg(argument).run(scratch)?;
        Ok(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_owned())
    }

    /// What has to be run before the first backup.
    #[must_use]
    pub fn init(&self, place: &Place) -> Vec<Job> {
        let job = || self.job(place);
        match self.name {
            ToolName::Backup => vec![job().args(["--quiet", "init", "--compression", "3"])],
            ToolName::Restic => vec![job().args(["--quiet", "init"])],
            ToolName::Rustic => vec![job().args(["init", "--set-compression", "3"])],
            ToolName::Borg | ToolName::BorgLz4 | ToolName::BorgFixed => {
                vec![job().args(["init", "--encryption", "repokey-blake2"])]
            }
            ToolName::Bupstash => {
                vec![job().args(["new-key", "--output"]).arg(place.key()), job().arg("init")]
            }
        }
    }

    /// Backs up `place.input()`, as the backup of that day. `changes` is the id of the backup of the day before, and the
    /// file that says what changed since.
    #[must_use]
    pub fn back_up(&self, place: &Place, day: usize, changes: Option<(&str, &Path)>) -> Job {
        let job = self.job(place);
        let input = place.input();
        let directory = input.parent().unwrap_or(&input).to_owned();
        let archive = format!("::day-{day}");
        let compression: &[&str] =
            if self.name == ToolName::BorgLz4 { &["--compression", "lz4"] } else { &["--compression", "zstd,3"] };
        match (self.name, place.kind) {
            (ToolName::Backup, Kind::Image) => {
                let job =
                    job.args(["--json", "create", "--host", "bench", "--image"]).arg(&input).args(["--as", ENTRY]);
                match changes {
                    Some((parent, map)) => job.args(["--parent", parent, "--changed-ranges"]).arg(map),
                    None => job,
                }
            }
            (ToolName::Backup, Kind::Dump) => {
                job.args(["--quiet", "create", "--host", "bench", "--stdin", ENTRY]).stdin(input)
            }
            (ToolName::Restic, Kind::Image) => job.args(["--quiet", "backup", "--host", "bench"]).arg(directory),
            (ToolName::Restic, Kind::Dump) => {
                job.args(["--quiet", "backup", "--host", "bench", "--stdin", "--stdin-filename", ENTRY]).stdin(input)
            }
            (ToolName::Rustic, Kind::Image) => job.args(["backup", "--host", "bench"]).arg(directory),
            // With a parent, rustic 0.11.4 takes standard input for unchanged and stores the day before again.
            (ToolName::Rustic, Kind::Dump) => {
                job.args(["backup", "--host", "bench", "--force", "--stdin-filename", ENTRY, "-"]).stdin(input)
            }
            (ToolName::Borg | ToolName::BorgLz4, Kind::Image) => job
                .arg("create")
                .args(compression)
                .args(["--files-cache", "disabled", &archive, ENTRY])
                .directory(directory),
            (ToolName::BorgFixed, _) => job
                .arg("create")
                .args(compression)
                .args(["--files-cache", "disabled", "--sparse", "--chunker-params", "fixed,1048576", &archive, ENTRY])
                .directory(directory),
            (ToolName::Borg | ToolName::BorgLz4, Kind::Dump) => {
                job.arg("create").args(compression).args(["--stdin-name", ENTRY, &archive, "-"]).stdin(input)
            }
            (ToolName::Bupstash, kind) => {
                let day = format!("day={day}");
                let job = job.args(["put", "--quiet", "--no-send-log", "--compression", "zstd:3", &day]);
                match kind {
                    Kind::Image => job.arg(input),
                    Kind::Dump => job.arg("-").stdin(input),
                }
            }
        }
    }

    /// Restores the backup of that day, which is the newest, so that it stands in `place.restored()`.
    #[must_use]
    pub fn restore(&self, place: &Place, day: usize) -> Job {
        let job = self.job(place);
        let (input, output) = (place.input(), place.output());
        let directory = input.parent().unwrap_or(&input).to_owned();
        let archive = format!("::day-{day}");
        match (self.name, place.kind) {
            (ToolName::Backup, Kind::Image) => {
                job.args(["--quiet", "restore", "latest", "--entry", ENTRY, "--to"]).arg(output.join(ENTRY))
            }
            (ToolName::Backup, Kind::Dump) => {
                job.args(["--quiet", "restore", "latest", "--entry", ENTRY, "--to", "-"]).stdout(output.join(ENTRY))
            }
            (ToolName::Restic, Kind::Image) => job.args(["--quiet", "restore", "latest", "--target"]).arg(output),
            (ToolName::Restic, Kind::Dump) => job.args(["--quiet", "dump", "latest", ENTRY]).stdout(output.join(ENTRY)),
            (ToolName::Rustic, Kind::Image) => job
                .args(["restore", "--sparse", "by-content"])
                .arg(format!("latest:{}", directory.display()))
                .arg(output),
            (ToolName::Rustic, Kind::Dump) => job.arg("dump").arg(format!("latest:{ENTRY}")).stdout(output.join(ENTRY)),
            (ToolName::Borg | ToolName::BorgLz4 | ToolName::BorgFixed, Kind::Image) => {
                job.args(["extract", "--sparse", &archive]).directory(output)
            }
            (ToolName::Borg | ToolName::BorgLz4 | ToolName::BorgFixed, Kind::Dump) => {
                job.args(["extract", "--stdout", &archive]).stdout(output.join(ENTRY))
            }
            (ToolName::Bupstash, _) => job.args(["get", "--quiet", &format!("day={day}")]).stdout(output.join(ENTRY)),
        }
    }

    /// The program with its repository, password and without a cache.
    fn job(&self, place: &Place) -> Job {
        let (repository, password) = (place.repository(), place.password());
        let job = Job::new(&self.program);
        match self.name {
            ToolName::Backup => job.env("BACKUP_REPO", repository).env("BACKUP_PASSWORD_FILE", password),
            ToolName::Restic => {
                job.arg("--no-cache").env("RESTIC_REPOSITORY", repository).env("RESTIC_PASSWORD_FILE", password)
            }
            ToolName::Rustic => job
                .env("RUSTIC_REPOSITORY", repository)
                .env("RUSTIC_PASSWORD_FILE", password)
                .env("RUSTIC_NO_CACHE", "true")
                .env("RUSTIC_NO_PROGRESS", "true")
                .env("RUSTIC_LOG_LEVEL", "warn"),
            ToolName::Borg | ToolName::BorgLz4 | ToolName::BorgFixed => job
                .env("BORG_REPO", repository)
                .env("BORG_PASSCOMMAND", format!("cat {}", password.display()))
                .env("BORG_BASE_DIR", place.root.join("home")),
            ToolName::Bupstash => job
                .env("BUPSTASH_REPOSITORY", repository)
                .env("BUPSTASH_KEY", place.key())
                .env("HOME", place.root.join("home")),
        }
    }
}

/// What the input is called wherever it is backed up.
const ENTRY: &str = "input";

/// Where one run of one tool takes place.
#[derive(Clone, Debug)]
pub struct Place {
    root: PathBuf,
    /// What is backed up.
    pub kind: Kind,
}

impl Place {
    /// Makes the directories and the password.
    ///
    /// # Errors
    ///
    /// Where they cannot be made.
    pub fn make(root: PathBuf, kind: Kind) -> Result<Self> {
        let place = Self { root, kind };
        for directory in [place.root.join("input"), place.root.join("home"), place.output(), place.scratch()] {
            fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        fs::write(place.password(), "a password for a measurement\n")?;
        fs::set_permissions(place.password(), fs::Permissions::from_mode(0o600))?;
        Ok(place)
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> PathBuf {
        self.root.join("repository")
    }

    /// The file that is backed up, alone in its directory.
    #[must_use]
    pub fn input(&self) -> PathBuf {
        self.root.join("input").join(ENTRY)
    }

    /// Where restored files go.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.root.join("output")
    }

    fn password(&self) -> PathBuf {
        self.root.join("password")
    }

    fn key(&self) -> PathBuf {
        self.root.join("key")
    }

    /// Puts a file where the input is looked for: linked, or copied where that cannot be.
    ///
    /// # Errors
    ///
    /// Where it can be neither.
    pub fn set_input(&self, file: &Path) -> Result<()> {
        let input = self.input();
        if input.exists() {
            fs::remove_file(&input)?;
        }
        if fs::hard_link(file, &input).is_err() {
            Job::new("cp").arg("--sparse=always").arg(file).arg(&input).run(&self.scratch())?;
        }
        Ok(())
    }

    /// The restored file, wherever below the output it is: tools keep directories in different ways.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn restored(&self) -> Result<PathBuf> {
        fn find(directory: &Path) -> Result<Option<PathBuf>> {
            for item in fs::read_dir(directory)? {
                let path = item?.path();
                if path.is_dir() {
                    if let Some(found) = find(&path)? {
                        return Ok(Some(found));
                    }
                } else if path.file_name().is_some_and(|name| name == ENTRY) {
                    return Ok(Some(path));
                }
            }
            Ok(None)
        }
        find(&self.output())?.with_context(|| format!("nothing was restored to {}", self.output().display()))
    }

    /// All of it.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// For what commands print.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    /// The same place with another repository.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    pub fn with_copy_of_repository(&self, name: &str) -> Result<Self> {
        let copy = Self::make(self.root.join(name), self.kind)?;
        crate::engine::linked_copy(&self.repository(), &copy.repository())?;
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Place) {
        let here = tempfile::tempdir().unwrap();
        let place = Place::make(here.path().join("p"), Kind::Image).unwrap();
        (here, place)
    }

    #[test]
    fn passwords_are_never_arguments() {
        let (_here, place) = place();
        for name in ToolName::value_variants() {
            let tool = Tool { name: *name, program: name.program().into() };
            let mut jobs = tool.init(&place);
            for kind in [Kind::Image, Kind::Dump] {
                let place = Place { kind, ..place.clone() };
                jobs.extend([tool.back_up(&place, 1, None), tool.restore(&place, 1)]);
            }
            for job in jobs {
                assert!(!format!("{job:?}").contains("a password for"), "{}", job.line());
            }
        }
    }

    #[test]
    fn a_change_map_is_for_the_parent() {
        let (_here, place) = place();
        let tool = Tool::find(ToolName::Backup, Some(Path::new("/x/backup"))).unwrap();
        let line = tool.back_up(&place, 2, Some(("abcd", Path::new("map")))).line();
        assert!(line.ends_with("--as input --parent abcd --changed-ranges map"), "{line}");
    }

    #[test]
    fn inputs_are_replaced_and_restored_files_found() {
        let (here, place) = place();
        for text in ["one", "two"] {
            let file = here.path().join(text);
            fs::write(&file, text).unwrap();
            place.set_input(&file).unwrap();
            assert_eq!(fs::read_to_string(place.input()).unwrap(), text);
        }
        assert!(place.restored().is_err());
        let below = place.output().join("a/b");
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join(ENTRY), "x").unwrap();
        assert_eq!(place.restored().unwrap(), below.join(ENTRY));
    }
}
