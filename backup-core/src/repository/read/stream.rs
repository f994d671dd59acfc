//! Content in order: for pipes, commands and comparisons.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Condvar, Mutex};
use std::thread;

use crate::content::{ChunkRef, Entry, Refs};
use crate::crypto::hash::DigestHasher;
use crate::error::{Error, Result};
use crate::extent::ExtentKind;
use crate::length::{to_u64, to_usize};
use crate::progress::Event;
use crate::repository::environment::Control;
use crate::repository::handle::{Inner, Repository};
use crate::repository::parallel::POISONED;
use crate::repository::read::chunks::{Fetcher, group_by_pack, unknown_chunk};

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
                        left -= count;
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
    let ahead = control.threads().min(usize::try_from(control.byte_budget() / (2 * WINDOW)).unwrap_or(1)).max(1);
    let source = Mutex::new((windows, 0u64));
    let ready = Ready::default();
    thread::scope(|scope| {
        for _ in 0..ahead {
            scope.spawn(|| decode_ahead(inner, control, &source, &ready, to_u64(ahead)));
        }
        let result = consume(&ready, control, take);
        ready.stop();
        result
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

/// Windows that were decoded, by number.
#[derive(Default)]
struct Ready {
    state: Mutex<ReadyState>,
    changed: Condvar,
}

#[derive(Default)]
struct ReadyState {
    windows: BTreeMap<u64, Result<Vec<Decoded>>>,
    /// The window that is consumed next.
    next: u64,
    /// How many windows there are, once known.
    total: Option<u64>,
    stopped: bool,
}

impl Ready {
    fn stop(&self) {
        if let Ok(mut state) = self.state.lock() {
            state.stopped = true;
        }
        self.changed.notify_all();
    }
}

fn decode_ahead(inner: &Inner, control: &Control, source: &Mutex<(Windows<'_>, u64)>, ready: &Ready, ahead: u64) {
    let mut fetcher = Fetcher::new(inner, control);
    loop {
        let Ok(mut source) = source.lock() else { return };
        let number = source.1;
        // Wait until the window is near enough to what is consumed.
        {
            let Ok(mut state) = ready.state.lock() else { return };
            while !state.stopped && state.total.is_none() && number >= state.next.saturating_add(ahead) {
                let Ok(waited) = ready.changed.wait(state) else { return };
                state = waited;
            }
            if state.stopped || state.total.is_some() {
                return;
            }
        }
        let window = source.0.next_window();
        source.1 = number.saturating_add(1);
        if !matches!(window, Ok(Some(_)))
            && let Ok(mut state) = ready.state.lock()
        {
            // The end, or an error that stands where the window would: either is the last thing.
            state.total = Some(if window.is_ok() { number } else { source.1 });
        }
        drop(source);
        let decoded = match (window, &mut fetcher) {
            (Ok(None), _) => {
                ready.changed.notify_all();
                return;
            }
            (Ok(Some(window)), Ok(fetcher)) => decode(fetcher, inner, control, &window),
            (Ok(Some(_)), Err(_)) => Err(Error::Internal("a thread could not begin to decode")),
            (Err(error), _) => Err(error),
        };
        if let Ok(mut state) = ready.state.lock() {
            state.windows.insert(number, decoded);
        }
        ready.changed.notify_all();
    }
}

fn consume(ready: &Ready, control: &Control, take: &mut dyn FnMut(Decoded) -> Result<bool>) -> Result<()> {
    loop {
        control.cancel().check()?;
        let window = {
            let mut state = ready.state.lock().map_err(|_| POISONED)?;
            loop {
                let next = state.next;
                if let Some(window) = state.windows.remove(&next) {
                    state.next = next.saturating_add(1);
                    break window;
                }
                if state.total.is_some_and(|total| next >= total) {
                    return Ok(());
                }
                state = ready.changed.wait(state).map_err(|_| POISONED)?;
            }
        };
        ready.changed.notify_all();
        for piece in window? {
            if !take(piece)? {
                return Ok(());
            }
        }
    }
}

fn decode(fetcher: &mut Fetcher<'_>, inner: &Inner, control: &Control, window: &[Part]) -> Result<Vec<Decoded>> {
    control.cancel().check()?;
    let index = inner.index(control)?;
    let mut out: Vec<Decoded> =
        window.iter().map(|(_, part)| Decoded::Hole(part.end.saturating_sub(part.start))).collect();
    let positions: Vec<usize> = (0..window.len())
        .filter(|position| matches!(window.get(*position), Some((ChunkRef::Data { .. }, _))))
        .collect();
    let chunks = positions.iter().filter_map(|position| match window.get(*position) {
        Some((ChunkRef::Data { id, length }, _)) => Some((*id, *length)),
        _ => None,
    });
    let (packs, unknown) = group_by_pack(&index, chunks);
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
