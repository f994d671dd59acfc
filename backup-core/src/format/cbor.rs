//! The strict deterministic CBOR profile of every structured body (`docs/format.md`, "Structured bodies").
//!
//! A document is validated as a whole before anything of it is used: one item, definite lengths,
//! shortest integers, map keys unsigned and strictly ascending, text in UTF-8, nothing but unsigned
//! and negative integers of 64 bits, byte and text strings, booleans, arrays and maps, nested at most
//! [`CBOR_DEPTH`](crate::limits::CBOR_DEPTH) deep, no byte behind it. So every document has exactly
//! one encoding, and readers of parts can rely on it. Nothing is allocated for a count.
//!
//! ```text
//! let bytes = cbor::encode_map(|map| {
//!     map.u64(1, 7);
//!     map.array(2, |array| { array.bytes(b"x"); array.map(|inner| inner.text(1, "y")); });
//! })?;
//! let mut map = cbor::decode(&bytes, "commit", &key)?.map()?;
//! let number = map.required(1)?.u64()?;
//! for value in map.required(2)?.array()? { ... }
//! let digest = map.optional(3)?.map(|value| value.fixed::<32>()).transpose()?;
//! map.finish()?;
//! ```
//!
//! Fields are read in ascending order of their keys. An unknown key below 128 is an error: it changes
//! the meaning of the body. An unknown key from 128 on is skipped: later versions add information there.

use std::fmt;

use minicbor::data::Type;

use crate::error::{Error, Result};
use crate::length::to_u64;
use crate::limits::CBOR_DEPTH;

/// The first map key that a reader may ignore.
pub(crate) const FIRST_IGNORABLE_KEY: u64 = 128;

/// Validates `bytes` against the profile and returns the one item they hold.
///
/// # Errors
///
/// [`Error::Damaged`] with `what` and `name` and the rule that is broken.
pub(crate) fn decode<'b>(bytes: &'b [u8], what: &'static str, name: &'b dyn fmt::Display) -> Result<Value<'b>> {
    match validate(bytes) {
        Ok(()) => Ok(Value { bytes, context: Context { what, name } }),
        Err(reason) => Err(Error::damaged(what, name, reason)),
    }
}

/// Checks that `bytes` are one item of the profile and nothing else. The error is the broken rule.
pub(crate) fn validate(bytes: &[u8]) -> Result<(), String> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let mut open: [Container; CBOR_DEPTH] = [Container::CLOSED; CBOR_DEPTH];
    let mut depth = 0usize;
    loop {
        let start = decoder.position();
        let opened = item(&mut decoder)?;
        if let Some(container) = depth.checked_sub(1).and_then(|inner| open.get_mut(inner)) {
            container.accept(opened.key).map_err(|rule| format!("{rule} at byte {start}"))?;
        }
        if let Some(container) = opened.container {
            // Every item takes a byte: a count that cannot be true is refused before it is counted down.
            if container.remaining > to_u64(bytes.len().saturating_sub(decoder.position())) {
                return Err(format!("more items than bytes are announced at byte {start}"));
            }
            let slot = open.get_mut(depth).ok_or_else(|| format!("nested deeper than {CBOR_DEPTH} at byte {start}"))?;
            *slot = container;
            depth = depth.saturating_add(1);
        }
        while depth.checked_sub(1).and_then(|inner| open.get(inner)).is_some_and(|container| container.remaining == 0) {
            depth = depth.saturating_sub(1);
        }
        if depth == 0 {
            let end = decoder.position();
            return if end == bytes.len() {
                Ok(())
            } else {
                Err(format!("bytes follow the item that ends at byte {end}"))
            };
        }
    }
}

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

/// What a document is called in errors.
#[derive(Clone, Copy)]
struct Context<'b> {
    what: &'static str,
    name: &'b dyn fmt::Display,
}

impl Context<'_> {
    fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::damaged(self.what, self.name, reason)
    }
}

/// One validated item: a number, string, boolean, array or map.
#[derive(Clone, Copy)]
pub(crate) struct Value<'b> {
    /// Exactly the bytes of the item.
    bytes: &'b [u8],
    context: Context<'b>,
}

impl<'b> Value<'b> {
    /// An unsigned integer.
    pub(crate) fn u64(self) -> Result<u64> {
        self.read(minicbor::Decoder::u64)
    }

