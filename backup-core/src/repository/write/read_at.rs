//! Reading a file that may become shorter meanwhile.

use std::io;

use crate::length::{to_u64, to_usize};
use crate::source::BlockSource;

/// A file's bytes in order, up to a length, or up to where it ends by now.
pub(crate) struct ReadAt<'a> {
    source: &'a dyn BlockSource,
    position: u64,
    end: u64,
    /// It ended before that length.
    pub(crate) ended_early: bool,
}

impl<'a> ReadAt<'a> {
    /// The bytes from `position` to `end`.
    pub(crate) fn new(source: &'a dyn BlockSource, position: u64, end: u64) -> Self {
        Self { source, position, end, ended_early: false }
    }
}

impl io::Read for ReadAt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut want = to_u64(buffer.len()).min(self.end.saturating_sub(self.position));
        while want > 0 {
            let count = to_usize(want, "read").map_err(io::Error::other)?;
            let Some(target) = buffer.get_mut(..count) else { break };
            match self.source.read_at(self.position, target) {
                Ok(()) => {
                    self.position = self.position.saturating_add(want);
                    return Ok(count);
                }
                // It was truncated meanwhile: halve until what is left fits.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.ended_early = true;
                    want /= 2;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(0)
    }
}
