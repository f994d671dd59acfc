//! [`FileTreeSource`]: the walk.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use backup_core::Result;
use backup_core::content::{EntryKind, EntryPath};
use backup_core::source::{OpenContent, TreeNode, TreeProblem, TreeSource};
use rustix::fs::{FileType, OFlags, Stat, major, minor, readlinkat};

use super::file::{SeenFile, open_below};
use super::metadata::{self, Extended};
use super::root::{Root, replaced};
use super::selection::{CACHE_TAG, Selection, SourceOptions};
use crate::directory::{Directory, file_type, identity, number};
use crate::image::device_length;

/// Levels of the walk whose directories stay open; those above are opened again when they are needed.
const OPEN_LEVELS: usize = 64;

/// Real directories as a [`TreeSource`]. See the [module](crate::tree).
///
/// Holds one sorted listing for each level and at most 64 descriptors, and the paths of
/// files with several names of which not every name was met.
pub struct FileTreeSource {
    selection: Arc<Selection>,
    roots: std::vec::IntoIter<Root>,
    /// The root that is being walked.
    base: Option<Arc<Directory>>,
    /// Its file system.
    device: u64,
    levels: Vec<Level>,
    links: HashMap<(u64, u64), Link>,
    /// What the last node lacks.
    problem: Option<TreeProblem>,
    /// Where the directory was met that is left out.
    left_out: Vec<EntryPath>,
}

/// A directory whose contents are being walked.
struct Level {
    /// `None` while deeper levels need the descriptors.
    directory: Option<Arc<Directory>>,
    identity: (u64, u64),
    /// Its entry path; `None` for a root whose contents stand at the top.
    path: Option<EntryPath>,
    /// Its path from the root's base.
    components: Vec<Vec<u8>>,
    names: std::vec::IntoIter<Vec<u8>>,
}

/// A file with several names.
struct Link {
    first: EntryPath,
    /// Its size and time of modification when it was met: another file may get the number of one that was removed.
    state: (u64, i64, u64),
    /// Names not met yet.
    left: u64,
}

impl FileTreeSource {
    /// A walk over `roots`, in the order of their entry paths.
    ///
    /// # Errors
    ///
    /// [`Error::Source`](backup_core::Error::Source) where a root, or the directory that is left out, does not exist or cannot be
    /// reached; [`Error::InvalidArgument`](backup_core::Error::InvalidArgument) for a root with `..`,
    /// roots that overlap, and patterns that cannot be understood.
    pub fn new(roots: impl IntoIterator<Item = impl Into<PathBuf>>, options: SourceOptions) -> Result<Self> {
        Ok(Self {
            selection: Arc::new(Selection::new(options)?),
            roots: Root::open_all(roots)?.into_iter(),
            base: None,
            device: 0,
            levels: Vec::new(),
            links: HashMap::new(),
            problem: None,
            left_out: Vec::new(),
        })
    }

    /// Where the walk has met the directory that [`SourceOptions::leave_out`] names.
    #[must_use]
    pub fn left_out(&self) -> &[EntryPath] {
        &self.left_out
    }

    /// The node of the next root. `Ok(None)` for a root that has none of its own.
    fn enter_root(&mut self, root: Root) -> io::Result<Option<TreeNode>> {
        self.base = Some(Arc::clone(&root.base));
        match root.path {
            None => {
                let stat = root.base.stat_self()?;
                (self.device, _) = identity(&stat);
                self.descend(Arc::clone(&root.base), &stat, None, Vec::new())?;
                Ok(None)
            }
            Some(path) => {
                let stat = root.base.stat(&root.name)?;
                (self.device, _) = identity(&stat);
                self.node(&root.base, path, vec![root.name], &stat, true).map(Some)
            }
        }
    }

    /// The node of the child `name` of the innermost level. `Ok(None)` where it is left out.
    fn visit(&mut self, name: Vec<u8>, path: EntryPath) -> io::Result<Option<TreeNode>> {
        if self.selection.is_excluded(&path) {
            return Ok(None);
        }
        let directory = self.reopened()?;
        let stat = directory.stat(&name)?;
        if file_type(&stat) == FileType::Socket {
            return Ok(None);
        }
        if file_type(&stat) == FileType::Directory && self.selection.is_left_out(&stat) {
            self.left_out.push(path);
            return Ok(None);
        }
        let mut components = self.levels.last().map(|level| level.components.clone()).unwrap_or_default();
        components.push(name);
        self.node(&directory, path, components, &stat, false).map(Some)
    }