    /// An unsigned integer of 32 bits.
    pub(crate) fn u32(self) -> Result<u32> {
        self.read(minicbor::Decoder::u32)
    }

    /// An unsigned integer of 8 bits.
    pub(crate) fn u8(self) -> Result<u8> {
        self.read(minicbor::Decoder::u8)
    }

    /// A signed integer.
    pub(crate) fn i64(self) -> Result<i64> {
        self.read(minicbor::Decoder::i64)
    }

    /// A boolean.
    pub(crate) fn bool(self) -> Result<bool> {
        self.read(minicbor::Decoder::bool)
    }

    /// A byte string.
    pub(crate) fn bytes(self) -> Result<&'b [u8]> {
        self.read(minicbor::Decoder::bytes)
    }

    /// A byte string of exactly `N` bytes.
    pub(crate) fn fixed<const N: usize>(self) -> Result<[u8; N]> {
        let bytes = self.bytes()?;
        bytes.try_into().map_err(|_| self.damaged(format!("a byte string of {} bytes where {N} must be", bytes.len())))
    }

    /// A text string.
    pub(crate) fn text(self) -> Result<&'b str> {
        self.read(minicbor::Decoder::str)
    }

    /// An array, item by item.
    pub(crate) fn array(self) -> Result<ArrayReader<'b>> {
        let (remaining, items) = self.open(minicbor::Decoder::array)?;
        Ok(ArrayReader { remaining, items, context: self.context })
    }

    /// A map, field by field.
    pub(crate) fn map(self) -> Result<MapReader<'b>> {
        let (remaining, fields) = self.open(minicbor::Decoder::map)?;
        Ok(MapReader { remaining, fields, context: self.context })
    }

    /// [`Error::Damaged`] for the document this value is part of: for rules beyond CBOR.
    pub(crate) fn damaged(&self, reason: impl Into<String>) -> Error {
        self.context.damaged(reason)
    }

    fn read<T>(self, read: impl FnOnce(&mut minicbor::Decoder<'b>) -> Result<T, minicbor::decode::Error>) -> Result<T> {
        read(&mut minicbor::Decoder::new(self.bytes)).map_err(|error| self.damaged(error.to_string()))
    }

    fn open(
        self,
        read: impl FnOnce(&mut minicbor::Decoder<'b>) -> Result<Option<u64>, minicbor::decode::Error>,
    ) -> Result<(u64, &'b [u8])> {
        let mut decoder = minicbor::Decoder::new(self.bytes);
        let count = read(&mut decoder).map_err(|error| self.damaged(error.to_string()))?;
        let items = self.bytes.get(decoder.position()..).unwrap_or_default();
        count.map(|count| (count, items)).ok_or_else(|| self.damaged("indefinite length"))
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes may hold secrets (a keyring).
        write!(f, "Value({} bytes of {} {})", self.bytes.len(), self.context.what, self.context.name)
    }
}

/// The items of an array, in order.
#[derive(Clone)]
pub(crate) struct ArrayReader<'b> {
    remaining: u64,
    items: &'b [u8],
    context: Context<'b>,
}

impl<'b> ArrayReader<'b> {
    /// How many items are left. Bounded by the bytes of the document.
    pub(crate) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The next item, which must exist.
    pub(crate) fn required(&mut self) -> Result<Value<'b>> {
        self.next().ok_or_else(|| self.context.damaged("an array ends early"))
    }

    /// Requires that no item is left.
    pub(crate) fn finish(self) -> Result<()> {
        match self.remaining {
            0 => Ok(()),
            count => Err(self.context.damaged(format!("{count} items too many in an array"))),
        }
    }

    /// [`Error::Damaged`] for the document this array is part of.
    pub(crate) fn damaged(&self, reason: impl Into<String>) -> Error {
        self.context.damaged(reason)
    }
}

impl<'b> Iterator for ArrayReader<'b> {
    type Item = Value<'b>;

    fn next(&mut self) -> Option<Value<'b>> {
        self.remaining = self.remaining.checked_sub(1)?;
        let (bytes, rest) = split_item(self.items)?;
        self.items = rest;
        Some(Value { bytes, context: self.context })
    }
}

/// The fields of a map, asked for in ascending order of their keys.
#[derive(Clone)]
pub(crate) struct MapReader<'b> {
    remaining: u64,
    fields: &'b [u8],
    context: Context<'b>,
}

