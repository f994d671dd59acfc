//! Trees of files in memory, which misbehave as they are told.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use backup_core::content::{Attributes, Entry, EntryKind, EntryPath};
use backup_core::extent::{Extent, ExtentKind};
use backup_core::source::{
    BlockSink, BlockSource, FileContent, OpenContent, TreeNode, TreeProblem, TreeSink, TreeSource,
};
use backup_core::time::Timestamp;

use super::path;

/// What a file does besides being read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    #[default]
    Normal,
    /// Opening fails.
    Vanished,
    /// `is_unchanged` says no.
    Changed,
    /// `is_unchanged` fails.
    Unknowable,
    /// It ends here, whatever its length was.
    TruncatedAt(u64),
    /// Reading at or behind this offset fails.
    BrokenAt(u64),
    /// It has this length when it is opened, not the one that was listed.
    ListedAs(u64),
}

/// A file, directory or link of a [`Tree`].
#[derive(Clone, Debug)]
pub struct Node {
    pub path: EntryPath,
    pub kind: EntryKind,
    pub content: Option<Arc<Vec<u8>>>,
    pub holes: Vec<(u64, u64)>,
    pub is_image: bool,
    pub manner: Manner,
    pub hard_link: Option<EntryPath>,
    pub mode: Option<u32>,
    pub modified: Option<i64>,
    pub inode: Option<u64>,
    /// Instead of the three above.
    pub attributes: Option<Attributes>,
}

impl Node {
    pub fn new(name: &str, kind: EntryKind) -> Self {
        Self {
            path: path(name),
            kind,
            content: None,
            holes: Vec::new(),
            is_image: false,
            manner: Manner::Normal,
            hard_link: None,
            mode: None,
            modified: None,
            inode: None,
            attributes: None,
        }
    }

    pub fn directory(name: &str) -> Self {
        Self::new(name, EntryKind::Directory)
    }

    pub fn file(name: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { content: Some(Arc::new(content.into())), ..Self::new(name, EntryKind::File) }
    }

    pub fn symlink(name: &str, target: &str) -> Self {
        Self::new(name, EntryKind::Symlink { target: target.as_bytes().to_vec() })
    }

    /// A further name of a file. It has the content of its own, as every source supplies it.
    pub fn link_to(mut self, target: &str) -> Self {
        self.hard_link = Some(path(target));
        self
    }

    pub fn with_manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    pub fn image(mut self) -> Self {
        self.is_image = true;
        self
    }

    pub fn with_hole(mut self, offset: u64, length: u64) -> Self {
        self.holes.push((offset, length));
        self
    }

    /// Attributes by which an unchanged file is known.
    pub fn stamped(mut self, modified: i64, inode: u64) -> Self {
        (self.modified, self.inode) = (Some(modified), Some(inode));
        self
    }
}

/// A tree of files to back up.
#[derive(Default)]
pub struct Tree {
    nodes: std::vec::IntoIter<Result<Node, (String, io::ErrorKind)>>,
    roots: Vec<EntryPath>,
    /// Bytes that were read from files.
    pub read: Arc<AtomicU64>,
    /// Files that were opened.
    pub opened: Arc<AtomicU64>,
}

impl Tree {
    /// A tree of `nodes`, walked in the order of their paths.
    pub fn new(mut nodes: Vec<Node>) -> Self {
        nodes.sort_by(|a, b| a.path.cmp(&b.path));
        Self::in_given_order(nodes.into_iter().map(Ok).collect())
    }

    pub fn in_given_order(nodes: Vec<Result<Node, (String, io::ErrorKind)>>) -> Self {
        Self { nodes: nodes.into_iter(), roots: Vec::new(), read: Arc::default(), opened: Arc::default() }
    }

    /// Says where it begins.
    pub fn with_roots(mut self, roots: &[&str]) -> Self {
        self.roots = roots.iter().map(|root| path(root)).collect();
        self
    }
}

impl TreeSource for Tree {
    fn roots(&self) -> Vec<EntryPath> {
        self.roots.clone()
    }

    fn next_node(&mut self) -> Option<Result<TreeNode, TreeProblem>> {
        let node = match self.nodes.next()? {
            Ok(node) => node,
            Err((name, kind)) => return Some(Err(TreeProblem::new(name, kind.into()))),
        };
        let mut out = TreeNode::new(node.path.clone(), node.kind.clone());
        out.attributes.mode = node.mode;
        out.attributes.inode = node.inode;
        out.attributes.modified = node.modified.map(|seconds| Timestamp::from_unix(seconds, 7).unwrap());
        out.attributes.changed = out.attributes.modified;
        if let Some(attributes) = &node.attributes {
            out.attributes = attributes.clone();
        }
        out.hard_link = node.hard_link.clone();
        out.size = node.content.as_ref().map_or(0, |content| content.len() as u64);
        if let Manner::ListedAs(size) = node.manner {
            out.size = size;
        }
        if let Some(bytes) = &node.content {
            let file = File {
                bytes: Arc::clone(bytes),
                holes: node.holes.clone(),
                is_image: node.is_image,
                manner: node.manner.clone(),
                read: Arc::clone(&self.read),
                opened: Arc::clone(&self.opened),
            };
            out.content = Some(Box::new(file));
        }
        Some(Ok(out))
    }
}

struct File {
    bytes: Arc<Vec<u8>>,
    holes: Vec<(u64, u64)>,
    is_image: bool,
    manner: Manner,
    read: Arc<AtomicU64>,
    opened: Arc<AtomicU64>,
}

