//! Putting entries in order in bounded memory.
//!
//! Entries come as workers finish them. Those that are waiting are sorted once there are enough of
//! them and kept compressed, as a run; at the end the runs are merged into the catalogue.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::content::catalogue::builder::{CatalogueBuilder, common_prefix};
use crate::content::catalogue::page::CatalogueRoot;
use crate::content::catalogue::record;
use crate::content::entry::Entry;
use crate::content::page::PageStore;
use crate::content::path::EntryPath;
use crate::error::{Error, Result};
use crate::length::to_u32;

/// Bytes of waiting entries that make a run.
const RUN: usize = 4 << 20;
/// Bytes of a block of a run before compression. One block of each run is open while runs are merged.
const BLOCK: usize = 32 << 10;

/// Collects the entries of a backup in any order and writes its catalogue.
///
/// A million ordinary files take about 90 MB: mostly their digests and chunk ids, which do not compress.
pub(crate) struct EntrySorter {
    waiting: Vec<Sortable>,
    waiting_size: usize,
    runs: Vec<Run>,
    entries: u64,
}

/// An entry that can be stored.
pub(crate) struct EncodedEntry {
    /// As in [`Sortable`].
    path: Box<[u8]>,
    bytes: Box<[u8]>,
}

impl EncodedEntry {
    /// Encodes an entry.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] or [`Error::LimitExceeded`] naming the entry, where the format has no place for
    /// what it holds.
    pub(crate) fn new(entry: &Entry) -> Result<Self> {
        let path = entry.path.as_bytes().iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect();
        Ok(Self { path, bytes: record::encode(entry)?.into_boxed_slice() })
    }
}

/// The path as it sorts, with NUL for `/`, and the encoded entry.
type Sortable = (Box<[u8]>, Box<[u8]>);

/// Sorted entries in compressed blocks.
struct Run {
    blocks: Vec<Block>,
}

struct Block {
    compressed: Box<[u8]>,
    /// Length before compression.
    length: usize,
}

impl EntrySorter {
    /// A sorter without entries.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self { waiting: Vec::new(), waiting_size: 0, runs: Vec::new(), entries: 0 }
    }

    /// Adds an entry.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] where two entries were seen to have the same path (the others are
    /// seen by [`finish`](Self::finish)).
    pub(crate) fn push(&mut self, entry: EncodedEntry) -> Result<()> {
        let EncodedEntry { path, bytes } = entry;
        // Two boxes and what the allocator adds to them.
        let size = path.len().saturating_add(bytes.len()).saturating_add(64);
        self.waiting_size = self.waiting_size.saturating_add(size);
        self.waiting.push((path, bytes));
        self.entries = self.entries.saturating_add(1);
        if self.waiting_size >= RUN {
            self.close_run()?;
        }
        Ok(())
    }

    /// Number of entries.
    #[must_use]
    pub(crate) fn len(&self) -> u64 {
        self.entries
    }

    #[cfg(test)]
    /// Bytes of memory that entries take.
    #[must_use]
    pub(crate) fn memory_bytes(&self) -> u64 {
        let block = |block: &Block| block.compressed.len().saturating_add(size_of::<Block>());
        let runs: usize = self.runs.iter().flat_map(|run| &run.blocks).map(block).sum();
        crate::length::to_u64(runs.saturating_add(self.waiting_size))
    }

    /// Writes the catalogue. `boundary_key` decides where pages end: the same in all backups that are
    /// to share pages.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] naming a path that two entries have, or whatever the store says.
    pub(crate) fn finish(mut self, boundary_key: &[u8; 32], store: &dyn PageStore) -> Result<CatalogueRoot> {
        let mut builder = CatalogueBuilder::new(boundary_key, store);
        if self.runs.is_empty() {
            sort(&mut self.waiting)?;
            for (path, entry) in self.waiting {
                builder.push(path_of(&path)?, entry.into_vec())?;
            }
            return builder.finish();
        }
        self.close_run()?;
        let mut readers = Vec::with_capacity(self.runs.len());
        let mut heads = BinaryHeap::with_capacity(self.runs.len());
        for run in self.runs {
            let mut reader =
                RunReader { blocks: run.blocks.into_iter(), block: Vec::new(), position: 0, path: Vec::new() };
            if let Some((path, entry)) = reader.next()? {
                heads.push(Reverse((path, readers.len(), entry)));
            }
            readers.push(reader);
        }
        while let Some(Reverse((path, run, entry))) = heads.pop() {
            builder.push(path_of(&path)?, entry)?;
            let reader = readers.get_mut(run).ok_or(Error::Internal("a run of entries is missing"))?;
            if let Some((path, entry)) = reader.next()? {
                heads.push(Reverse((path, run, entry)));
            }
        }
        builder.finish()
    }

    fn close_run(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        self.waiting_size = 0;
        sort(&mut waiting)?;
        let mut run = Run { blocks: Vec::new() };
        let mut block = Vec::with_capacity(BLOCK);
        let mut previous: Box<[u8]> = Box::default();
        for (path, entry) in waiting {
            let shared = common_prefix(&previous, &path);
            let suffix = path.get(shared..).unwrap_or_default();
            for length in [shared, suffix.len(), entry.len()] {
                block.extend_from_slice(&to_u32(length, "length of an entry")?.to_le_bytes());
            }
            block.extend_from_slice(suffix);
            block.extend_from_slice(&entry);
            previous = path;
            if block.len() >= BLOCK {
                run.blocks.push(Block::compress(&block)?);
                block.clear();
            }
        }
        if !block.is_empty() {
            run.blocks.push(Block::compress(&block)?);
        }
        self.runs.push(run);
        Ok(())
    }
}

