//! Content in order: for pipes, commands and comparisons.

use std::io;
use std::ops::Range;
use std::thread;

use crate::content::{ChunkRef, Entry, Refs};
use crate::crypto::hash::DigestHasher;
use crate::error::{Error, Result};
use crate::extent::ExtentKind;
use crate::length::{to_u64, to_usize};
use crate::progress::Event;
use crate::repository::environment::Control;
use crate::repository::handle::{Inner, Repository};
use crate::repository::parallel::start;
use crate::repository::read::ahead::Ahead;
use crate::repository::read::chunks::{Fetcher, unknown_chunk};
use crate::repository::read::refuse_link;

/// Bytes of content that one thread decodes at a time.
const WINDOW: u64 = 8 << 20;
/// Chunks and holes that one thread decodes at a time, however small they are.
const WINDOW_PARTS: usize = 4096;

/// A piece of decoded content.
pub(crate) enum Decoded {
    Data(Vec<u8>),
    Hole(u64),
}

impl Repository {
    /// Writes the whole content of an entry to `sink`, in order, holes as zeros, and checks it against the entry's
    /// digest. Returns its length.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a hard link, see [`content_entry`](Self::content_entry).
    /// [`Error::Damaged`] naming the chunk, or the entry where the digest does not fit: what was written
    /// is then not the content. [`Error::Sink`] where `sink` fails; [`Error::Storage`], [`Error::Cancelled`].
    pub fn restore_stream(&self, entry: &Entry, sink: &mut dyn io::Write, control: &Control) -> Result<u64> {
        self.restore_range(entry, 0..entry.size(), sink, control)
    }

    /// Writes a range of an entry's content (clipped to it) to `sink`, in order. Returns how many bytes.
    ///
    /// # Errors
    ///
    /// As [`restore_stream`](Self::restore_stream); the digest is checked where the range is everything.
    pub fn restore_range(
        &self,
        entry: &Entry,
        range: Range<u64>,
        sink: &mut dyn io::Write,
        control: &Control,
    ) -> Result<u64> {
        let range = range.start.min(entry.size())..range.end.min(entry.size());
        let whole = range == (0..entry.size());
        let mut digest = (whole && entry.digest.is_some()).then(DigestHasher::new);
        let mut written = 0u64;
        let zeros = vec![0; 64 << 10];
        let mut write = |bytes: &[u8]| {
            if let Some(digest) = &mut digest {
                digest.update(bytes);
            }
            sink.write_all(bytes).map_err(|source| Error::Sink { name: entry.path.to_string(), source })
        };
        for_each_in_order(&self.inner, entry, range, control, &mut |piece| {
            let (count, kind) = match piece {
                Decoded::Data(bytes) => {
                    write(&bytes)?;
                    (to_u64(bytes.len()), ExtentKind::Data)
                }
                Decoded::Hole(length) => {
                    let mut left = length;
                    while left > 0 {
                        let count = left.min(to_u64(zeros.len()));
                        write(zeros.get(..to_usize(count, "hole")?).unwrap_or_default())?;
                        left = left.saturating_sub(count);
                    }
                    (length, ExtentKind::Zero)
                }
            };
            written = written.saturating_add(count);
            control.event(&Event::Bytes { count, kind });
            Ok(true)
        })?;
        if let (Some(digest), Some(expected)) = (digest, entry.digest)
            && digest.finish() != expected
        {
            return Err(Error::damaged("entry", &entry.path, "its content does not have the digest that it had"));
        }
        Ok(written)
    }
}

/// Decodes a range of an entry and hands it to `take`, in order, until it returns `false`. With several
/// threads, windows are decoded ahead.
pub(crate) fn for_each_in_order(
    inner: &Inner,
    entry: &Entry,
    range: Range<u64>,
    control: &Control,
    take: &mut dyn FnMut(Decoded) -> Result<bool>,
) -> Result<()> {
    refuse_link(entry)?;
    let windows =
        || Windows { refs: Refs::new(&entry.content, range.clone(), inner), range: range.clone(), next: None };
    if control.threads() <= 1 {
        return in_turn(inner, windows(), control, take);
    }
    let threads = control.threads().min(usize::try_from(control.byte_budget() / (2 * WINDOW)).unwrap_or(1)).max(1);
    let ahead = Ahead::new(windows(), to_u64(threads));
    let has_threads = thread::scope(|scope| {
        let work = || {
            let mut fetcher = Fetcher::new(inner, control);
            ahead.work(Windows::next_window, |window| match &mut fetcher {
                Ok(fetcher) => decode(fetcher, inner, control, &window),
                Err(_) => Err(Error::Internal("a thread could not begin to decode")),
            });
        };
        if start(scope, threads, || work) == 0 {
            return Ok(false);
        }
        consume(&ahead, control, take).map(|()| true)
    })?;
    if has_threads { Ok(()) } else { in_turn(inner, windows(), control, take) }
}

