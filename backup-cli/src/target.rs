//! Results that are one file, written in order.

use std::io::{self, Write};
use std::path::Path;

use backup_adapters::FileSink;
use backup_adapters::tree::OverwritePolicy;
use backup_core::Error;
use backup_core::source::BlockSink;

use crate::exit::Failure;
use crate::input::standard_output;

/// A file that is written in order.
pub(crate) struct Sequential<'a> {
    sink: &'a FileSink,
    pub(crate) offset: u64,
}

impl<'a> Sequential<'a> {
    pub(crate) const fn new(sink: &'a FileSink) -> Self {
        Self { sink, offset: 0 }
    }
}

impl Write for Sequential<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.sink.write_at(self.offset, data)?;
        self.offset += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A pipe or a device such as a tape: written from the beginning to the end, never replaced.
pub(crate) fn takes_a_stream(target: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(target).is_ok_and(|metadata| {
        let kind = metadata.file_type();
        kind.is_fifo() || kind.is_char_device()
    })
}

/// Writes a new file that is durable and whole before it has its name; a pipe or device as it comes; standard output for `-`.
pub(crate) fn write_file<T>(
    target: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T, Error>,
) -> Result<T, Failure> {
    if target.as_os_str() == "-" {
        return write(&mut standard_output()?).map_err(Failure::to_stdout);
    }
    let name = target.display().to_string();
    let failed = |source: io::Error| {
        let exists = source.kind() == io::ErrorKind::AlreadyExists;
        let plain = || io::Error::new(source.kind(), "it exists already");
        let source = if exists { plain() } else { source };
        Error::Sink { name: name.clone(), source }
    };
    // The engine knows what it writes, people look for the file.
    let renamed = |error| if let Error::Sink { source, .. } = error { failed(source) } else { error };
    if takes_a_stream(target) {
        let mut out = std::fs::OpenOptions::new().write(true).open(target).map_err(failed)?;
        return Ok(write(&mut out).map_err(renamed)?);
    }
    let sink = FileSink::create(target, OverwritePolicy::Refuse).map_err(failed)?.with_sync(true);
    let mut out = Sequential::new(&sink);
    let result = write(&mut out).map_err(renamed)?;
    let length = out.offset;
    sink.finish(length).map_err(failed)?;
    Ok(result)
}
