//! Finding the blocks of an archive in bytes that something happened to.

use std::io;

use hashbrown::HashMap;

use crate::archive::block::{BLOCK, BLOCK_LENGTH, Header, Identity, MAGIC, NoBlock};
use crate::error::{Error, Result};
use crate::length::{index, to_u64};
use crate::progress::Event;
use crate::repository::Control;
use crate::source::BlockSource;

/// Bytes that are read at once.
const WINDOW: usize = 1 << 20;
/// Archives that are told apart in one file.
const MOST_ARCHIVES: usize = 64;
/// Places that look like blocks and are none, in units of the blocks that the file has room for: checking one costs a block's hash.
const FALSE_BLOCKS: u64 = 4;

/// A row of blocks that lie behind each other as they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    block: u64,
    count: u64,
    offset: u64,
}

/// The blocks of one archive in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockMap {
    runs: Vec<Run>,
}

impl BlockMap {
    fn add(&mut self, block: u64, offset: u64) {
        match self.runs.last_mut() {
            Some(run)
                if run.block.saturating_add(run.count) == block
                    && run.offset.saturating_add(run.count.saturating_mul(BLOCK)) == offset =>
            {
                run.count = run.count.saturating_add(1);
            }
            _ => self.runs.push(Run { block, count: 1, offset }),
        }
    }

    fn blocks(&self) -> u64 {
        self.runs.iter().fold(0, |sum, run| sum.saturating_add(run.count))
    }

    /// Sorted by block, so that one is found quickly.
    fn sort(&mut self) {
        self.runs.sort_by_key(|run| (run.block, run.offset));
    }

    /// Where a block was found: a place that held it whole.
    pub(crate) fn offset(&self, block: u64) -> Option<u64> {
        let behind = self.runs.partition_point(|run| run.block <= block);
        // Runs overlap only where blocks are there twice; a few steps back find the one.
        self.runs.get(..behind)?.iter().rev().take(MOST_ARCHIVES).find_map(|run| {
            let at = block.checked_sub(run.block).filter(|at| *at < run.count)?;
            Some(run.offset.saturating_add(at.saturating_mul(BLOCK)))
        })
    }
}

/// What a scan found.
pub(crate) struct Scanned {
    /// The archive with the most blocks.
    pub(crate) identity: Identity,
    pub(crate) map: BlockMap,
    /// Whole blocks of other archives.
    pub(crate) foreign: u64,
}

/// The identity of the archive whose blocks lie in `source` where they belong, without reading all of it.
pub(crate) fn probe(source: &dyn BlockSource, name: &str) -> Result<Option<Identity>> {
    let length = source.length();
    let blocks = length.checked_div(BLOCK).unwrap_or_default();
    let mut buffer = vec![0; BLOCK_LENGTH];
    for part in 0..=64u64 {
        let block = blocks.saturating_sub(1).saturating_mul(part).checked_div(64).unwrap_or_default();
        if block >= blocks {
            break;
        }
        read_at(source, block.saturating_mul(BLOCK), &mut buffer, name)?;
        match Header::open(&buffer) {
            Ok((header, _)) if header.block == block && header.identity.geometry.bytes() == length => {
                return Ok(Some(header.identity));
            }
            Err(NoBlock::Unsupported) => return Err(Error::unsupported("archive", name)),
            Ok(_) | Err(NoBlock::Damaged) => {}
        }
    }
    Ok(None)
}

/// Reads all of `source` and finds every whole block in it, wherever it begins.
///
/// # Errors
///
/// [`Error::Damaged`] where there is none; [`Error::Unsupported`] where there are only those of later versions.
pub(crate) fn scan(source: &dyn BlockSource, name: &str, control: &Control) -> Result<Scanned> {
    let length = source.length();
    let mut found: HashMap<Identity, BlockMap> = HashMap::new();
    let mut is_unsupported = false;
    let mut false_blocks =
        length.checked_div(BLOCK).unwrap_or_default().saturating_add(16).saturating_mul(FALSE_BLOCKS);
    let mut buffer = Vec::with_capacity(WINDOW.saturating_add(BLOCK_LENGTH));
    // `buffer` holds the bytes from `begin` on.
    let (mut begin, mut at) = (0u64, 0usize);
    loop {
        let rest = buffer.get(at..).unwrap_or_default();
        if rest.len() < BLOCK_LENGTH {
            let kept = rest.to_vec();
            begin = begin.saturating_add(to_u64(at));
            at = 0;
            let position = begin.saturating_add(to_u64(kept.len()));
            let now = length.saturating_sub(position).min(to_u64(WINDOW));
            buffer = kept;
            if now == 0 {
                break;
            }
            control.cancel().check()?;
            let had = buffer.len();
            buffer.resize(had.saturating_add(index(u32::try_from(now).unwrap_or_default())), 0);
            read_at(source, position, buffer.get_mut(had..).unwrap_or_default(), name)?;
            control.event(&Event::Fetched { bytes: now });
            continue;
        }
        let candidate = rest.first_chunk::<BLOCK_LENGTH>().ok_or(Error::Internal("a window shorter than a block"))?;
        if !candidate.starts_with(&MAGIC) {
            let behind = rest.get(1..).unwrap_or_default();
            // The first byte of the mark is rare enough in what is no block.
            let next = behind.iter().position(|byte| Some(byte) == MAGIC.first());
            at = next.map_or(
                buffer.len().saturating_sub(BLOCK_LENGTH.saturating_sub(1)).max(at.saturating_add(1)),
                |next| at.saturating_add(1).saturating_add(next),
            );
            continue;
        }
        // Damage, and later versions, that say so only in their headers: the hash is made only for what may be ours.
        let plausible = Header::decode(candidate);
        let opened = match plausible {
            Err(NoBlock::Damaged) => Err(NoBlock::Damaged),
            _ => Header::open(candidate).map(|(header, _)| header),
        };
        match opened {
            Ok(header) => {
                let offset = begin.saturating_add(to_u64(at));
                if found.contains_key(&header.identity) || found.len() < MOST_ARCHIVES {
                    found.entry(header.identity).or_default().add(header.block, offset);
                }
                at = at.saturating_add(BLOCK_LENGTH);
            }
            Err(reason) => {
                is_unsupported |= reason == NoBlock::Unsupported;
                if plausible.is_ok() {
                    false_blocks = false_blocks.saturating_sub(1);
                    if false_blocks == 0 {
                        return Err(Error::damaged("archive", name, "it is full of what only looks like blocks"));
                    }
                }
                at = at.saturating_add(1);
            }
        }
    }
    let all = found.values().fold(0u64, |sum, map| sum.saturating_add(map.blocks()));
    let most = found.into_iter().max_by_key(|(identity, map)| (map.blocks(), identity.id));
    match most {
        Some((identity, mut map)) => {
            map.sort();
            Ok(Scanned { identity, foreign: all.saturating_sub(map.blocks()), map })
        }
        None if is_unsupported => Err(Error::unsupported("archive", name)),
        None => Err(Error::damaged("archive", name, "no block of an archive is in it")),
    }
}

/// Fills `buffer` from the source.
pub(crate) fn read_at(source: &dyn BlockSource, offset: u64, buffer: &mut [u8], name: &str) -> Result<()> {
    source.read_at(offset, buffer).map_err(|source: io::Error| Error::Source { name: name.to_owned(), source })
}
