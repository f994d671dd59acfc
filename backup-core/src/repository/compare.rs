//! Holding live data against a backup.

use std::cmp::Ordering;
use std::io;

use serde::Serialize;

use crate::content::{Entry, EntryPath};
use crate::error::{Error, Result};
use crate::length::{to_u64, to_usize};
use crate::progress::Event;
use crate::repository::backup::{Backup, Problem, Problems, error_chain};
use crate::repository::differences::{Change, Difference, same_attributes};
use crate::repository::environment::Control;
use crate::repository::handle::Repository;
use crate::repository::read::{Decoded, for_each_in_order};
use crate::source::{BlockSource, FileContent, TreeNode, TreeSource};

/// How live data differs from a backup.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CompareReport {
    /// Entries that were compared.
    pub entries: u64,
    /// Bytes of content that were compared.
    pub bytes: u64,
    /// Paths that differ: removed ones are in the backup only, added ones in the live data only.
    pub differences: Vec<Difference>,
    /// Live data that could not be read, at most the first 1000 problems.
    pub problems: Vec<Problem>,
    /// How many problems there were in all.
    pub problem_count: u64,
}

impl CompareReport {
    /// Whether the live data is what the backup holds.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.differences.is_empty() && self.problem_count == 0
    }
}

impl Repository {
    /// Compares a tree of files with a backup, byte for byte. Everything that the backup has is expected in the
    /// tree: a tree of some of the paths that were backed up lacks the others.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], [`Error::Storage`] where the backup cannot be read; [`Error::Cancelled`].
    pub fn compare_tree(
        &self,
        backup: &Backup,
        source: &mut dyn TreeSource,
        control: &Control,
    ) -> Result<CompareReport> {
        let mut report =
            CompareReport { entries: 0, bytes: 0, differences: Vec::new(), problems: Vec::new(), problem_count: 0 };
        let mut problems = Problems::default();
        let mut entries = self.entries(backup)?;
        let mut entry = entries.next().transpose()?;
        loop {
            control.cancel().check()?;
            let node = match source.next_node() {
                None => break,
                Some(Ok(node)) => node,
                Some(Err(problem)) => {
                    problems.record(&problem.name, &error_chain(&problem.error));
                    continue;
                }
            };
            while let Some(missing) = entry.take_if(|entry| entry.path.cmp(&node.path) == Ordering::Less) {
                report.differences.push(Difference::new(missing.path, Change::Removed));
                entry = entries.next().transpose()?;
            }
            match entry.take_if(|entry| entry.path == node.path) {
                None => report.differences.push(Difference::new(node.path, Change::Added)),
                Some(found) => {
                    self.compare_node(&found, node, control, &mut report, &mut problems)?;
                    entry = entries.next().transpose()?;
                }
            }
        }
        while let Some(missing) = entry {
            report.differences.push(Difference::new(missing.path, Change::Removed));
            entry = entries.next().transpose()?;
        }
        report.problems = problems.first;
        report.problem_count = problems.count;
        Ok(report)
    }