impl Block {
    fn compress(bytes: &[u8]) -> Result<Self> {
        let compressed =
            zstd::bulk::compress(bytes, 1).map_err(|_| Error::Internal("zstd did not compress entries"))?;
        Ok(Self { compressed: compressed.into_boxed_slice(), length: bytes.len() })
    }
}

/// Reads a run back, freeing its blocks as it goes.
struct RunReader {
    blocks: std::vec::IntoIter<Block>,
    block: Vec<u8>,
    position: usize,
    path: Vec<u8>,
}

impl RunReader {
    fn next(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        if self.position == self.block.len() {
            let Some(block) = self.blocks.next() else { return Ok(None) };
            self.block = zstd::bulk::decompress(&block.compressed, block.length).map_err(|_| BROKEN_RUN)?;
            self.position = 0;
        }
        let shared = self.number()?;
        let suffix = self.number()?;
        let entry = self.number()?;
        self.path.truncate(shared);
        let suffix = self.take(suffix)?.to_vec();
        self.path.extend_from_slice(&suffix);
        let entry = self.take(entry)?.to_vec();
        Ok(Some((self.path.clone(), entry)))
    }

    fn number(&mut self) -> Result<usize> {
        let bytes = self.take(4)?.first_chunk::<4>().copied().ok_or(BROKEN_RUN)?;
        Ok(crate::length::index(u32::from_le_bytes(bytes)))
    }

    fn take(&mut self, length: usize) -> Result<&[u8]> {
        let end = self.position.checked_add(length).ok_or(BROKEN_RUN)?;
        let bytes = self.block.get(self.position..end).ok_or(BROKEN_RUN)?;
        self.position = end;
        Ok(bytes)
    }
}

const BROKEN_RUN: Error = Error::Internal("a run of entries cannot be read back");

fn sort(waiting: &mut [Sortable]) -> Result<()> {
    waiting.sort_unstable_by(|(one, _), (two, _)| one.cmp(two));
    let twice = waiting.windows(2).find_map(|pair| match pair {
        [(one, _), (two, _)] if one == two => Some(one),
        _ => None,
    });
    match twice {
        Some(path) => Err(Error::AlreadyExists { what: "entry", name: path_of(path)?.to_string() }),
        None => Ok(()),
    }
}