/// The same without threads.
fn in_turn(
    inner: &Inner,
    mut windows: Windows<'_>,
    control: &Control,
    take: &mut dyn FnMut(Decoded) -> Result<bool>,
) -> Result<()> {
    let mut fetcher = Fetcher::new(inner, control)?;
    while let Some(window) = windows.next_window()? {
        for piece in decode(&mut fetcher, inner, control, &window)? {
            if !take(piece)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

struct Windows<'r> {
    refs: Refs<'r>,
    range: Range<u64>,
    next: Option<(u64, ChunkRef)>,
}

/// A reference and the part of it that is wanted.
type Part = (ChunkRef, Range<u64>);

impl Windows<'_> {
    fn next_window(&mut self) -> Result<Option<Vec<Part>>> {
        let mut window = Vec::new();
        let mut bytes = 0u64;
        while bytes < WINDOW && window.len() < WINDOW_PARTS {
            let Some((offset, reference)) = self.next.take().map(Ok).or_else(|| self.refs.next()).transpose()? else {
                break;
            };
            let end = offset.saturating_add(reference.length());
            let part =
                self.range.start.max(offset).saturating_sub(offset)..self.range.end.min(end).saturating_sub(offset);
            if matches!(reference, ChunkRef::Data { .. }) {
                bytes = bytes.saturating_add(reference.length());
            }
            window.push((reference, part));
        }
        Ok((!window.is_empty()).then_some(window))
    }
}

fn consume(
    ahead: &Ahead<Windows<'_>, Vec<Decoded>>,
    control: &Control,
    take: &mut dyn FnMut(Decoded) -> Result<bool>,
) -> Result<()> {
    // Also where `take` panics: the threads of the scope must end before anybody learns of it.
    let _stop = ahead.stop_when_dropped();
    loop {
        control.cancel().check()?;
        let Some(window) = ahead.take()? else { return Ok(()) };
        for piece in window {
            if !take(piece)? {
                return Ok(());
            }
        }
    }
}

fn decode(fetcher: &mut Fetcher<'_>, inner: &Inner, control: &Control, window: &[Part]) -> Result<Vec<Decoded>> {
    control.cancel().check()?;
    let mut out: Vec<Decoded> =
        window.iter().map(|(_, part)| Decoded::Hole(part.end.saturating_sub(part.start))).collect();
    let positions: Vec<usize> = (0..window.len())
        .filter(|position| matches!(window.get(*position), Some((ChunkRef::Data { .. }, _))))
        .collect();
    let chunks = positions.iter().filter_map(|position| match window.get(*position) {
        Some((ChunkRef::Data { id, length }, _)) => Some((*id, *length)),
        _ => None,
    });
    let (packs, unknown) = inner.locate(&chunks.collect::<Vec<_>>(), control)?;
    if let Some((_, id)) = unknown.first() {
        return Err(unknown_chunk(id));
    }
    for (_, mut wanted) in packs {
        fetcher.fetch(&mut wanted, &mut |item, plain| {
            let plain = plain?;
            let position = positions.get(item.tag).copied().unwrap_or_default();
            if let (Some(slot), Some((_, part))) = (out.get_mut(position), window.get(position)) {
                let part = to_usize(part.start, "chunk")?..to_usize(part.end, "chunk")?;
                *slot = Decoded::Data(plain.get(part).unwrap_or_default().to_vec());
            }
            Ok(())
        })?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::content::{Content, ContentRoot, EntryKind, PageRef, PageSource};
    use crate::crypto::Argon2Parameters;
    use crate::entropy::SeededEntropy;
    use crate::id::ChunkId;
    use crate::keys::Credential;
    use crate::repository::{BackupKind, BackupOptions, Environment, InitOptions};
    use crate::secret::Password;
    use crate::storage::MemoryStorage;
    use crate::sync::GRANTED;
    use crate::time::{FixedClock, Timestamp};

    struct NoPages;

    impl PageSource for NoPages {
        fn page(&self, page: &PageRef) -> Result<bytes::Bytes> {
            Err(Error::not_found("page", page.id))
        }
    }

    #[test]
    fn windows_are_small_however_small_the_chunks_are() {
        let data = |number: u64| ChunkRef::Data { id: ChunkId::new([(number % 251) as u8; 32]), length: 1 };
        let hole = |_: u64| ChunkRef::Hole { length: 1 };
        let kinds: [&dyn Fn(u64) -> ChunkRef; 2] =
            [&data, &|number| if number % 2 == 0 { hole(number) } else { data(number) }];
        for kind in kinds {
            let count = 3 * WINDOW_PARTS as u64 + 7;
            let content = Content { length: count, root: ContentRoot::Inline((0..count).map(kind).collect()) };
            let range = 0..count;
            let refs = Refs::new(&content, range.clone(), &NoPages);
            let mut windows = Windows { refs, range, next: None };
            let mut parts = Vec::new();
            while let Some(window) = windows.next_window().unwrap() {
                parts.push(window.len());
            }
            assert_eq!(parts, [WINDOW_PARTS, WINDOW_PARTS, WINDOW_PARTS, 7]);
        }
    }

    #[test]
    fn content_is_read_without_threads_where_there_are_none() {
        let clock = Arc::new(FixedClock(Timestamp::UNIX_EPOCH));
        let environment = Environment::new(clock, Arc::new(SeededEntropy::new(1)));
        let password = Password::from("password");
        let repository = Repository::init(
            Arc::new(MemoryStorage::new()),
            &Credential::from(&password),
            &InitOptions::default().with_argon2(Argon2Parameters::minimum_for_tests()),
            environment,
        )
        .unwrap();
        let data: Vec<u8> = (0..5_000_000u32).flat_map(|number| [number as u8, (number >> 11) as u8]).collect();
        let mut session = repository.begin(BackupOptions::new(BackupKind::Data)).unwrap();
        let entry = session.add_stream("data".parse().unwrap(), &mut data.as_slice()).unwrap();
        session.commit().unwrap();
        assert_eq!(entry.kind, EntryKind::Stream);
        for granted in [0, 1] {
            GRANTED.set(granted);
            let mut out = Vec::new();
            let read = repository.restore_stream(&entry, &mut out, &Control::default().with_threads(4));
            GRANTED.set(usize::MAX);
            assert_eq!(read.unwrap(), data.len() as u64);
            assert!(out == data, "{granted} threads");
        }
    }
}
