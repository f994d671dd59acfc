//! Ranges of a block device or sparse file, and what is known about them.

/// What a source says about a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// Data that must be read.
    Data,
    /// Reads as zeros; never read.
    Zero,
    /// The same bytes as in the parent backup; never read. Only valid where the parent was named.
    Unchanged,
}

/// A range of `length` bytes at `offset`, all of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Length in bytes, never 0.
    pub length: u64,
    /// What the range holds.
    pub kind: ExtentKind,
}

impl Extent {
    /// An extent of `kind`.
    #[must_use]
    pub const fn new(offset: u64, length: u64, kind: ExtentKind) -> Self {
        Self { offset, length, kind }
    }

    /// One past the last byte (saturating).
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}