fn path_of(sortable: &[u8]) -> Result<EntryPath> {
    let bytes: Vec<u8> = sortable.iter().map(|byte| if *byte == 0 { b'/' } else { *byte }).collect();
    EntryPath::new(bytes).map_err(|_| Error::Internal("a path changed while entries were sorted"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::content::catalogue::reader::CatalogueReader;
    use crate::content::catalogue::record::tests::any_entry;
    use crate::content::entry::{ChunkRef, Content, ContentRoot, EntryKind};
    use crate::content::page::memory::MemoryPages;
    use crate::id::{ChunkId, Digest};

    const KEY: &[u8; 32] = &[7; 32];

    fn random(number: u64) -> [u8; 32] {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    fn file(number: u64) -> Entry {
        let path = format!("home/user{}/project-{}/src/file-{number}.rs", number % 7, number / 100);
        let mut entry = Entry::new(path.parse().unwrap(), EntryKind::File);
        let length = 1000 + u32::try_from(number).unwrap();
        let refs = vec![ChunkRef::Data { id: ChunkId::new(random(number)), length }];
        entry.content = Content { length: u64::from(length), root: ContentRoot::Inline(refs) };
        entry.digest = Some(Digest::new(random(number + (1 << 40))));
        entry.attributes.mode = Some(0o644);
        entry.attributes.inode = Some(number + 1_000_000);
        entry
    }

    fn catalogue<'e>(entries: impl IntoIterator<Item = &'e Entry>, pages: &MemoryPages) -> CatalogueRoot {
        let mut sorter = EntrySorter::new();
        entries.into_iter().for_each(|entry| sorter.push(EncodedEntry::new(entry).unwrap()).unwrap());
        sorter.finish(KEY, pages).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn is_a_sorted_map(entries in prop::collection::vec(any_entry(), 0..300), run in 1usize..100) {
            let model: BTreeMap<EntryPath, Entry> =
                entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect();
            // In an order that has nothing to do with the paths, in runs of any length.
            let mut shuffled: Vec<&Entry> = model.values().collect();
            shuffled.sort_by_key(|entry| *blake3::hash(entry.path.as_bytes()).as_bytes());
            let pages = MemoryPages::default();
            let mut sorter = EntrySorter::new();
            for (number, entry) in shuffled.into_iter().enumerate() {
                sorter.push(EncodedEntry::new(entry).unwrap()).unwrap();
                if number % run == 0 {
                    sorter.close_run().unwrap();
                }
            }
            prop_assert_eq!(sorter.len(), model.len() as u64);
            let root = sorter.finish(KEY, &pages).unwrap();
            prop_assert_eq!(root, catalogue(model.values(), &pages));
            let reader = CatalogueReader::new(root, &pages);
            let read: Vec<Entry> = reader.entries(None).map(Result::unwrap).collect();
            prop_assert_eq!(&read, &model.values().cloned().collect::<Vec<_>>());
            for (path, entry) in model.iter().take(40) {
                let found = reader.get(path).unwrap();
                prop_assert_eq!(found.as_ref(), Some(entry));
                let below = path.join(b"~below").unwrap();
                prop_assert_eq!(reader.get(&below).unwrap().is_some(), model.contains_key(&below));
                for from in [path, &below] {
                    let read: Vec<EntryPath> = reader.entries(Some(from)).map(|entry| entry.unwrap().path).collect();
                    prop_assert_eq!(read, model.range(from..).map(|(path, _)| path.clone()).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn the_same_path_twice_is_an_error_that_names_it() {
        for apart in [false, true] {
            let mut sorter = EntrySorter::new();
            sorter.push(EncodedEntry::new(&file(1)).unwrap()).unwrap();
            sorter.push(EncodedEntry::new(&file(2)).unwrap()).unwrap();
            if apart {
                sorter.close_run().unwrap();
            }
            sorter.push(EncodedEntry::new(&file(1)).unwrap()).unwrap();
            let error = sorter.finish(KEY, &MemoryPages::default()).unwrap_err();
            let name = file(1).path.to_string();
            assert!(matches!(&error, Error::AlreadyExists { name: found, .. } if *found == name), "{error}");
        }
    }

    #[test]
    fn many_entries_in_bounded_memory_and_shared_pages() {
        const COUNT: u64 = 100_000;
        // 37 is coprime to the count: every file once, out of order.
        let shuffled = |changed: u64| {
            (0..COUNT).map(move |step| {
                let number = step * 37 % COUNT;
                let mut entry = file(number);
                if number == changed {
                    entry.attributes.mode = Some(0o600);
                }
                entry
            })
        };
        let pages = MemoryPages::default();
        let mut sorter = EntrySorter::new();
        let mut most = 0;
        for entry in shuffled(COUNT) {
            sorter.push(EncodedEntry::new(&entry).unwrap()).unwrap();
            if sorter.entries.is_multiple_of(1000) {
                most = most.max(sorter.memory_bytes());
            }
        }
        assert!(most < COUNT * 110 + RUN as u64, "{most} bytes for {COUNT} entries");
        let root = sorter.finish(KEY, &pages).unwrap();
        assert_eq!(root.entries, COUNT);
        assert_eq!(CatalogueReader::new(root, &pages).entries(None).filter(Result::is_ok).count(), 100_000);
        let all = pages.take_new();
        assert!((200..700).contains(&all), "{all}");
        assert!(pages.largest() < 1 << 20);

        // One changed entry writes one leaf and the nodes above it.
        let entries: Vec<Entry> = shuffled(4711).collect();
        catalogue(&entries, &pages);
        let new = pages.take_new();
        assert_eq!(new, usize::from(root.height));
        // One entry more writes few pages.
        let mut entries: Vec<Entry> = shuffled(COUNT).collect();
        entries.push(file(COUNT + 5));
        catalogue(&entries, &pages);
        let new = pages.take_new();
        assert!(new <= 8, "{new}");
    }

    #[test]
    fn large_entries_fit() {
        let pages = MemoryPages::default();
        let mut entries = Vec::new();
        for number in 0..40 {
            let mut entry = file(number);
            let value = vec![u8::try_from(number).unwrap(); 60_000];
            entry.attributes.extended = (0..60u8).map(|name| (vec![b'u', name + 1], value.clone())).collect();
            entries.push(entry);
        }
        let long = vec![vec![b'x'; 4096]; 15].join(&b'/');
        for number in 0..200u8 {
            let path = EntryPath::new([&long[..], b"/", number.to_string().as_bytes()].concat()).unwrap();
            entries.push(Entry::new(path, EntryKind::Directory));
        }
        let root = catalogue(&entries, &pages);
        entries.sort_by(|one, two| one.path.cmp(&two.path));
        let read: Vec<Entry> = CatalogueReader::new(root, &pages).entries(None).map(Result::unwrap).collect();
        assert!(read == entries);
        assert!(pages.largest() < 5 << 20, "{}", pages.largest());
    }
}
