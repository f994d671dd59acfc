//! Where every object is, from the table of contents or, where that is lost, from the objects' own headers.

use crate::archive::block::{PAYLOAD, PAYLOAD_LENGTH};
use crate::archive::blocks::Blocks;
use crate::archive::record::{self, ALIGNMENT, MOST_HEADER, Placed, Record};
use crate::error::Result;
use crate::length::{index, to_u64};
use crate::repository::Control;

/// The objects of an archive.
pub(crate) struct Contents {
    /// In the order of their places. The same key may be there several times.
    pub(crate) records: Vec<Placed>,
    /// Whether the table of contents is there.
    pub(crate) has_table: bool,
}

/// Reads the table of contents, or finds the objects without it.
pub(crate) fn read(blocks: &Blocks, control: &Control) -> Result<Contents> {
    let length = blocks.data_length();
    let end = blocks.read(length.saturating_sub(64), 64)?;
    for table in end.as_deref().and_then(record::decode_end).into_iter().flatten() {
        if let Some(records) = read_table(blocks, table)? {
            return Ok(Contents { records, has_table: true });
        }
    }
    search(blocks, control)
}

fn read_table(blocks: &Blocks, offset: u64) -> Result<Option<Vec<Placed>>> {
    let Some(record) = read_header(blocks, offset)? else { return Ok(None) };
    let placed = Placed { offset, record };
    if placed.record.key.is_some() || placed.record.size > record::MOST_TABLE {
        return Ok(None);
    }
    let Some(bytes) = blocks.read(placed.content(), placed.record.size)? else { return Ok(None) };
    if crate::crypto::hash::digest(&bytes) != placed.record.hash {
        return Ok(None);
    }
    Ok(record::decode_table(&bytes, blocks.data_length()).ok())
}

fn read_header(blocks: &Blocks, offset: u64) -> Result<Option<Record>> {
    let length = blocks.data_length().saturating_sub(offset).min(to_u64(MOST_HEADER));
    // The end of a long header may be lost while that of a short one is there.
    let bytes = match blocks.read(offset, length)? {
        Some(bytes) => Some(bytes),
        None => {
            let in_block = offset.checked_rem(PAYLOAD).unwrap_or_default();
            blocks.read(offset, length.min(PAYLOAD.saturating_sub(in_block)))?
        }
    };
    Ok(bytes.as_deref().and_then(Record::decode))
}

/// Goes from object to object, and where a header is lost, looks for the next one.
fn search(blocks: &Blocks, control: &Control) -> Result<Contents> {
    let mut records: Vec<Placed> = Vec::new();
    let length = blocks.data_length();
    let mut position = 0u64;
    while position < length {
        control.cancel().check()?;
        if let Some(record) = read_header(blocks, position)? {
            let placed = Placed { offset: position, record };
            if placed.end() <= length {
                position = position.saturating_add(placed.record.length());
                if placed.record.key.is_some() {
                    records.push(placed);
                }
                continue;
            }
        }
        position = next_candidate(blocks, position.saturating_add(ALIGNMENT))?;
    }
    Ok(Contents { records, has_table: false })
}

/// The next place from `position` on where a header may begin.
fn next_candidate(blocks: &Blocks, position: u64) -> Result<u64> {
    let number = position.checked_div(PAYLOAD).unwrap_or_default();
    let start = number.saturating_mul(PAYLOAD);
    let next = start.saturating_add(PAYLOAD);
    if position >= blocks.data_length() {
        return Ok(position);
    }
    let Some(payload) = blocks.data(number)? else { return Ok(next) };
    let from = index(u32::try_from(position.saturating_sub(start)).unwrap_or(u32::MAX));
    let places = (from..PAYLOAD_LENGTH).step_by(64);
    let found = places.into_iter().find(|at| payload.get(*at..).is_some_and(record::begins));
    Ok(found.map_or(next, |at| start.saturating_add(to_u64(at))))
}
