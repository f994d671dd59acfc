//! Files and directories as sources and targets.
//!
//! # What entries are called
//!
//! The entry of a root `/a/b` is `a/b`, that of a relative root `p` is `p`; the contents of the
//! roots `.` and `/` stand at the top. The directories above a root are not entries; restoring makes
//! them. A root with `..` is refused.
//!
//! # What is read
//!
//! Regular files (with their holes), directories, symbolic links (never followed, roots
//! neither), named pipes and device nodes. Sockets are left out silently: they mean nothing without
//! the process that made them. A block device that is itself a root is read as a disk. Names of one
//! file are recognized as hard links. Files without read permission are problems of their own,
//! and the walk goes on.
//!
//! Every step goes from an open directory to its child without following links, on reading and on
//! restoring: whatever a backup contains and whoever plants links meanwhile, nothing outside the root
//! is read and nothing outside the target is written.

mod file;
pub(crate) mod metadata;
mod root;
mod selection;
mod sink;
mod source;

pub use self::selection::{IMAGE_EXTENSIONS, SourceOptions};
pub use self::sink::{EXISTS, FileTreeSink, OverwritePolicy, SinkOptions};
pub use self::source::FileTreeSource;