impl OpenContent for File {
    fn open(self: Box<Self>) -> io::Result<Box<dyn FileContent>> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        match self.manner {
            Manner::Vanished => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(self),
        }
    }
}

impl BlockSource for File {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn extents(&self, from: u64, visit: &mut dyn FnMut(Extent) -> bool) -> io::Result<()> {
        let mut at = 0;
        let mut extents = Vec::new();
        for (offset, length) in &self.holes {
            if at < *offset {
                extents.push(Extent::new(at, offset - at, ExtentKind::Data));
            }
            extents.push(Extent::new(*offset, *length, ExtentKind::Zero));
            at = offset + length;
        }
        if at < self.length() {
            extents.push(Extent::new(at, self.length() - at, ExtentKind::Data));
        }
        extents.into_iter().filter(|extent| extent.end() > from).all(visit);
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        match self.manner {
            Manner::TruncatedAt(length) if end > length => return Err(io::ErrorKind::UnexpectedEof.into()),
            Manner::BrokenAt(broken) if end > broken => return Err(io::Error::other("unreadable sector")),
            _ if end > self.length() => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
        // Behind its end is nothing.
        let bytes = self.bytes.get(offset as usize..end as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.read.fetch_add(buffer.len() as u64, Ordering::SeqCst);
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

impl FileContent for File {
    fn is_image(&self) -> bool {
        self.is_image
    }

    fn is_unchanged(&self) -> io::Result<bool> {
        match self.manner {
            Manner::Changed => Ok(false),
            Manner::Unknowable => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(true),
        }
    }
}

/// What a restore made of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    Other(EntryKind),
    Link(EntryPath),
    /// Content, and the bytes of it that were given as holes.
    Content(Arc<Vec<u8>>, u64),
}

/// A target in memory, which insists on the rules of sinks.
#[derive(Default)]
pub struct Target {
    made: Mutex<BTreeMap<EntryPath, Made>>,
    open: Mutex<BTreeMap<EntryPath, Arc<Mutex<Written>>>>,
    pub abandoned: Mutex<Vec<EntryPath>>,
    completed: AtomicU64,
}

impl Target {
    pub fn is_untouched(&self) -> bool {
        self.made.lock().unwrap().is_empty() && self.open.lock().unwrap().is_empty()
    }

    pub fn into_map(self) -> BTreeMap<EntryPath, Made> {
        assert_eq!(self.completed.into_inner(), 1, "complete was not called once");
        self.made.into_inner().unwrap()
    }
}

/// Content on its way.
#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    ranges: Vec<(u64, u64)>,
    holes: u64,
    finished: bool,
}

struct OpenFile(Arc<Mutex<Written>>);

impl BlockSink for OpenFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.0.lock().unwrap();
        let end = offset as usize + data.len();
        if written.bytes.len() < end {
            // What is neither written nor a hole shows.
            written.bytes.resize(end, 0xee);
        }
        written.bytes[offset as usize..end].copy_from_slice(data);
        written.ranges.push((offset, data.len() as u64));
        Ok(())
    }

    fn hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.write_at(offset, &vec![0; length as usize])?;
        self.0.lock().unwrap().holes += length;
        Ok(())
    }

    fn finish(&self, length: u64) -> io::Result<()> {
        let mut written = self.0.lock().unwrap();
        written.ranges.sort_unstable();
        let end = written
            .ranges
            .iter()
            .try_fold(0, |position, (offset, count)| (*offset == position).then_some(position + count));
        assert_eq!(end, Some(length), "something was written twice or not at all");
        written.finished = true;
        Ok(())
    }
}

impl TreeSink for Target {
    fn create(&self, entry: &Entry, hard_link: Option<&EntryPath>) -> io::Result<Option<Box<dyn BlockSink>>> {
        let mut made = self.made.lock().unwrap();
        assert!(!made.contains_key(&entry.path), "{} is created twice", entry.path);
        if let Some(target) = hard_link {
            if !matches!(made.get(target), Some(Made::Content(..))) {
                return Err(io::ErrorKind::NotFound.into());
            }
            made.insert(entry.path.clone(), Made::Link(target.clone()));
            return Ok(None);
        }
        if !entry.kind.has_content() {
            made.insert(entry.path.clone(), Made::Other(entry.kind.clone()));
            return Ok(None);
        }
        let written = Arc::default();
        self.open.lock().unwrap().insert(entry.path.clone(), Arc::clone(&written));
        Ok(Some(Box::new(OpenFile(written))))
    }

    fn finish(&self, entry: &Entry, _: Box<dyn BlockSink>) -> io::Result<()> {
        let written = self.open.lock().unwrap().remove(&entry.path).expect("finished without create");
        let mut written = written.lock().unwrap();
        assert!(written.finished, "the sink of {} was not finished", entry.path);
        let content = Made::Content(Arc::new(std::mem::take(&mut written.bytes)), written.holes);
        self.made.lock().unwrap().insert(entry.path.clone(), content);
        Ok(())
    }

    fn abandon(&self, entry: &Entry, _: Box<dyn BlockSink>) {
        self.open.lock().unwrap().remove(&entry.path).expect("abandoned without create");
        self.abandoned.lock().unwrap().push(entry.path.clone());
    }

    fn complete(&self) -> Vec<(EntryPath, io::Error)> {
        assert!(self.open.lock().unwrap().is_empty(), "neither finished nor abandoned");
        self.completed.fetch_add(1, Ordering::SeqCst);
        Vec::new()
    }
}
