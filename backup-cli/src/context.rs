//! What every command needs: the repository it was pointed at, and how to run operations on it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_adapters::tree::SourceOptions;
use backup_adapters::url::{local_path, open_path, redacted};
use backup_adapters::{LocalStorage, OsClock, create_url, open_url};
use backup_core::Error;
use backup_core::entropy::OsEntropy;
use backup_core::progress::CancelToken;
use backup_core::repository::{Control, Environment, LockedRepository, Repository, UnlockOptions};
use backup_core::storage::Storage;

use crate::arguments::{Files, Global};
use crate::exit::Failure;
use crate::output::Output;
use crate::output::progress::Progress;
use crate::password::Unlock;

/// The global options, put to use.
pub(crate) struct Context<'a> {
    pub(crate) global: &'a Global,
    pub(crate) output: &'a Output,
    pub(crate) cancel: CancelToken,
}

impl<'a> Context<'a> {
    pub(crate) fn new(global: &'a Global, output: &'a Output, cancel: CancelToken) -> Self {
        Self { global, output, cancel }
    }

    /// The place of a repository that will be created.
    pub(crate) fn new_storage(&self) -> Result<Arc<dyn Storage>, Failure> {
        let url = self.url()?;
        match url.to_str() {
            Some(url) => Ok(create_url(url)?),
            None => Ok(Arc::new(LocalStorage::create(Path::new(url))?)),
        }
    }

    /// The repository without its password.
    pub(crate) fn locked(&self) -> Result<LockedRepository, Failure> {
        let url = self.url()?;
        // URLs are text; a path need not be.
        let storage = match url.to_str() {
            Some(url) => open_url(url),
            None => open_path(Path::new(url)),
        };
        let locked = storage.and_then(|storage| LockedRepository::open(storage, environment()));
        // What people gave is the address, not the object or directory that is missing there.
        locked.map_err(|error| match error {
            Error::NotFound { .. } => {
                Error::NotFound { what: "repository", name: redacted(&url.to_string_lossy()) }.into()
            }
            error => Failure::Engine(error),
        })
    }

    /// The repository, opened. That there is one is known before anybody is asked for a password.
    pub(crate) fn repository(&self) -> Result<Repository, Failure> {
        self.unlocked().map(|(repository, _)| repository)
    }

    /// The repository and what it was opened with.
    pub(crate) fn unlocked(&self) -> Result<(Repository, Unlock), Failure> {
        let locked = self.locked()?;
        let unlock = Unlock::existing(self.global, self.output)?;
        let repository = locked.unlock(&unlock.credential(), &UnlockOptions::default())?;
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

    fn url(&self) -> Result<&OsStr, Failure> {
        match &self.global.repo {
            Some(url) if !url.is_empty() => Ok(url),
            _ => Err(Failure::usage("no repository given: use --repo or BACKUP_REPO")),
        }
    }
}

/// Clock, randomness and cipher.
pub(crate) fn environment() -> Environment {
    let environment = Environment::new(Arc::new(OsClock), Arc::new(OsEntropy));
    #[cfg(feature = "aws-lc-rs")]
    let environment = environment.with_aead(Arc::new(backup_core::crypto::AwsLcRs));
    environment
}

/// Which files of a directory are meant, as the walk takes it.
pub(crate) fn source_options(files: &Files) -> SourceOptions {
    SourceOptions::default()
        .with_exclude(&files.exclude)
        .with_exclude_caches(files.exclude_caches)
        .with_one_file_system(files.one_file_system)
}
