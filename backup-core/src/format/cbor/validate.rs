//! Whether bytes are a document of the profile.

use minicbor::data::Type;

use crate::length::to_u64;
use crate::limits::CBOR_DEPTH;

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
pub(super) fn split_item(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let mut pending = 1u64;
    while pending > 0 {
        let nested = item(&mut decoder).ok()?.container.map_or(0, |container| container.remaining);
        pending = pending.saturating_sub(1).checked_add(nested)?;
    }
    bytes.split_at_checked(decoder.position())
}