    fn node(
        &mut self,
        parent: &Arc<Directory>,
        path: EntryPath,
        components: Vec<Vec<u8>>,
        stat: &Stat,
        is_root: bool,
    ) -> io::Result<TreeNode> {
        let name = components.last().map(Vec::as_slice).unwrap_or_default();
        let mut attributes = metadata::attributes(stat);
        let kind = match file_type(stat) {
            FileType::Directory => {
                let directory = parent.child(name)?;
                if self.selection.options.extended_attributes {
                    attributes.extended = self.kept(&path, metadata::extended_of(&directory));
                }
                // What was opened is what was seen: nobody exchanged it in between.
                if identity(&directory.stat_self()?) != identity(stat) {
                    return Err(replaced());
                }
                self.descend(Arc::new(directory), stat, Some(path.clone()), components)?;
                let mut node = TreeNode::new(path, EntryKind::Directory);
                node.attributes = attributes;
                return Ok(node);
            }
            FileType::RegularFile => {
                if self.selection.options.extended_attributes {
                    attributes.extended = self.kept(&path, metadata::extended(parent, name));
                }
                EntryKind::File
            }
            FileType::Symlink => EntryKind::Symlink { target: readlinkat(parent, name, Vec::new())?.into_bytes() },
            FileType::Fifo => EntryKind::Fifo,
            FileType::CharacterDevice => {
                EntryKind::CharacterDevice { major: major(stat.st_rdev), minor: minor(stat.st_rdev) }
            }
            FileType::BlockDevice if is_root => EntryKind::Disk,
            FileType::BlockDevice => EntryKind::BlockDevice { major: major(stat.st_rdev), minor: minor(stat.st_rdev) },
            _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "it is neither file nor directory nor device")),
        };
        let mut node = TreeNode::new(path, kind);
        node.attributes = attributes;
        if node.kind.has_content() {
            node.size = match node.kind {
                EntryKind::Disk => device_length(&parent.open_file(name, OFlags::RDONLY)?)?,
                _ => u64::try_from(stat.st_size).map_err(|_| io::Error::other("its size is negative"))?,
            };
            node.hard_link = self.earlier_name(stat, &node);
            // A later name waits until the first was read, and with it any number of others.
            let parent = node.hard_link.is_none().then(|| Arc::clone(parent));
            node.content = self.base.clone().map(|base| -> Box<dyn OpenContent> {
                let selection = Arc::clone(&self.selection);
                Box::new(SeenFile { parent, base, components, identity: identity(stat), selection })
            });
        }
        Ok(node)
    }

    /// Begins with the contents of a directory.
    fn descend(
        &mut self,
        directory: Arc<Directory>,
        stat: &Stat,
        path: Option<EntryPath>,
        components: Vec<Vec<u8>>,
    ) -> io::Result<()> {
        if self.selection.options.one_file_system && identity(stat).0 != self.device {
            return Ok(());
        }
        let mut names: Vec<Vec<u8>> = if self.selection.is_skipped_cache(&directory) {
            vec![CACHE_TAG.to_vec()]
        } else {
            directory.children()?.into_iter().map(|child| child.name).collect()
        };
        // The order of entry paths: component by component, as bytes.
        names.sort_unstable();
        if let Some(level) = self.levels.len().checked_sub(OPEN_LEVELS).and_then(|far| self.levels.get_mut(far)) {
            level.directory = None;
        }
        let identity = identity(stat);
        self.levels.push(Level { directory: Some(directory), identity, path, components, names: names.into_iter() });
        Ok(())
    }

    /// The directory of the innermost level, opened again where it was closed.
    fn reopened(&mut self) -> io::Result<Arc<Directory>> {
        let (Some(level), Some(base)) = (self.levels.last_mut(), &self.base) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if let Some(directory) = &level.directory {
            return Ok(Arc::clone(directory));
        }
        let directory = Arc::new(open_below(base, &level.components)?);
        if identity(&directory.stat_self()?) != level.identity {
            return Err(replaced());
        }
        level.directory = Some(Arc::clone(&directory));
        Ok(directory)
    }

    /// The attributes that could be read; that others could not is a problem of its own.
    fn kept(&mut self, path: &EntryPath, extended: Extended) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.problem = extended.failure.map(|error| TreeProblem::new(path.to_string(), error));
        extended.attributes
    }

    /// The path under which a file with several names was met before.
    fn earlier_name(&mut self, stat: &Stat, node: &TreeNode) -> Option<EntryPath> {
        let names = number(stat.st_nlink);
        if node.kind != EntryKind::File || names < 2 {
            return None;
        }
        let key = identity(stat);
        let state = (number(stat.st_size), stat.st_mtime, number(stat.st_mtime_nsec));
        let Some(link) = self.links.get_mut(&key).filter(|link| link.state == state) else {
            self.links.insert(key, Link { first: node.path.clone(), state, left: names - 1 });
            return None;
        };
        link.left = link.left.saturating_sub(1);
        let first = link.first.clone();
        if link.left == 0 {
            self.links.remove(&key);
        }
        Some(first)
    }
}

impl TreeSource for FileTreeSource {
    fn roots(&self) -> Vec<EntryPath> {
        self.roots.as_slice().iter().filter_map(|root| root.path.clone()).collect()
    }

    fn next_node(&mut self) -> Option<std::result::Result<TreeNode, TreeProblem>> {
        if let Some(problem) = self.problem.take() {
            return Some(Err(problem));
        }
        loop {
            let Some(level) = self.levels.last_mut() else {
                let root = self.roots.next()?;
                let name = root.path.as_ref().map_or(".".to_owned(), ToString::to_string);
                match self.enter_root(root) {
                    Ok(Some(node)) => return Some(Ok(node)),
                    Ok(None) => continue,
                    Err(error) => return Some(Err(TreeProblem::new(name, error))),
                }
            };
            let Some(name) = level.names.next() else {
                self.levels.pop();
                continue;
            };
            let path = match &level.path {
                Some(parent) => parent.join(&name),
                None => EntryPath::new(name.clone()),
            };
            let path = match path {
                Ok(path) => path,
                Err(error) => {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    return Some(Err(TreeProblem::new(name, io::Error::new(io::ErrorKind::InvalidInput, error))));
                }
            };
            let shown = path.to_string();
            match self.visit(name, path) {
                Ok(Some(node)) => return Some(Ok(node)),
                Ok(None) => {}
                Err(error) => return Some(Err(TreeProblem::new(shown, error))),
            }
        }
    }
}

impl fmt::Debug for FileTreeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTreeSource").field("options", &self.selection.options).finish_non_exhaustive()
    }
}