impl<'b> MapReader<'b> {
    /// The field `key`, which must exist.
    pub(crate) fn required(&mut self, key: u64) -> Result<Value<'b>> {
        self.optional(key)?.ok_or_else(|| self.context.damaged(format!("field {key} is missing")))
    }

    /// The field `key` where it exists.
    pub(crate) fn optional(&mut self, key: u64) -> Result<Option<Value<'b>>> {
        while let Some((found, value, rest)) = self.peek()? {
            if found > key {
                break;
            }
            self.remaining = self.remaining.saturating_sub(1);
            self.fields = rest;
            if found == key {
                return Ok(Some(value));
            }
            self.check_ignorable(found)?;
        }
        Ok(None)
    }

    /// Requires that no field is left that a reader has to understand.
    pub(crate) fn finish(mut self) -> Result<()> {
        while let Some((found, _, rest)) = self.peek()? {
            self.check_ignorable(found)?;
            self.remaining = self.remaining.saturating_sub(1);
            self.fields = rest;
        }
        Ok(())
    }

    /// [`Error::Damaged`] for the document this map is part of: for rules beyond CBOR.
    pub(crate) fn damaged(&self, reason: impl Into<String>) -> Error {
        self.context.damaged(reason)
    }

    fn peek(&self) -> Result<Option<(u64, Value<'b>, &'b [u8])>> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let malformed = || self.context.damaged("a map ends early");
        let (key, rest) = split_item(self.fields).ok_or_else(malformed)?;
        let (bytes, rest) = split_item(rest).ok_or_else(malformed)?;
        let key = Value { bytes: key, context: self.context }.u64()?;
        Ok(Some((key, Value { bytes, context: self.context }, rest)))
    }

    fn check_ignorable(&self, key: u64) -> Result<()> {
        if key < FIRST_IGNORABLE_KEY {
            return Err(self.context.damaged(format!("field {key} is unknown")));
        }
        Ok(())
    }
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

    fn key(&mut self, key: u64) -> &mut Output {
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

    fn item(&mut self) -> &mut Output {
        self.count = self.count.saturating_add(1);
        self.output
    }
}

/// The bytes written so far.
struct Output {
    bytes: Vec<u8>,
    depth: usize,
    invalid: bool,
}

impl Output {
    fn u64(&mut self, value: u64) {
        self.invalid |= minicbor::Encoder::new(&mut self.bytes).u64(value).is_err();
    }

    fn i64(&mut self, value: i64) {
        self.invalid |= minicbor::Encoder::new(&mut self.bytes).i64(value).is_err();
    }

    fn bool(&mut self, value: bool) {
        self.invalid |= minicbor::Encoder::new(&mut self.bytes).bool(value).is_err();
    }

    fn bytes(&mut self, value: &[u8]) {
        self.invalid |= minicbor::Encoder::new(&mut self.bytes).bytes(value).is_err();
    }

    fn text(&mut self, value: &str) {
        self.invalid |= minicbor::Encoder::new(&mut self.bytes).str(value).is_err();
    }