    /// Compares a stream with an entry. Returns the offset of the first difference (the shorter length where one
    /// ends early), `None` where they are the same.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a hard link, see [`content_entry`](Self::content_entry);
    /// [`Error::Source`] where `source` fails; [`Error::Damaged`], [`Error::Storage`], [`Error::Cancelled`].
    pub fn compare_stream(&self, entry: &Entry, source: &mut dyn io::Read, control: &Control) -> Result<Option<u64>> {
        let failed = |source| Error::Source { name: entry.path.to_string(), source };
        let mut position = 0u64;
        let mut difference = None;
        let mut buffer = vec![0; 64 << 10];
        for_each_in_order(&self.inner, entry, 0..entry.size(), control, &mut |piece| {
            let (bytes, mut left) = match &piece {
                Decoded::Data(bytes) => (Some(bytes.as_slice()), to_u64(bytes.len())),
                Decoded::Hole(length) => (None, *length),
            };
            let mut done = 0usize;
            while left > 0 {
                let want = to_usize(left.min(to_u64(buffer.len())), "read")?;
                let target = buffer.get_mut(..want).unwrap_or_default();
                let count = read_full(source, target).map_err(failed)?;
                let live = buffer.get(..count).unwrap_or_default();
                let first = match bytes.and_then(|bytes| bytes.get(done..done.saturating_add(count))) {
                    Some(expected) => live.iter().zip(expected).position(|(a, b)| a != b),
                    None => live.iter().position(|byte| *byte != 0),
                };
                let first = first.or((count < want).then_some(count));
                if let Some(first) = first {
                    difference = Some(position.saturating_add(to_u64(first)));
                    return Ok(false);
                }
                done = done.saturating_add(count);
                position = position.saturating_add(to_u64(count));
                left = left.saturating_sub(to_u64(count));
                control.event(&Event::Bytes { count: to_u64(count), kind: crate::extent::ExtentKind::Data });
            }
            Ok(true)
        })?;
        if difference.is_none() && read_full(source, buffer.get_mut(..1).unwrap_or_default()).map_err(failed)? > 0 {
            difference = Some(entry.size());
        }
        Ok(difference)
    }

    /// Compares a block source with an entry, as [`compare_stream`](Self::compare_stream).
    ///
    /// # Errors
    ///
    /// As [`compare_stream`](Self::compare_stream).
    pub fn compare_blocks(&self, entry: &Entry, source: &dyn BlockSource, control: &Control) -> Result<Option<u64>> {
        self.compare_stream(entry, &mut InOrder { source, position: 0 }, control)
    }

    fn compare_node(
        &self,
        entry: &Entry,
        node: TreeNode,
        control: &Control,
        report: &mut CompareReport,
        problems: &mut Problems,
    ) -> Result<()> {
        report.entries = report.entries.saturating_add(1);
        let mut live = Entry::new(node.path, node.kind);
        live.attributes = node.attributes;
        let attributes = !same_attributes(entry, &live);
        let mut content = entry.kind != live.kind || entry.hard_link != node.hard_link;
        if !content
            && entry.hard_link.is_none()
            && let Some(open) = node.content
        {
            match open.open().map_err(|error| (live.path.clone(), error)) {
                Err((path, error)) => return report_problem(problems, &path, &error),
                Ok(file) => match self.compare_file(entry, &*file, control) {
                    Ok(same) => {
                        content = !same;
                        report.bytes = report.bytes.saturating_add(entry.size());
                    }
                    Err(Error::Source { source, .. }) => return report_problem(problems, &live.path, &source),
                    Err(error) => return Err(error),
                },
            }
        }
        if content || attributes {
            report.differences.push(Difference::new(live.path, Change::Modified { content, attributes }));
        }
        Ok(())
    }

    fn compare_file(&self, entry: &Entry, file: &dyn FileContent, control: &Control) -> Result<bool> {
        if file.length() != entry.size() {
            return Ok(false);
        }
        let source: &dyn BlockSource = file;
        Ok(self.compare_blocks(entry, source, control)?.is_none())
    }
}

fn report_problem(problems: &mut Problems, path: &EntryPath, error: &io::Error) -> Result<()> {
    problems.record(&path.to_string(), &error_chain(error));
    Ok(())
}

/// A block source read from front to back.
struct InOrder<'s> {
    source: &'s dyn BlockSource,
    position: u64,
}

impl io::Read for InOrder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.source.length().saturating_sub(self.position);
        let count = to_usize(left.min(to_u64(buffer.len())), "read").map_err(io::Error::other)?;
        if let Some(target) = buffer.get_mut(..count).filter(|target| !target.is_empty()) {
            self.source.read_at(self.position, target)?;
        }
        self.position = self.position.saturating_add(to_u64(count));
        Ok(count)
    }
}

/// Fills the buffer, or as much of it as there is before the end.
fn read_full(source: &mut dyn io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(target) = buffer.get_mut(filled..).filter(|target| !target.is_empty()) {
        match source.read(target) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count.min(target.len())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
