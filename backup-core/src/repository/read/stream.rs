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
use crate::repository::read::ahead::Ahead;
use crate::repository::read::chunks::{Fetcher, unknown_chunk};
use crate::repository::read::refuse_link;

/// Bytes of content that one thread decodes at a time.
const WINDOW: u64 = 8 << 20;

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
    let mut windows = Windows { refs: Refs::new(&entry.content, range.clone(), inner), range, next: None };
    if control.threads() <= 1 {
        let mut fetcher = Fetcher::new(inner, control)?;
        while let Some(window) = windows.next_window()? {
            for piece in decode(&mut fetcher, inner, control, &window)? {
                if !take(piece)? {
                    return Ok(());
                }
            }
        }
        return Ok(());
    }
    let threads = control.threads().min(usize::try_from(control.byte_budget() / (2 * WINDOW)).unwrap_or(1)).max(1);
    let ahead = Ahead::new(windows, to_u64(threads));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut fetcher = Fetcher::new(inner, control);
                ahead.work(Windows::next_window, |window| match &mut fetcher {
                    Ok(fetcher) => decode(fetcher, inner, control, &window),
                    Err(_) => Err(Error::Internal("a thread could not begin to decode")),
                });
            });
        }
        consume(&ahead, control, take)
    })
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
        while bytes < WINDOW {
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
