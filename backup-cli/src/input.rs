//! Standard input as a source that an interrupt can stop, and small files with a limit.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use backup_core::progress::CancelToken;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zeroize::Zeroizing;

use crate::exit::Failure;

/// Standard input, unbuffered.
///
/// A blocked `read` cannot be stopped by a flag, so it only reads when there is something to read
/// and looks at the token while it waits.
pub(crate) struct StandardInput {
    file: File,
    cancel: CancelToken,
}

impl StandardInput {
    /// How long an interrupt may go unnoticed.
    const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

    pub(crate) fn new(cancel: CancelToken) -> io::Result<Self> {
        let file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self { file, cancel })
    }
}

impl Read for StandardInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.cancel.is_cancelled() {
                // Not `Interrupted`: readers take that as "try again".
                return Err(io::Error::other("interrupted"));
            }
            let mut wanted = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut wanted, Some(&Self::PATIENCE)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.file.read(buffer),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Standard output without a buffer of its own: content goes through in large pieces.
pub(crate) fn standard_output() -> Result<File, Failure> {
    io::stdout().as_fd().try_clone_to_owned().map(File::from).map_err(Failure::Output)
}

/// The bytes of a file that must not be large, wiped when dropped.
pub(crate) fn read_small(path: &Path, limit: u64, what: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |error| Failure::io(format!("cannot read {what} {}", path.display()), error);
    let file = File::open(path).map_err(failed)?;
    read_limited(file, limit).map_err(failed)
}

/// Everything a reader has, at most `limit` bytes. The buffer never moves, so that no copy of a secret
/// stays behind.
pub(crate) fn read_limited(reader: impl Read, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {limit} bytes"));
    let capacity = usize::try_from(limit).map_err(|_| too_large())?.saturating_add(1);
    let mut bytes = Zeroizing::new(vec![0; capacity]);
    let mut reader = reader.take(limit.saturating_add(1));
    let mut filled = 0;
    loop {
        match reader.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if filled == capacity {
        return Err(too_large());
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_inclusive() {
        assert_eq!(*read_limited(&b"abc"[..], 3).unwrap(), b"abc");
        assert_eq!(*read_limited(&b""[..], 3).unwrap(), b"");
        assert_eq!(read_limited(&b"abcd"[..], 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
