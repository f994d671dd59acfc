//! Disk images: raw image files and block devices as sources and targets.

mod shared;
mod sink;
mod source;

pub use self::shared::SharedFile;
pub use self::sink::FileSink;
pub use self::source::ImageSource;
pub(crate) use self::source::device_length;
