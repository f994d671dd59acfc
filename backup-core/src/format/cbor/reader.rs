//! Reading a validated document by its parts.

use std::fmt;

use super::validate::{split_item, validate};
use crate::error::{Error, Result};

/// The first map key that a reader may ignore.
const FIRST_IGNORABLE_KEY: u64 = 128;

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

    pub(super) fn peek(&self) -> Result<Option<(u64, Value<'b>, &'b [u8])>> {
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
