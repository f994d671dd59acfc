//! Writing an archive anew as it was.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use serde::Serialize;

use crate::archive::block::{BLOCK, BLOCK_LENGTH, Header};
use crate::archive::blocks::{Blocks, Found};
use crate::archive::check::{ArchiveReport, Survey};
use crate::archive::writer::{sink_error, write_block};
use crate::error::Result;
use crate::length::to_u64;
use crate::progress::Event;
use crate::repository::Control;
use crate::source::BlockSource;

/// What a repair did.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RepairReport {
    /// What was found.
    #[serde(flatten)]
    pub found: ArchiveReport,
    /// Blocks that were made anew.
    pub mended_blocks: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// Whether what was written is the archive as it was, to the last byte.
    pub exact: bool,
}

/// Writes the archive in `source`, which errors call `name`, to `sink`, with every block made anew that can be and in its
/// place. Needs no password.
///
/// In place of blocks that are lost for good stand zeros; which objects these hurt is in the report. Memory: the
/// lost blocks of one group that can be made anew, and one stripe.
///
/// # Errors
///
/// As [`check`](crate::archive::check); [`Error::Sink`](crate::Error::Sink) where `sink` fails.
pub fn repair(
    source: Arc<dyn BlockSource>,
    name: &str,
    sink: &mut dyn Write,
    control: &Control,
) -> Result<RepairReport> {
    let blocks = Blocks::open(source, name, control)?;
    let geometry = blocks.geometry();
    let mut survey = Survey::new(&blocks);
    control.event(&Event::Expected { entries: 0, bytes: geometry.bytes() });
    let mut mended_blocks = 0u64;
    for number in 0..geometry.groups() {
        let group = geometry.group(number);
        let mut mended: HashMap<u64, Bytes> = HashMap::new();
        for (stripe, can_be_mended) in survey.group(&blocks, number, control)? {
            if !can_be_mended {
                continue;
            }
            let mut blocks_of_stripe = blocks.stripe(number, stripe)?;
            let is_there = |payload: &Option<Bytes>| payload.is_some();
            let there: Vec<bool> = blocks_of_stripe.data.iter().chain(&blocks_of_stripe.parity).map(is_there).collect();
            if blocks_of_stripe.mend(geometry)? {
                let numbers = group.data_blocks(stripe).chain(group.parity_blocks(stripe));
                let payloads = blocks_of_stripe.data.into_iter().chain(blocks_of_stripe.parity);
                for ((block, payload), was_there) in numbers.zip(payloads).zip(there) {
                    if let (Some(payload), false) = (payload, was_there) {
                        mended.insert(block, payload);
                    }
                }
            }
        }
        for block in group.blocks() {
            control.cancel().check()?;
            let payload = match mended.get(&block) {
                Some(payload) => Some(payload.clone()),
                None => match blocks.find(block)? {
                    Found::Here(payload) | Found::Moved(payload) => Some(payload),
                    Found::Lost => None,
                },
            };
            match payload {
                Some(payload) => write_block(sink, &Header { identity: blocks.identity, block }, &payload)?,
                None => sink.write_all(&vec![0; BLOCK_LENGTH]).map_err(sink_error)?,
            }
            control.event(&Event::Stored { bytes: BLOCK });
        }
        mended_blocks = mended_blocks.saturating_add(to_u64(mended.len()));
    }
    sink.flush().map_err(sink_error)?;
    let bytes = geometry.bytes();
    let found = survey.finish(&blocks, control)?;
    Ok(RepairReport { exact: mended_blocks == found.lost_blocks, found, mended_blocks, bytes })
}
