//! Puts the entries of a backup in order while it runs, whatever order they come in.
//!
//! The last entries wait; those before them go into the catalogue at once, as a *run*. A tree is walked in the order
//! of paths, and its files complete almost in that order, so one run is mostly the whole catalogue. Entries that
//! come too late for it begin the next one. Runs are catalogues, stored like any other; at the end several are
//! merged by reading them back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use crate::content::catalogue::builder::CatalogueBuilder;
use crate::content::catalogue::page::CatalogueRoot;
use crate::content::catalogue::reader::CatalogueReader;
use crate::content::catalogue::record;
use crate::content::entry::Entry;
use crate::content::page::{PageSource, PageStore};
use crate::content::path::EntryPath;
use crate::error::{Error, Result};

/// Most entries that wait. Backups of fewer write all pages of the catalogue at their end.
pub(crate) const WAITING: usize = 1 << 16;
/// Most bytes of entries that wait, but for one entry.
const WAITING_BYTES: usize = 16 << 20;
/// Most runs that are merged at once: each takes the memory of a page of every level.
const MERGED: usize = 32;

/// Collects the entries of a backup in any order and writes its catalogue, in memory that does not grow with it.
pub(crate) struct EntrySorter {
    /// Decides where pages end: the same in all backups that are to share pages.
    boundary_key: [u8; 32],
    waiting: Vec<EncodedEntry>,
    waiting_bytes: usize,
    /// The run that is being written, and the path of its last entry.
    run: Option<(CatalogueBuilder, Box<[u8]>)>,
    /// Finished runs.
    runs: Vec<CatalogueRoot>,
    entries: u64,
    /// [`WAITING`], but in tests.
    most: usize,
    /// Most entries that ever waited.
    #[cfg(test)]
    peak: usize,
}

/// An entry that can be stored. Ordered by path.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EncodedEntry {
    /// The path as it sorts, with NUL for `/`.
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

    fn entry_path(&self) -> Result<EntryPath> {
        let bytes: Vec<u8> = self.path.iter().map(|byte| if *byte == 0 { b'/' } else { *byte }).collect();
        EntryPath::new(bytes).map_err(|_| Error::Internal("a path changed while entries were sorted"))
    }

    /// Bytes of memory: two boxes and what the allocator adds to them.
    const fn memory(&self) -> usize {
        self.path.len().saturating_add(self.bytes.len()).saturating_add(64)
    }
}

impl EntrySorter {
    /// A sorter without entries.
    #[must_use]
    pub(crate) const fn new(boundary_key: &[u8; 32]) -> Self {
        Self {
            boundary_key: *boundary_key,
            waiting: Vec::new(),
            waiting_bytes: 0,
            run: None,
            runs: Vec::new(),
            entries: 0,
            most: WAITING,
            #[cfg(test)]
            peak: 0,
        }
    }

    /// Adds an entry. Pages that are full go to `store`.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] where two entries were seen to have the same path (the others are
    /// seen by [`finish`](Self::finish)), or whatever the store says.
    pub(crate) fn push(&mut self, entry: EncodedEntry, store: &dyn PageStore) -> Result<()> {
        self.waiting_bytes = self.waiting_bytes.saturating_add(entry.memory());
        self.waiting.push(entry);
        self.entries = self.entries.saturating_add(1);
        #[cfg(test)]
        {
            self.peak = self.peak.max(self.waiting.len());
        }
        while self.waiting.len() >= self.most || self.waiting_bytes >= WAITING_BYTES {
            sort(&mut self.waiting)?;
            let late = self.late();
            let on_time = self.waiting.len().saturating_sub(late);
            if on_time >= late {
                // The second half goes on waiting, for what belongs before it.
                self.write(late..late.saturating_add(on_time.div_ceil(2)), store)?;
            } else {
                self.write(late..self.waiting.len(), store)?;
                self.end_run(store)?;
            }
        }
        Ok(())
    }

    /// Number of entries.
    #[must_use]
    pub(crate) const fn len(&self) -> u64 {
        self.entries
    }

    #[cfg(test)]
    pub(crate) const fn peak(&self) -> usize {
        self.peak
    }