    fn array(&mut self, fill: impl FnOnce(&mut ArrayWriter<'_>)) {
        let start = self.open();
        let mut writer = ArrayWriter { output: &mut *self, count: 0 };
        fill(&mut writer);
        let count = writer.count;
        self.close(start, |head| head.array(count).map(drop));
    }

    fn map(&mut self, fill: impl FnOnce(&mut MapWriter<'_>)) {
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

/// An array or map whose items are being validated.
#[derive(Clone, Copy)]
struct Container {
    /// Items to come; a map has two for each field.
    remaining: u64,
    is_map: bool,
    last_key: Option<u64>,
}

impl Container {
    const CLOSED: Self = Self { remaining: 0, is_map: false, last_key: None };

    /// Counts one item; the first of every pair of a map must be a key larger than the one before.
    fn accept(&mut self, key: Option<u64>) -> Result<(), &'static str> {
        if self.is_map && self.remaining.is_multiple_of(2) {
            match (key, self.last_key) {
                (None, _) => return Err("a map key that is no unsigned integer"),
                (Some(key), Some(last)) if key <= last => return Err("map keys not strictly ascending"),
                (key, _) => self.last_key = key,
            }
        }
        self.remaining = self.remaining.saturating_sub(1);
        Ok(())
    }
}

/// What was read: a scalar or string (whole), or the head of a container.
struct Item {
    /// The value of an unsigned integer.
    key: Option<u64>,
    container: Option<Container>,
}

impl Item {
    const OTHER: Self = Self { key: None, container: None };
}

/// Reads a whole scalar or string, or the head of an array or map, in its one allowed encoding.
fn item(decoder: &mut minicbor::Decoder<'_>) -> Result<Item, String> {
    let start = decoder.position();
    let malformed = |error: minicbor::decode::Error| format!("malformed at byte {start}: {error}");
    // `number` is what the head encodes, `content` the bytes behind the head.
    let (number, content, read) = match decoder.datatype().map_err(malformed)? {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => {
            let value = decoder.u64().map_err(malformed)?;
            (value, 0, Item { key: Some(value), container: None })
        }
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => {
            let value = decoder.i64().map_err(malformed)?;
            (u64::try_from(!value).unwrap_or(u64::MAX), 0, Item::OTHER)
        }
        Type::Bytes => {
            let length = decoder.bytes().map_err(malformed)?.len();
            (to_u64(length), length, Item::OTHER)
        }
        Type::String => {
            let length = decoder.str().map_err(malformed)?.len();
            (to_u64(length), length, Item::OTHER)
        }
        Type::Bool => {
            decoder.bool().map_err(malformed)?;
            (0, 0, Item::OTHER)
        }
        Type::Array => {
            let count = decoder.array().map_err(malformed)?.unwrap_or(u64::MAX);
            let container = Container { remaining: count, is_map: false, last_key: None };
            (count, 0, Item { key: None, container: Some(container) })
        }
        Type::Map => {
            let count = decoder.map().map_err(malformed)?.unwrap_or(u64::MAX);
            let container = Container { remaining: count.saturating_mul(2), is_map: true, last_key: None };
            (count, 0, Item { key: None, container: Some(container) })
        }
        other => return Err(format!("{other} is not allowed, at byte {start}")),
    };
    let head = decoder.position().saturating_sub(start).saturating_sub(content);
    if head != shortest_head(number) {
        return Err(format!("a number not in its shortest form at byte {start}"));
    }
    Ok(read)
}

/// How many bytes the head of an item takes.
const fn shortest_head(number: u64) -> usize {
    match number {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// The first item of validated bytes, with all that is nested in it, and the bytes behind it.
fn split_item(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let mut pending = 1u64;
    while pending > 0 {
        let nested = item(&mut decoder).ok()?.container.map_or(0, |container| container.remaining);
        pending = pending.saturating_sub(1).checked_add(nested)?;
    }
    bytes.split_at_checked(decoder.position())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything the profile can express.
    #[derive(Clone, Debug, PartialEq)]
    enum Tree {
        Number(i128),
        Bool(bool),
        Bytes(Vec<u8>),
        Text(String),
        Array(Vec<Tree>),
        Map(std::collections::BTreeMap<u64, Tree>),
    }

    impl Tree {
        fn of(value: Value<'_>) -> Self {
            if let Ok(number) = value.u64() {
                Self::Number(number.into())
            } else if let Ok(number) = value.i64() {
                Self::Number(number.into())
            } else if let Ok(bool) = value.bool() {
                Self::Bool(bool)
            } else if let Ok(bytes) = value.bytes() {
                Self::Bytes(bytes.to_vec())
            } else if let Ok(text) = value.text() {
                Self::Text(text.to_owned())
            } else if let Ok(array) = value.array() {
                let count = array.remaining();
                let items: Vec<_> = array.map(Self::of).collect();
                assert_eq!(to_u64(items.len()), count);
                Self::Array(items)
            } else {
                let mut map = value.map().unwrap();
                let mut fields = std::collections::BTreeMap::new();
                while let Some((key, _, _)) = map.peek().unwrap() {
                    fields.insert(key, Self::of(map.required(key).unwrap()));
                }
                map.finish().unwrap();
                Self::Map(fields)
            }
        }

        fn write(&self, output: &mut Output) {
            match self {
                Self::Number(number) => match u64::try_from(*number) {
                    Ok(number) => output.u64(number),
                    Err(_) => output.i64(i64::try_from(*number).unwrap()),
                },
                Self::Bool(bool) => output.bool(*bool),
                Self::Bytes(bytes) => output.bytes(bytes),
                Self::Text(text) => output.text(text),
                Self::Array(items) => output.array(|array| items.iter().for_each(|item| item.write(array.item()))),
                Self::Map(fields) => output.map(|map| fields.iter().for_each(|(key, item)| item.write(map.key(*key)))),
            }
        }

        fn encode(&self) -> Vec<u8> {
            let mut output = Output { bytes: Vec::new(), depth: 0, invalid: false };
            self.write(&mut output);
            assert!(!output.invalid);
            output.bytes
        }
    }

    fn tree() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            (-1i128 - i128::from(i64::MAX)..=i128::from(u64::MAX)).prop_map(Tree::Number),
            (-300i128..300).prop_map(Tree::Number),
            any::<bool>().prop_map(Tree::Bool),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Tree::Bytes),
            ".{0,12}".prop_map(Tree::Text),
        ];
        leaf.prop_recursive(5, 60, 30, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..30).prop_map(Tree::Array),
                proptest::collection::btree_map(prop_oneof![any::<u64>(), 0u64..300], inner, 0..30).prop_map(Tree::Map),
            ]
        })
    }

    /// What is accepted re-encodes to the same bytes: there is no second encoding of anything.
    fn assert_canonical(bytes: &[u8]) {
        if let Ok(value) = decode(bytes, "test", &"t") {
            assert_eq!(Tree::of(value).encode(), bytes, "{bytes:02x?}");
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn what_is_written_is_read(tree in tree()) {
            let bytes = tree.encode();
            prop_assert_eq!(Tree::of(decode(&bytes, "test", &"t").unwrap()), tree);
        }

        #[test]
        fn a_changed_byte_is_rejected_or_another_canonical_document(
            tree in tree(), position in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = tree.encode();
            let position = position.index(bytes.len());
            bytes[position] = byte;
            assert_canonical(&bytes);
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            assert_canonical(&bytes);
        }

        #[test]
        fn truncated_and_extended_documents_are_rejected(tree in tree(), more in any::<u8>()) {
            let mut bytes = tree.encode();
            for end in 0..bytes.len() {
                prop_assert!(validate(&bytes[..end]).is_err(), "{end}");
            }
            bytes.push(more);
            prop_assert!(validate(&bytes).is_err());
        }
    }

    #[test]
    fn every_short_input_is_canonical_or_rejected() {
        for first in 0..=255 {
            assert_canonical(&[first]);
            for second in 0..=255 {
                assert_canonical(&[first, second]);
                for third in (0..=255).step_by(5) {
                    assert_canonical(&[first, second, third]);
                }
            }
        }
    }

    #[test]
    fn what_the_profile_excludes_is_rejected() {
        for (bytes, rule) in [
            ("", "nothing"),
            ("18 17", "23 in two bytes"),
            ("19 00ff", "255 in three bytes"),
            ("1a 0000ffff", "65535 in five bytes"),
            ("1b 00000000ffffffff", "2^32-1 in nine bytes"),
            ("38 17", "-24 in two bytes"),
            ("39 00ff", "-256 in three bytes"),
            ("3b ffffffffffffffff", "-2^64"),
            ("58 01 00", "length of a byte string in two bytes"),
            ("78 01 61", "length of a text in two bytes"),
            ("98 01 00", "count of an array in two bytes"),
            ("b8 01 00 00", "count of a map in two bytes"),
            ("5f 41 00 ff", "indefinite byte string"),
            ("7f 61 61 ff", "indefinite text"),
            ("9f 00 ff", "indefinite array"),
            ("bf 00 00 ff", "indefinite map"),
            ("f6", "null"),
            ("f7", "undefined"),
            ("f0", "simple value"),
            ("f8 20", "simple value in two bytes"),
            ("f8 14", "false in two bytes"),
            ("f9 0000", "half float"),
            ("fa 00000000", "float"),
            ("fb 0000000000000000", "double"),
            ("c0 61 61", "tag"),
            ("d8 2a 00", "tag in two bytes"),
            ("ff", "break"),
            ("1c", "reserved"),
            ("62 c3 28", "text that is not UTF-8"),
            ("61 ff", "text that is not UTF-8"),
            ("a2 01 00 01 00", "duplicate key"),
            ("a2 02 00 01 00", "descending keys"),
            ("a1 20 00", "negative key"),
            ("a1 61 61 00", "text key"),
            ("a1 40 00", "byte key"),
            ("a1 80 00", "array key"),
            ("a1 01", "key without a value"),
            ("82 00", "array that ends early"),
            ("41", "byte string that ends early"),
            ("00 00", "trailing byte"),
            ("9b 7fffffffffffffff 00", "2^63 items"),
            ("bb ffffffffffffffff 00 00", "2^64 fields"),
            ("5b 7fffffffffffffff 00", "2^63 bytes"),
            ("81 81 81 81 81 81 81 81 80", "depth of nine"),
            ("81 81 81 81 81 81 81 81 a0", "depth of nine"),
        ] {
            assert!(validate(&hex(bytes)).is_err(), "{rule}: {bytes}");
        }
        for bytes in ["00", "20", "40", "60", "80", "a0", "f4", "f5", "81 81 81 81 81 81 81 80", "a2 01 00 18 80 00"] {
            validate(&hex(bytes)).unwrap();
        }
    }

    #[test]
    fn fields_are_read_in_order_and_unknown_ones_judged() {
        let bytes = encode_map(|map| {
            map.u64(1, 7);
            map.text(3, "three");
            map.i64(4, -5);
            map.bytes(5, b"12345678");
            map.array(6, |array| {
                array.u64(1);
                array.map(|inner| inner.bool(1, true));
            });
            map.u64(200, 1);
        })
        .unwrap();
        let read = |keys: &[u64]| -> Result<()> {
            let mut map = decode(&bytes, "test", &"t")?.map()?;
            for key in keys {
                map.required(*key)?;
            }
            map.finish()
        };
        read(&[1, 3, 4, 5, 6]).unwrap();
        read(&[1, 3, 4, 5, 6, 200]).unwrap();
        let reason = |keys: &[u64]| read(keys).unwrap_err().to_string();
        assert_eq!(reason(&[1, 2]), "damaged test t: field 2 is missing");
        assert_eq!(reason(&[1, 4]), "damaged test t: field 3 is unknown");
        assert_eq!(reason(&[1, 3, 4, 5]), "damaged test t: field 6 is unknown");
        assert_eq!(reason(&[1, 3, 4, 5, 6, 201]), "damaged test t: field 201 is missing");

        let mut map = decode(&bytes, "test", &"t").unwrap().map().unwrap();
        assert_eq!(map.required(1).unwrap().u64().unwrap(), 7);
        assert!(map.optional(2).unwrap().is_none());
        assert_eq!(map.required(3).unwrap().text().unwrap(), "three");
        let minus_five = map.required(4).unwrap();
        assert_eq!(minus_five.i64().unwrap(), -5);
        assert!(minus_five.u64().is_err() && minus_five.text().is_err() && minus_five.map().is_err());
        let eight = map.required(5).unwrap();
        assert_eq!(eight.fixed::<8>().unwrap(), *b"12345678");
        assert!(eight.fixed::<7>().is_err());
        let mut array = map.required(6).unwrap().array().unwrap();
        assert_eq!(array.required().unwrap().u8().unwrap(), 1);
        assert!(array.clone().finish().is_err());
        assert!(array.required().unwrap().map().unwrap().required(1).unwrap().bool().unwrap());
        assert!(array.required().is_err());
        array.finish().unwrap();
    }

    #[test]
    fn heads_of_long_containers_are_put_in_place() {
        for count in [0u64, 1, 23, 24, 255, 256, 70_000] {
            let bytes =
                encode_map(|map| map.array(0, |array| (0..count).for_each(|number| array.u64(number)))).unwrap();
            let array = decode(&bytes, "test", &"t").unwrap().map().unwrap().required(0).unwrap().array().unwrap();
            assert_eq!(array.remaining(), count);
            assert!(array.map(|value| value.u64().unwrap()).eq(0..count));
        }
    }

    #[test]
    fn writing_against_the_profile_is_an_error() {
        let descending = encode_map(|map| {
            map.u64(2, 0);
            map.u64(1, 0);
        });
        assert!(matches!(descending, Err(Error::Internal(_))));
        let twice = encode_map(|map| {
            map.u64(1, 0);
            map.u64(1, 0);
        });
        assert!(matches!(twice, Err(Error::Internal(_))));
        fn nest(array: &mut ArrayWriter<'_>, levels: usize) {
            if levels > 0 {
                array.array(|inner| nest(inner, levels - 1));
            }
        }
        assert!(encode_map(|map| map.array(0, |array| nest(array, 6))).is_ok());
        assert!(encode_map(|map| map.array(0, |array| nest(array, 7))).is_err());
    }
}
