//! What every command needs: the repository it was pointed at, and how to run operations on it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_adapters::limits::LimitedStorage;
use backup_adapters::tree::SourceOptions;
use backup_adapters::url::{is_remote, local_path, open_path, redacted};
use backup_adapters::{Cache, CachedStorage, Limits, LocalStorage, OsClock, create_url, open_url};
use backup_core::Error;
use backup_core::entropy::OsEntropy;
use backup_core::progress::CancelToken;
use backup_core::repository::{Control, Environment, LockedRepository, Problem, Repository, UnlockOptions};
use backup_core::storage::Storage;

use crate::arguments::{Files, Global};
use crate::exit::Failure;
use crate::interrupt;
use crate::output::progress::Progress;
use crate::output::{Output, text};
use crate::password::Unlock;

/// The global options, put to use.
pub(crate) struct Context<'a> {
    pub(crate) global: &'a Global,
    pub(crate) output: &'a Output,
    pub(crate) cancel: CancelToken,
    pub(crate) limits: Arc<Limits>,
    uses_cache: bool,
}

impl<'a> Context<'a> {
    pub(crate) fn new(global: &'a Global, output: &'a Output, cancel: CancelToken) -> Self {
        let limits = Limits::new().with_cancel(cancel.clone());
        limits.set_read(global.limit_read.unwrap_or(0));
        limits.set_upload(global.limit_upload.unwrap_or(0));
        limits.set_download(global.limit_download.unwrap_or(0));
        Self { global, output, cancel, limits: Arc::new(limits), uses_cache: !global.no_cache }
    }

    /// The same for a command that must see the storage itself.
    pub(crate) fn without_cache(&self) -> Self {
        Self { cancel: self.cancel.clone(), limits: Arc::clone(&self.limits), uses_cache: false, ..*self }
    }

    /// The cache of this user; `None` where nobody says where it could be.
    pub(crate) fn open_cache(&self) -> Result<Option<Cache>, Failure> {
        let Some(directory) = self.global.cache_dir.clone().or_else(default_cache) else { return Ok(None) };
        let limit = self.global.cache_size.unwrap_or(Cache::DEFAULT_LIMIT);
        match Cache::open(&directory, limit) {
            Ok(cache) => Ok(Some(cache)),
            Err(error) => Err(Failure::io(format!("cannot open cache {}", directory.display()), error)),
        }
    }

    /// Limits, and for remote repositories copies, before `storage`.
    fn equipped(&self, url: &OsStr, storage: Arc<dyn Storage>) -> Result<Arc<dyn Storage>, Failure> {
        let storage = self.limited(storage);
        if !self.uses_cache || !url.to_str().is_some_and(is_remote) {
            return Ok(storage);
        }
        match self.open_cache() {
            Ok(Some(cache)) => Ok(Arc::new(CachedStorage::new(storage, Arc::new(cache)))),
            Ok(None) => Ok(storage),
            // Who names a directory wants it to be used; the usual one is a convenience.
            Err(failure) if self.global.cache_dir.is_some() => Err(failure),
            Err(failure) => {
                self.output.warning(&format!("no cache is used: {}", failure.chain().join(": ")));
                Ok(storage)
            }
        }
    }

    fn limited(&self, storage: Arc<dyn Storage>) -> Arc<dyn Storage> {
        let is_limited = self.global.limit_upload.is_some() || self.global.limit_download.is_some();
        if is_limited { Arc::new(LimitedStorage::new(storage, Arc::clone(&self.limits))) } else { storage }
    }

    /// The place of a repository that will be created.
    pub(crate) fn new_storage(&self) -> Result<Arc<dyn Storage>, Failure> {
        let url = self.url()?;
        check_new_place(url)?;
        let storage: Arc<dyn Storage> = match url.to_str() {
            Some(url) => create_url(url)?,
            None => Arc::new(LocalStorage::create(Path::new(url))?),
        };
        self.equipped(url, storage)
    }

    /// The place that backups are copied to, which may be new. Nothing of it is kept here: what is verified there
    /// must be read there.
    pub(crate) fn destination(&self, url: &OsStr) -> Result<Arc<dyn Storage>, Failure> {
        check_new_place(url)?;
        let storage: Arc<dyn Storage> = match url.to_str() {
            Some("") => return Err(Failure::usage("--to is empty")),
            Some(url) => create_url(url)?,
            None => Arc::new(LocalStorage::create(Path::new(url))?),
        };
        Ok(self.limited(storage))
    }

    /// Whether an address is that of the repository itself, as far as addresses tell.
    pub(crate) fn is_own(&self, url: &OsStr) -> Result<bool, Failure> {
        let own = self.url()?;
        let real = |url: &OsStr| std::fs::canonicalize(url).ok();
        Ok(own == url || matches!((real(own), real(url)), (Some(one), Some(other)) if one == other))
    }

    /// Warns of records that may be those of backups which are not shown for that. Returns whether there are none.
    pub(crate) fn warn_of_lost(&self, lost: &[Problem]) -> bool {
        for problem in lost {
            let line = format!("{}: {}; backups may be missing, see `backup verify`", problem.name, problem.message);
            self.output.warning(&text::clean(&line));
        }
        lost.is_empty()
    }

    /// The repository without its password.
    pub(crate) fn locked(&self) -> Result<LockedRepository, Failure> {
        let url = self.url()?;
        // URLs are text; a path need not be.
        let storage = match url.to_str() {
            Some(url) => open_url(url),
            None => open_path(Path::new(url)),
        };
        // What people gave is the address, not the object or directory that is missing there.
        let named = |error| match error {
            Error::NotFound { .. } => {
                Error::NotFound { what: "repository", name: redacted(&url.to_string_lossy()) }.into()
            }
            error => Failure::Engine(error),
        };
        let storage = self.equipped(url, storage.map_err(named)?)?;
        LockedRepository::open(storage, environment()).map_err(named)
    }