    /// Writes the catalogue: the same bytes for the same entries in whatever order they came.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] naming a path that two entries have, or whatever the store says.
    pub(crate) fn finish(mut self, store: &(impl PageStore + PageSource)) -> Result<CatalogueRoot> {
        sort(&mut self.waiting)?;
        let late = self.late();
        self.write(late..self.waiting.len(), store)?;
        if late > 0 {
            self.end_run(store)?;
            self.write(0..late, store)?;
        }
        if self.runs.is_empty() {
            let builder = self.run.map_or_else(|| CatalogueBuilder::new(&self.boundary_key), |(builder, _)| builder);
            return builder.finish(store);
        }
        self.end_run(store)?;
        loop {
            let rest = self.runs.split_off(self.runs.len().min(MERGED));
            let merged = merge(&self.runs, &self.boundary_key, store)?;
            if rest.is_empty() {
                return Ok(merged);
            }
            self.runs = rest;
            self.runs.push(merged);
        }
    }

    /// How many of the waiting entries, which are in order, come too late for the run.
    fn late(&self) -> usize {
        self.run.as_ref().map_or(0, |(_, last)| self.waiting.partition_point(|entry| entry.path <= *last))
    }

    /// Moves waiting entries, which are in order, into the run.
    fn write(&mut self, range: Range<usize>, store: &dyn PageStore) -> Result<()> {
        for entry in self.waiting.drain(range) {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(entry.memory());
            let path = entry.entry_path()?;
            let (builder, last) =
                self.run.get_or_insert_with(|| (CatalogueBuilder::new(&self.boundary_key), Box::default()));
            builder.push(path, entry.bytes.into_vec(), store)?;
            *last = entry.path;
        }
        Ok(())
    }

    fn end_run(&mut self, store: &dyn PageStore) -> Result<()> {
        if let Some((builder, _)) = self.run.take() {
            self.runs.push(builder.finish(store)?);
        }
        Ok(())
    }
}

/// Reads runs back and writes them as one catalogue.
fn merge(
    runs: &[CatalogueRoot],
    boundary_key: &[u8; 32],
    store: &(impl PageStore + PageSource),
) -> Result<CatalogueRoot> {
    let mut builder = CatalogueBuilder::new(boundary_key);
    let mut runs: Vec<_> = runs.iter().map(|run| CatalogueReader::new(*run, store).entries(None)).collect();
    let mut heads = BinaryHeap::with_capacity(runs.len());
    for (number, run) in runs.iter_mut().enumerate() {
        if let Some(entry) = run.next() {
            heads.push(Reverse((EncodedEntry::new(&entry?)?, number)));
        }
    }
    while let Some(Reverse((first, number))) = heads.pop() {
        builder.push(first.entry_path()?, first.bytes.into_vec(), store)?;
        if let Some(entry) = runs.get_mut(number).and_then(Iterator::next) {
            heads.push(Reverse((EncodedEntry::new(&entry?)?, number)));
        }
    }
    builder.finish(store)
}

