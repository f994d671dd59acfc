//! One content out of order: every pack is read once, and several threads write at offsets.

use std::ops::Range;
use std::sync::Mutex;

use crate::content::{ChunkRef, Entry, Refs};
use crate::error::{Error, Result};
use crate::extent::ExtentKind;
use crate::length::{to_u64, to_usize};
use crate::progress::Event;
use crate::repository::environment::Control;
use crate::repository::handle::Repository;
use crate::repository::parallel::{for_each, lock};
use crate::repository::read::chunks::{Fetcher, Wanted, unknown_chunk};
use crate::repository::read::refuse_link;
use crate::source::BlockSink;

/// References that are planned at a time: 256 GiB of an image at the default chunk size, in some tens of MiB.
const PLANNED: usize = 1 << 18;

impl Repository {
    /// Writes an entry's content to `sink`, in any order, from the threads of `control`, holes as holes.
    ///
    /// Every chunk is checked against its id; that they are the right chunks in the right places follows
    /// from the pages above them, which are checked as well. The digest of a stream is not computed here;
    /// [`restore_stream`](Self::restore_stream) does.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a hard link, see [`content_entry`](Self::content_entry).
    /// [`Error::Damaged`] naming the chunk: `sink` was not finished. [`Error::Sink`], [`Error::Storage`],
    /// [`Error::Cancelled`].
    pub fn restore_blocks(&self, entry: &Entry, sink: &dyn BlockSink, control: &Control) -> Result<()> {
        self.restore_blocks_in(entry, 0..entry.size(), sink, control)
    }

    /// The same for a range of the content: nothing outside of it is written, and `sink` is told of the whole length.
    pub(crate) fn restore_blocks_in(
        &self,
        entry: &Entry,
        range: Range<u64>,
        sink: &dyn BlockSink,
        control: &Control,
    ) -> Result<()> {
        refuse_link(entry)?;
        let inner = &*self.inner;
        let failed = |source| Error::Sink { name: entry.path.to_string(), source };
        sink.begin(entry.size()).map_err(failed)?;
        let mut refs = Refs::new(&entry.content, range.clone(), inner);
        loop {
            let mut offsets = Vec::new();
            let mut chunks = Vec::new();
            let mut seen = 0usize;
            for item in refs.by_ref().take(PLANNED) {
                seen = seen.saturating_add(1);
                match item? {
                    (offset, ChunkRef::Data { id, length }) => {
                        offsets.push(offset);
                        chunks.push((id, length));
                    }
                    (offset, ChunkRef::Hole { length }) => {
                        let end = offset.saturating_add(length).min(range.end);
                        let begin = offset.max(range.start);
                        let count = end.saturating_sub(begin);
                        sink.hole(begin, count).map_err(failed)?;
                        control.event(&Event::Bytes { count, kind: ExtentKind::Zero });
                    }
                }
            }
            if seen == 0 {
                break;
            }
            let (packs, unknown) = inner.locate(&chunks, control)?;
            if let Some((_, id)) = unknown.first() {
                return Err(unknown_chunk(id));
            }
            let jobs: Vec<Mutex<Vec<Wanted>>> = packs.into_values().map(Mutex::new).collect();
            for_each(control, jobs.len(), &|| Fetcher::new(inner, control), &|fetcher, number| {
                let Some(job) = jobs.get(number) else { return Ok(()) };
                let mut wanted = std::mem::take(&mut *lock(job)?);
                fetcher.fetch(&mut wanted, &mut |item, plain| {
                    let plain = plain?;
                    let offset = offsets.get(item.tag).copied().ok_or(Error::Internal("a chunk without a place"))?;
                    let end = offset.saturating_add(to_u64(plain.len())).min(range.end);
                    let begin = offset.max(range.start);
                    let place = |at: u64| to_usize(at.saturating_sub(offset), "chunk");
                    let wanted = plain.get(place(begin)?..place(end)?).unwrap_or_default();
                    sink.write_at(begin, wanted).map_err(failed)?;
                    control.event(&Event::Bytes { count: to_u64(wanted.len()), kind: ExtentKind::Data });
                    Ok(())
                })
            })?;
        }
        sink.finish(entry.size()).map_err(failed)
    }
}
