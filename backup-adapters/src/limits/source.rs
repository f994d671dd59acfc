//! Sources that are read no faster than allowed.

use std::io::{self, Read};
use std::sync::Arc;

use backup_core::content::EntryPath;
use backup_core::extent::Extent;
use backup_core::source::{BlockSource, FileContent, OpenContent, TreeNode, TreeProblem, TreeSource};

use super::Limits;

/// The most that is read at once, so that the limit holds within what a reader asks for.
const PIECE: usize = 64 * 1024;

/// A stream that is read no faster than [`Limits`] allow.
#[derive(Debug)]
pub struct LimitedRead<R> {
    inner: R,
    limits: Arc<Limits>,
}

impl<R: Read> LimitedRead<R> {
    /// `inner` with `limits`.
    pub const fn new(inner: R, limits: Arc<Limits>) -> Self {
        Self { inner, limits }
    }
}

impl<R: Read> Read for LimitedRead<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = if self.limits.is_reading_limited() { buffer.len().min(PIECE) } else { buffer.len() };
        let read = self.inner.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.limits.wait_to_read(read);
        Ok(read)
    }
}

/// Content that is read no faster than [`Limits`] allow. Holes and unchanged ranges are not read and cost nothing.
#[derive(Debug)]
pub struct LimitedBlocks<B> {
    limits: Arc<Limits>,
    inner: B,
}

impl<B: BlockSource> LimitedBlocks<B> {
    /// `inner` with `limits`.
    pub const fn new(inner: B, limits: Arc<Limits>) -> Self {
        Self { limits, inner }
    }
}

impl<B: BlockSource> BlockSource for LimitedBlocks<B> {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    fn extents(&self, from: u64, visit: &mut dyn FnMut(Extent) -> bool) -> io::Result<()> {
        self.inner.extents(from, visit)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.limits.wait_to_read(buffer.len());
        self.inner.read_at(offset, buffer)
    }
}

/// A tree whose files are read no faster than [`Limits`] allow.
#[derive(Debug)]
pub struct LimitedTree<T> {
    inner: T,
    limits: Arc<Limits>,
}

impl<T: TreeSource> LimitedTree<T> {
    /// `inner` with `limits`.
    pub const fn new(inner: T, limits: Arc<Limits>) -> Self {
        Self { inner, limits }
    }
}

impl<T: TreeSource> TreeSource for LimitedTree<T> {
    fn roots(&self) -> Vec<EntryPath> {
        self.inner.roots()
    }

    fn next_node(&mut self) -> Option<Result<TreeNode, TreeProblem>> {
        let mut node = self.inner.next_node()?;
        if let Ok(node) = &mut node
            && let Some(inner) = node.content.take()
        {
            node.content = Some(Box::new(LimitedOpen { inner, limits: Arc::clone(&self.limits) }));
        }
        Some(node)
    }
}

/// Content of a file, before it is opened.
struct LimitedOpen {
    inner: Box<dyn OpenContent>,
    limits: Arc<Limits>,
}

impl OpenContent for LimitedOpen {
    fn open(self: Box<Self>) -> io::Result<Box<dyn FileContent>> {
        Ok(Box::new(LimitedFile { inner: self.inner.open()?, limits: self.limits }))
    }
}

struct LimitedFile {
    inner: Box<dyn FileContent>,
    limits: Arc<Limits>,
}

impl BlockSource for LimitedFile {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    fn extents(&self, from: u64, visit: &mut dyn FnMut(Extent) -> bool) -> io::Result<()> {
        self.inner.extents(from, visit)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.limits.wait_to_read(buffer.len());
        self.inner.read_at(offset, buffer)
    }
}

impl FileContent for LimitedFile {
    fn is_image(&self) -> bool {
        self.inner.is_image()
    }

    fn is_unchanged(&self) -> io::Result<bool> {
        self.inner.is_unchanged()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::rate::tests::limits;
    use crate::tree::{FileTreeSource, SourceOptions};

    #[test]
    fn streams_come_whole_and_slowly() {
        let (time, limits) = limits();
        limits.set_read(10_000);
        let content: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[1]).collect();
        let mut read = Vec::new();
        LimitedRead::new(&content[..], limits).read_to_end(&mut read).unwrap();
        assert!(read == content);
        assert!((9.5..=10.1).contains(&time.seconds()), "{}", time.seconds());
    }

    #[test]
    fn files_of_a_tree_are_limited_and_nothing_else_changes() {
        let here = tempfile::tempdir().unwrap();
        std::fs::write(here.path().join("a"), [1; 5000]).unwrap();
        std::fs::write(here.path().join("b"), [2; 5000]).unwrap();
        let (time, limits) = limits();
        limits.set_read(1000);
        let source = || FileTreeSource::new(&[here.path().to_path_buf()], SourceOptions::default()).unwrap();
        let mut tree = LimitedTree::new(source(), limits);
        let mut plain = source();
        let mut contents = 0;
        while let Some(node) = tree.next_node() {
            let (node, expected) = (node.unwrap(), plain.next_node().unwrap().unwrap());
            assert_eq!((&node.path, node.kind, node.size), (&expected.path, expected.kind, expected.size));
            let (Some(content), Some(expected)) = (node.content, expected.content) else { continue };
            let (content, expected) = (content.open().unwrap(), expected.open().unwrap());
            assert_eq!((content.length(), content.is_image()), (expected.length(), expected.is_image()));
            let (mut found, mut wanted) = ([0; 5000], [0; 5000]);
            content.read_at(0, &mut found).unwrap();
            expected.read_at(0, &mut wanted).unwrap();
            assert!(found == wanted && content.is_unchanged().unwrap());
            contents += 1;
        }
        assert_eq!(contents, 2);
        assert!(plain.next_node().is_none());
        assert!((9.5..=10.1).contains(&time.seconds()), "{}", time.seconds());
    }
}
