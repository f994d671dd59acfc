//! Files of several names: which name has the content.
//!
//! The first name of a walk has it, and later names refer to that. Where the first cannot be read, the
//! next name stands in for it, with the content that the source supplies for every name.

use std::collections::VecDeque;
use std::sync::Mutex;

use hashbrown::{HashMap, HashSet};

use crate::content::EntryPath;
use crate::crypto::hash;
use crate::error::Result;
use crate::id::Digest;
use crate::repository::parallel::lock;
use crate::repository::write::parent::ParentEntry;
use crate::source::TreeNode;

/// Later names, in the order of the walk, and what the parent backup has at their paths.
pub(crate) type LaterNames = VecDeque<(TreeNode, Option<ParentEntry>)>;

/// What became of the files of a walk, as far as their later names must know.
#[derive(Default)]
pub(crate) struct FirstNames {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Files that are being read: as many as the queue holds.
    reading: HashSet<EntryPath>,
    /// Hashes of the paths of files that could not be read. There may be as many of these as files.
    failed: HashSet<Digest>,
    /// First names that could not be read, and the later names that have the content instead.
    replaced: HashMap<EntryPath, EntryPath>,
}

/// What a later name is to become.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LaterName {
    /// Not known yet: the content is being read.
    Waits,
    /// A link to this path.
    Link(EntryPath),
    /// A file: it has the content from now on.
    File,
}

impl FirstNames {
    /// The file at `path` is going to be read.
    pub(crate) fn begin(&self, path: &EntryPath) -> Result<()> {
        lock(&self.state)?.reading.insert(path.clone());
        Ok(())
    }

    /// The file at `path` was read, or could not be.
    pub(crate) fn end(&self, path: &EntryPath, was_read: bool) -> Result<()> {
        let mut state = lock(&self.state)?;
        state.reading.remove(path);
        if !was_read {
            state.failed.insert(hash::digest(path.as_bytes()));
        }
        Ok(())
    }

    /// Decides what `path`, a later name of the file at `first`, becomes.
    pub(crate) fn decide(&self, path: &EntryPath, first: &EntryPath) -> Result<LaterName> {
        let mut state = lock(&self.state)?;
        let holder = state.replaced.get(first).unwrap_or(first);
        if state.reading.contains(holder) {
            return Ok(LaterName::Waits);
        }
        if !state.failed.contains(&hash::digest(holder.as_bytes())) {
            return Ok(LaterName::Link(holder.clone()));
        }
        state.replaced.insert(first.clone(), path.clone());
        Ok(LaterName::File)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_that_can_be_read_has_the_content() {
        let path = |text: &str| text.parse::<EntryPath>().unwrap();
        let names = FirstNames::default();
        let decide = |name: &str| names.decide(&path(name), &path("a")).unwrap();
        names.begin(&path("a")).unwrap();
        assert_eq!(decide("b"), LaterName::Waits);
        names.end(&path("a"), false).unwrap();
        assert_eq!(decide("b"), LaterName::File);
        names.begin(&path("b")).unwrap();
        assert_eq!(decide("c"), LaterName::Waits);
        names.end(&path("b"), false).unwrap();
        assert_eq!(decide("c"), LaterName::File);
        names.begin(&path("c")).unwrap();
        names.end(&path("c"), true).unwrap();
        assert_eq!(decide("d"), LaterName::Link(path("c")));
        assert_eq!(names.decide(&path("y"), &path("x")).unwrap(), LaterName::Link(path("x")));
    }
}
