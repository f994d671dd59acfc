//! What a backup is to be.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::id::BackupId;
use crate::repository::backup::BackupKind;
use crate::repository::environment::Control;

/// What a new backup is, and how it is made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupOptions {
    /// What it protects.
    pub kind: BackupKind,
    /// The host that the data comes from. Empty by default; informational, at most 255 bytes.
    pub host: String,
    /// Tags; sorted and made unique.
    pub tags: Vec<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// The backup that it is made relative to. [`Parent::Newest`] by default.
    pub parent: Parent,
    /// zstd level, -7 to 19; the repository's own (3 by default) where `None`.
    pub compression_level: Option<i32>,
    /// Threads, memory, progress, stopping.
    pub control: Control,
}

/// Which backup a new one is made relative to: unchanged files and ranges are taken over from it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Parent {
    /// None: everything is read. What the repository has is still not stored twice.
    None,
    /// For every root of a tree ([`TreeSource::roots`](crate::source::TreeSource::roots)) the newest backup of the same
    /// kind and host that has an entry there, of the last 64 of them. So backups of different sources of one host may
    /// alternate. Where none has one, and for streams and images, of which nothing is taken over from a parent that
    /// was not named, it is the newest.
    Newest,
    /// This one. Change maps need it.
    Backup(BackupId),
}

impl BackupOptions {
    /// A backup of `kind` with defaults.
    #[must_use]
    pub fn new(kind: BackupKind) -> Self {
        Self {
            kind,
            host: String::new(),
            tags: Vec::new(),
            labels: BTreeMap::new(),
            parent: Parent::Newest,
            compression_level: None,
            control: Control::default(),
        }
    }

    /// Sets the host.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn with_tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn with_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Sets the parent.
    #[must_use]
    pub fn with_parent(mut self, parent: Parent) -> Self {
        self.parent = parent;
        self
    }

    /// Sets the compression level.
    #[must_use]
    pub const fn with_compression_level(mut self, level: i32) -> Self {
        self.compression_level = Some(level);
        self
    }

    /// Sets threads, memory, progress, stopping.
    #[must_use]
    pub fn with_control(mut self, control: Control) -> Self {
        self.control = control;
        self
    }

    /// What goes into the body stays far below its limit.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.tags.sort();
        self.tags.dedup();
        let long = |what: &str, text: &str| {
            if text.len() > 255 { Err(Error::invalid(what, "it is longer than 255 bytes")) } else { Ok(()) }
        };
        long("host", &self.host)?;
        self.tags.iter().try_for_each(|tag| long("tag", tag))?;
        for (name, value) in &self.labels {
            long("label", name)?;
            if value.len() > 4096 {
                return Err(Error::invalid(format!("label {name}"), "its value is longer than 4096 bytes"));
            }
        }
        if self.tags.len() > 1000 || self.labels.len() > 1000 {
            return Err(Error::invalid("backup", "more than 1000 tags or labels"));
        }
        if let BackupKind::Other(label) = &self.kind {
            label.parse::<BackupKind>()?;
        }
        Ok(())
    }
}
