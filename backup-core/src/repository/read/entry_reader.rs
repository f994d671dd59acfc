//! Reading an entry like a file.

use std::io;
use std::sync::Arc;

use crate::content::{ChunkRef, Entry, Refs};
use crate::error::{Error, Result};
use crate::length::{to_u64, to_usize};
use crate::pack::ChunkKind;
use crate::repository::environment::Control;
use crate::repository::handle::{Inner, Repository};
use crate::repository::read::chunks::Fetcher;
use crate::repository::read::refuse_link;

/// The content of an entry as [`io::Read`] and [`io::Seek`]. Every chunk is checked when it is read.
///
/// Keeps one chunk in memory. Errors are [`io::Error`]s whose inner error is an
/// [`Error`](crate::Error); the reader can be used on, at another place for instance.
pub struct EntryReader {
    inner: Arc<Inner>,
    entry: Entry,
    position: u64,
    /// The piece that was read last, and where it begins.
    piece: Option<(u64, Piece)>,
}

enum Piece {
    Data(Vec<u8>),
    Hole(u64),
}

impl Repository {
    /// Opens an entry for reading anywhere.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a hard link, see
    /// [`content_entry`](Self::content_entry). [`Error::Storage`](crate::Error::Storage), [`Error::Damaged`](crate::Error::Damaged) where the index
    /// cannot be read.
    pub fn open_entry(&self, entry: &Entry) -> Result<EntryReader> {
        refuse_link(entry)?;
        self.inner.index(&Control::default())?;
        Ok(EntryReader { inner: Arc::clone(&self.inner), entry: entry.clone(), position: 0, piece: None })
    }
}

impl EntryReader {
    /// The entry.
    #[must_use]
    pub const fn entry(&self) -> &Entry {
        &self.entry
    }

    fn load(&mut self) -> Result<()> {
        let end = |begin: u64, piece: &Piece| match piece {
            Piece::Data(bytes) => begin.saturating_add(to_u64(bytes.len())),
            Piece::Hole(length) => begin.saturating_add(*length),
        };
        if let Some((begin, piece)) = &self.piece
            && (*begin..end(*begin, piece)).contains(&self.position)
        {
            return Ok(());
        }
        let range = self.position..self.position.saturating_add(1);
        let found = Refs::new(&self.entry.content, range, &*self.inner).next().transpose()?;
        let (offset, reference) =
            found.ok_or_else(|| Error::damaged("entry", &self.entry.path, "its references end before its content"))?;
        let piece = match reference {
            ChunkRef::Hole { length } => Piece::Hole(length),
            ChunkRef::Data { id, length } => {
                let control = Control::default();
                Piece::Data(Fetcher::new(&self.inner, &control)?.fetch_one(ChunkKind::Data, &id, length)?)
            }
        };
        self.piece = Some((offset, piece));
        Ok(())
    }
}

impl io::Read for EntryReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.entry.size() || buffer.is_empty() {
            return Ok(0);
        }
        self.load().map_err(io::Error::other)?;
        let Some((begin, piece)) = &self.piece else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        let skip = self.position.saturating_sub(*begin);
        let count = match piece {
            Piece::Data(bytes) => {
                let rest = bytes.get(to_usize(skip, "chunk").map_err(io::Error::other)?..).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                if let (Some(target), Some(source)) = (buffer.get_mut(..count), rest.get(..count)) {
                    target.copy_from_slice(source);
                }
                count
            }
            Piece::Hole(length) => {
                let left = length.saturating_sub(skip).min(to_u64(buffer.len()));
                let count = to_usize(left, "hole").map_err(io::Error::other)?;
                if let Some(target) = buffer.get_mut(..count) {
                    target.fill(0);
                }
                count
            }
        };
        self.position = self.position.saturating_add(to_u64(count));
        Ok(count)
    }
}

impl io::Seek for EntryReader {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let target = match to {
            io::SeekFrom::Start(offset) => Some(offset),
            io::SeekFrom::End(offset) => self.entry.size().checked_add_signed(offset),
            io::SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position =
            target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a position before the beginning"))?;
        Ok(self.position)
    }
}

impl std::fmt::Debug for EntryReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EntryReader")
            .field("path", &self.entry.path)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