    /// The repository, opened. That there is one is known before anybody is asked for a password.
    pub(crate) fn repository(&self) -> Result<Repository, Failure> {
        self.unlocked().map(|(repository, _)| repository)
    }

    /// The repository and what it was opened with.
    pub(crate) fn unlocked(&self) -> Result<(Repository, Unlock), Failure> {
        let locked = self.locked()?;
        let unlock = Unlock::existing(self.global, self.output)?;
        let waiting = interrupt::while_deriving();
        let repository = locked.unlock(&unlock.credential(), &UnlockOptions::default())?;
        drop(waiting);
        Ok((repository, unlock))
    }

    /// How an operation runs that is shown as `progress`.
    pub(crate) fn control(&self, progress: &Progress<'_>) -> Control {
        let threads = match self.global.threads {
            Some(threads) => usize::from(threads),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        Control::default().with_threads(threads).with_observer(progress.observer()).with_cancel(self.cancel.clone())
    }

    /// Where the repository is on this machine; `None` where it is not, or no address was given.
    pub(crate) fn local_path(&self) -> Option<PathBuf> {
        let url = self.url().ok()?;
        match url.to_str() {
            Some(url) => local_path(url).ok(),
            None => Some(url.into()),
        }
    }

    /// Whether it is an archive: a file or a block device.
    pub(crate) fn is_archive(&self) -> bool {
        use std::os::unix::fs::FileTypeExt;
        let kind = self.local_path().and_then(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.file_type());
        kind.is_some_and(|kind| kind.is_file() || kind.is_block_device())
    }

    /// Which files of directories are meant, as the walk takes it: never those of the repository, which grows meanwhile.
    pub(crate) fn source_options(&self, roots: &[PathBuf], files: &Files) -> Result<SourceOptions, Failure> {
        let options = SourceOptions::default()
            .with_exclude(&files.exclude)
            .with_exclude_caches(files.exclude_caches)
            .with_one_file_system(files.one_file_system);
        // That it does not exist, or is no directory, says who opens it.
        let Some(directory) = self.local_path().and_then(|path| path.canonicalize().ok()).filter(|path| path.is_dir())
        else {
            return Ok(options);
        };
        for root in roots {
            let is_directory = std::fs::symlink_metadata(root).is_ok_and(|metadata| metadata.is_dir());
            if is_directory && root.canonicalize().is_ok_and(|root| root.starts_with(&directory)) {
                return Err(Failure::usage(format!("{} lies in the repository", root.display())));
            }
        }
        Ok(options.with_leave_out(directory))
    }

    /// The same failure with what people call the storage: its address.
    pub(crate) fn named(&self, failure: Failure) -> Failure {
        match (failure, self.url()) {
            (Failure::Engine(Error::ReadOnly { what }), Ok(url)) if what == "the storage" => {
                Error::ReadOnly { what: format!("the storage {}", redacted(&url.to_string_lossy())) }.into()
            }
            (failure, _) => failure,
        }
    }

    fn url(&self) -> Result<&OsStr, Failure> {
        match &self.global.repo {
            Some(url) if !url.is_empty() => Ok(url),
            _ => Err(Failure::usage("no repository given: use --repo or BACKUP_REPO")),
        }
    }
}

/// What stands in the directory of a repository, and in an empty file system.
const OWN_NAMES: [&str; 14] = [
    ".tmp",
    "bodies",
    "closures",
    "collections",
    "config",
    "forgets",
    "index",
    "keyring",
    "keys",
    "lost+found",
    "packs",
    "parity",
    "probes",
    "sessions",
];

/// Refuses a directory in which there are other things than a repository, and one whose parent does not exist: both are
/// mostly the wrong place, or one on which nothing is mounted. What is not on this machine passes.
fn check_new_place(url: &OsStr) -> Result<(), Failure> {
    let path = match url.to_str() {
        Some(url) if is_remote(url) || url.is_empty() => return Ok(()),
        Some(url) => local_path(url)?,
        None => PathBuf::from(url),
    };
    // Of a repository the engine says whether it can be used.
    if path.join("config").is_file() {
        return Ok(());
    }
    let refused = |kind, reason: String| {
        Failure::io(format!("cannot make a repository in {}", path.display()), std::io::Error::new(kind, reason))
    };
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if parent.is_dir() {
                return Ok(());
            }
            let reason = format!("{} is no directory: create it first, or is something not mounted?", parent.display());
            return Err(refused(std::io::ErrorKind::NotFound, reason));
        }
        // Whoever opens it says what is wrong.
        Err(_) => return Ok(()),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !OWN_NAMES.iter().any(|own| name == *own) {
            let reason = format!("there is something else in it: {}", name.to_string_lossy());
            return Err(refused(std::io::ErrorKind::DirectoryNotEmpty, reason));
        }
    }
    Ok(())
}

/// The directory for caches that the platform gives to a user.
fn default_cache() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || variable("HOME");
    let base = if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library/Caches"))
    } else {
        variable("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")))
    };
    base.map(|base| base.join("backup"))
}

/// Clock, randomness and cipher.
pub(crate) fn environment() -> Environment {
    let environment = Environment::new(Arc::new(OsClock), Arc::new(OsEntropy));
    #[cfg(feature = "aws-lc-rs")]
    let environment = environment.with_aead(Arc::new(backup_core::crypto::AwsLcRs));
    environment
}
