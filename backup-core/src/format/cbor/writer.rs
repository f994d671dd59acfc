//! Writing a document in its one encoding.

use crate::error::{Error, Result};
use crate::limits::CBOR_DEPTH;

/// Encodes a map as a document of its own.
///
/// # Errors
///
/// [`Error::Internal`] where keys were not written in ascending order or nesting was too deep.
pub(crate) fn encode_map(fill: impl FnOnce(&mut MapWriter<'_>)) -> Result<Vec<u8>> {
    encode_map_with_capacity(0, fill)
}

/// [`encode_map`] into a buffer that does not grow, and so leaves no copies, up to `capacity` bytes.
///
/// # Errors
///
/// Those of [`encode_map`].
pub(crate) fn encode_map_with_capacity(capacity: usize, fill: impl FnOnce(&mut MapWriter<'_>)) -> Result<Vec<u8>> {
    let mut output = Output { bytes: Vec::with_capacity(capacity), depth: 0, invalid: false };
    output.map(fill);
    if output.invalid {
        return Err(Error::Internal("a structured body was written against its profile"));
    }
    Ok(output.bytes)
}

/// Writes the fields of a map, in strictly ascending order of their keys.
pub(crate) struct MapWriter<'o> {
    output: &'o mut Output,
    count: u64,
    last: Option<u64>,
}

impl MapWriter<'_> {
    /// An unsigned integer.
    pub(crate) fn u64(&mut self, key: u64, value: u64) {
        self.key(key).u64(value);
    }

    /// A signed integer.
    pub(crate) fn i64(&mut self, key: u64, value: i64) {
        self.key(key).i64(value);
    }

    /// A boolean.
    pub(crate) fn bool(&mut self, key: u64, value: bool) {
        self.key(key).bool(value);
    }

    /// A byte string.
    pub(crate) fn bytes(&mut self, key: u64, value: &[u8]) {
        self.key(key).bytes(value);
    }

    /// A text string.
    pub(crate) fn text(&mut self, key: u64, value: &str) {
        self.key(key).text(value);
    }

    /// An array.
    pub(crate) fn array(&mut self, key: u64, fill: impl FnOnce(&mut ArrayWriter<'_>)) {
        self.key(key).array(fill);
    }

    /// A map.
    pub(crate) fn map(&mut self, key: u64, fill: impl FnOnce(&mut MapWriter<'_>)) {
        self.key(key).map(fill);
    }

    pub(super) fn key(&mut self, key: u64) -> &mut Output {
        if self.last.is_some_and(|last| last >= key) {
            self.output.invalid = true;
        }
        self.last = Some(key);
        self.count = self.count.saturating_add(1);
        self.output.u64(key);
        self.output
    }
}

/// Writes the items of an array.
pub(crate) struct ArrayWriter<'o> {
    output: &'o mut Output,
    count: u64,
}

impl ArrayWriter<'_> {
    /// An unsigned integer.
    pub(crate) fn u64(&mut self, value: u64) {
        self.item().u64(value);
    }

    /// A signed integer.
    pub(crate) fn i64(&mut self, value: i64) {
        self.item().i64(value);
    }

    /// A byte string.
    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.item().bytes(value);
    }

    /// A text string.
    pub(crate) fn text(&mut self, value: &str) {
        self.item().text(value);
    }

    /// An array.
    pub(crate) fn array(&mut self, fill: impl FnOnce(&mut ArrayWriter<'_>)) {
        self.item().array(fill);
    }

    #[cfg(test)]
    /// A map.
    pub(crate) fn map(&mut self, fill: impl FnOnce(&mut MapWriter<'_>)) {
        self.item().map(fill);
    }

    pub(super) fn item(&mut self) -> &mut Output {
        self.count = self.count.saturating_add(1);
        self.output
    }
}

/// The bytes written so far.
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    pub(super) depth: usize,
    pub(super) invalid: bool,
}

impl Output {
    pub(super) fn u64(&mut self, value: u64) {
        self.invalid |= minicbor::Encoder::new(&mut self.bytes).u64(value).is_err();
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.invalid |= minicbor::Encoder::new(&mut self.bytes).i64(value).is_err();
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.invalid |= minicbor::Encoder::new(&mut self.bytes).bool(value).is_err();
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.invalid |= minicbor::Encoder::new(&mut self.bytes).bytes(value).is_err();
    }

    pub(super) fn text(&mut self, value: &str) {
        self.invalid |= minicbor::Encoder::new(&mut self.bytes).str(value).is_err();
    }

    pub(super) fn array(&mut self, fill: impl FnOnce(&mut ArrayWriter<'_>)) {
        let start = self.open();
        let mut writer = ArrayWriter { output: &mut *self, count: 0 };
        fill(&mut writer);
        let count = writer.count;
        self.close(start, |head| head.array(count).map(drop));
    }

    pub(super) fn map(&mut self, fill: impl FnOnce(&mut MapWriter<'_>)) {
        let start = self.open();
        let mut writer = MapWriter { output: &mut *self, count: 0, last: None };
        fill(&mut writer);
        let count = writer.count;
        self.close(start, |head| head.map(count).map(drop));
    }

    /// Leaves one byte for the head, which suffices for up to 23 items.
    fn open(&mut self) -> usize {
        self.depth = self.depth.saturating_add(1);
        self.invalid |= self.depth > CBOR_DEPTH;
        let start = self.bytes.len();
        self.bytes.push(0);
        start
    }

    fn close(
        &mut self,
        start: usize,
        write: impl FnOnce(&mut minicbor::Encoder<&mut Vec<u8>>) -> Result<(), HeadError>,
    ) {
        self.depth = self.depth.saturating_sub(1);
        let mut head = Vec::with_capacity(9);
        self.invalid |= write(&mut minicbor::Encoder::new(&mut head)).is_err();
        self.bytes.splice(start..=start, head);
    }
}

/// Writing to a vector does not fail.
type HeadError = minicbor::encode::Error<std::convert::Infallible>;