/// Sorts by path. Most of it is in order already.
fn sort(waiting: &mut [EncodedEntry]) -> Result<()> {
    waiting.sort_by(|one, two| one.path.cmp(&two.path));
    let twice = waiting.windows(2).find_map(|pair| match pair {
        [one, two] if one.path == two.path => Some(one),
        _ => None,
    });
    match twice {
        Some(entry) => Err(Error::AlreadyExists { what: "entry", name: entry.entry_path()?.to_string() }),
        None => Ok(()),
    }
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

    fn push(sorter: &mut EntrySorter, entry: &Entry, pages: &MemoryPages) -> Result<()> {
        sorter.push(EncodedEntry::new(entry).unwrap(), pages)
    }

    /// A sorter that lets `most` entries wait.
    fn sorter(most: usize) -> EntrySorter {
        EntrySorter { most, ..EntrySorter::new(KEY) }
    }

    /// The catalogue of entries that are sorted before anything is written.
    fn catalogue<'e>(entries: impl IntoIterator<Item = &'e Entry>, pages: &MemoryPages) -> CatalogueRoot {
        let mut sorter = sorter(usize::MAX);
        entries.into_iter().for_each(|entry| push(&mut sorter, entry, pages).unwrap());
        sorter.finish(pages).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn is_a_sorted_map(
            entries in prop::collection::vec((any_entry(), 0u8..9, any::<u64>()), 0..300),
            (calls, disorder, most) in (1u8..9, 0usize..300, 1usize..100),
        ) {
            let model: BTreeMap<EntryPath, Entry> =
                entries.iter().map(|(entry, ..)| (entry.path.clone(), entry.clone())).collect();
            // As several calls deliver them, each nearly in order.
            let mut order: Vec<(u8, usize, &Entry)> = Vec::new();
            for (position, (path, entry)) in model.iter().enumerate() {
                let (_, call, random) = entries.iter().find(|(entry, ..)| entry.path == *path).unwrap();
                let moved = usize::try_from(random % (disorder as u64 + 1)).unwrap();
                order.push((call % calls, position + moved, entry));
            }
            order.sort_by_key(|(call, position, _)| (*call, *position));
            let pages = MemoryPages::default();
            let mut sorter = sorter(most);
            order.iter().for_each(|(_, _, entry)| push(&mut sorter, entry, &pages).unwrap());
            prop_assert_eq!(sorter.len(), model.len() as u64);
            prop_assert!(sorter.peak <= most, "{} entries waited", sorter.peak);
            let root = sorter.finish(&pages).unwrap();
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
        for (most, between) in [(1, 1), (2, 1), (7, 20), (WAITING, 20)] {
            let pages = MemoryPages::default();
            let mut sorter = sorter(most);
            let numbers = (0..between).chain([0]).chain(between..2 * between);
            let pushed = numbers.into_iter().try_for_each(|number| push(&mut sorter, &file(number), &pages));
            let error = pushed.and_then(|()| sorter.finish(&pages).map(drop)).unwrap_err();
            let name = file(0).path.to_string();
            assert!(matches!(&error, Error::AlreadyExists { name: found, .. } if *found == name), "{error}");
        }
    }

    /// A hundred thousand files in any order: as the workers of a walk complete them, and as nobody would.
    #[test]
    fn many_entries_in_bounded_memory_and_shared_pages() {
        const COUNT: u64 = 100_000;
        const MOST: usize = 1000;
        let numbers: Vec<u64> = {
            let mut entries: Vec<(EntryPath, u64)> = (0..COUNT).map(|number| (file(number).path, number)).collect();
            entries.sort();
            entries.into_iter().map(|(_, number)| number).collect()
        };
        let entry = |number: u64, changed: u64| {
            let mut entry = file(number);
            entry.attributes.mode = Some(if number == changed { 0o600 } else { 0o644 });
            entry
        };
        let pages = MemoryPages::default();
        let write = |numbers: &[u64], changed: u64| {
            let mut sorter = sorter(MOST);
            numbers.iter().for_each(|number| push(&mut sorter, &entry(*number, changed), &pages).unwrap());
            assert!(sorter.peak <= MOST && sorter.waiting.len() <= MOST, "{} entries waited", sorter.peak);
            let root = sorter.finish(&pages).unwrap();
            (root, pages.take_new(), pages.take_read())
        };
        let (root, all, read) = write(&numbers, COUNT);
        assert_eq!((root.entries, read), (COUNT, 0), "what comes in order is never read back");
        assert!((200..700).contains(&all), "{all}");
        assert!(pages.largest() < 1 << 20);
        assert_eq!(CatalogueReader::new(root, &pages).entries(None).filter(Result::is_ok).count(), 100_000);
        assert_eq!(root, catalogue(&numbers.iter().map(|number| entry(*number, COUNT)).collect::<Vec<_>>(), &pages));
        pages.take_read();

        // Workers complete a file later than those that follow it, in one place or another.
        let mut nearly = numbers.clone();
        nearly.chunks_mut(200).for_each(<[u64]>::reverse);
        assert_eq!(write(&nearly, COUNT), (root, 0, 0));
        // 37 is coprime to the count: every file once, in no order at all.
        let shuffled: Vec<u64> = (0..COUNT).map(|step| numbers[usize::try_from(step * 37 % COUNT).unwrap()]).collect();
        let (merged, _, read) = write(&shuffled, COUNT);
        assert!(merged == root && read > 0);

        // One changed entry writes one leaf and the nodes above it.
        let (root, new, _) = write(&numbers, 4711);
        assert_eq!(new, usize::from(root.height));
        // One entry more writes few pages.
        let more: Vec<u64> = numbers.iter().copied().chain([COUNT + 5]).collect();
        let mut sorter = sorter(usize::MAX);
        more.iter().for_each(|number| push(&mut sorter, &entry(*number, COUNT), &pages).unwrap());
        sorter.finish(&pages).unwrap();
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
