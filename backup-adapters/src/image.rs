//! Disk images: raw image files and block devices as sources and targets.

mod sink;
mod source;

pub use self::sink::FileSink;
pub use self::source::ImageSource;
pub(crate) use self::source::device_length;
