//! Reading data, with damaged blocks made anew from the rest of their stripes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use crate::archive::block::{BLOCK, BLOCK_LENGTH, HEADER_LENGTH, Header, Identity, PAYLOAD, PAYLOAD_LENGTH};
use crate::archive::geometry::{Geometry, Role};
use crate::archive::scan::{self, BlockMap};
use crate::error::{Error, Result};
use crate::length::{to_u64, to_usize};
use crate::repository::Control;
use crate::source::BlockSource;

/// Payloads that are kept: 16 MiB.
const KEPT: usize = 256;
/// Of how many times as many blocks as the file has room for an archive may be the rest: a header that claims to be of a
/// larger one would keep a reader busy with what is not there.
const MOST_MISSING: u64 = 1024;
/// Blocks that any archive may have.
const ALWAYS_ALLOWED: u64 = 1 << 20;

/// The blocks of an archive.
pub(crate) struct Blocks {
    source: Arc<dyn BlockSource>,
    /// What people call it, for errors.
    pub(crate) name: String,
    pub(crate) identity: Identity,
    /// Where blocks are that are not where they belong; made when the first one is missed.
    found: OnceLock<Moved>,
    kept: Mutex<Kept>,
}

/// What a scan of the whole file found.
#[derive(Clone, Debug, Default)]
struct Moved {
    map: BlockMap,
    foreign: u64,
}

#[derive(Default)]
struct Kept {
    payloads: HashMap<u64, Bytes>,
    order: VecDeque<u64>,
    /// Stripes that have lost too much.
    hopeless: HashSet<(u64, u8)>,
}

/// A block in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Where it belongs.
    Here(Bytes),
    /// Somewhere else.
    Moved(Bytes),
    /// Nowhere.
    Lost,
}

impl Found {
    fn payload(self) -> Option<Bytes> {
        match self {
            Self::Here(payload) | Self::Moved(payload) => Some(payload),
            Self::Lost => None,
        }
    }
}

/// A stripe, all of it that there is.
pub(crate) struct Stripe {
    /// Payloads of the blocks of data, in their order in the stripe.
    pub(crate) data: Vec<Option<Bytes>>,
    pub(crate) parity: Vec<Option<Bytes>>,
}

impl Blocks {
    /// Finds the archive in `source`.
    pub(crate) fn open(source: Arc<dyn BlockSource>, name: &str, control: &Control) -> Result<Self> {
        let found = OnceLock::new();
        let identity = match scan::probe(&*source, name)? {
            Some(identity) => identity,
            None => {
                let scanned = scan::scan(&*source, name, control)?;
                let _ = found.set(Moved { map: scanned.map, foreign: scanned.foreign });
                scanned.identity
            }
        };
        let room = source.length().checked_div(BLOCK).unwrap_or_default();
        let most = room.saturating_mul(MOST_MISSING).saturating_add(ALWAYS_ALLOWED);
        if identity.geometry.blocks() > most {
            return Err(Error::damaged("archive", name, "less than a thousandth of it is there"));
        }
        Ok(Self { source, name: name.to_owned(), identity, found, kept: Mutex::default() })
    }

    pub(crate) const fn geometry(&self) -> &Geometry {
        &self.identity.geometry
    }

    /// Bytes of the file.
    pub(crate) fn file_length(&self) -> u64 {
        self.source.length()
    }

    /// Bytes of data, with the zeros that fill the last block.
    pub(crate) fn data_length(&self) -> u64 {
        self.geometry().data.saturating_mul(PAYLOAD)
    }

    /// Whole blocks of other archives that a scan found; 0 where none was needed.
    pub(crate) fn foreign(&self) -> u64 {
        self.found.get().map_or(0, |moved| moved.foreign)
    }

    /// A block as it is in the file.
    pub(crate) fn find(&self, block: u64) -> Result<Found> {
        if let Some(payload) = self.at(block.saturating_mul(BLOCK), block)? {
            return Ok(Found::Here(payload));
        }
        let moved = match self.found.get() {
            Some(moved) => moved,
            None => {
                let moved = match scan::scan(&*self.source, &self.name, &Control::default()) {
                    Ok(scanned) if scanned.identity == self.identity => {
                        Moved { map: scanned.map, foreign: scanned.foreign }
                    }
                    // Another archive has more blocks, or there are none any more: nothing was moved.
                    Ok(_) | Err(Error::Damaged { .. } | Error::Unsupported { .. }) => Moved::default(),
                    Err(error) => return Err(error),
                };
                self.found.get_or_init(|| moved)
            }
        };
        match moved.map.offset(block) {
            Some(offset) => Ok(self.at(offset, block)?.map_or(Found::Lost, Found::Moved)),
            None => Ok(Found::Lost),
        }
    }

    /// The payload of the block at `offset`, if it is that block of this archive, whole.
    fn at(&self, offset: u64, block: u64) -> Result<Option<Bytes>> {
        if offset.saturating_add(BLOCK) > self.source.length() {
            return Ok(None);
        }
        let mut buffer = vec![0; BLOCK_LENGTH];
        match self.source.read_at(offset, &mut buffer) {
            Ok(()) => {}
            // A file that became shorter, and a sector that cannot be read.
            Err(error) if is_of_the_medium(&error) => return Ok(None),
            Err(source) => return Err(Error::Source { name: self.name.clone(), source }),
        }
        let wanted = Header { identity: self.identity, block };
        let is_it = Header::open(&buffer).is_ok_and(|(header, _)| header == wanted);
        Ok(is_it.then(|| Bytes::from(buffer).slice(HEADER_LENGTH..)))
    }

    /// All of a stripe that is there.
    pub(crate) fn stripe(&self, group: u64, stripe: u8) -> Result<Stripe> {
        let group = self.geometry().group(group);
        let read = |block| self.find(block).map(Found::payload);
        Ok(Stripe {
            data: group.data_blocks(stripe).map(read).collect::<Result<_>>()?,
            parity: group.parity_blocks(stripe).map(read).collect::<Result<_>>()?,
        })
    }

    /// The payload of a block of data, corrected where it must be; `None` where too much is lost.
    pub(crate) fn data(&self, number: u64) -> Result<Option<Bytes>> {
        let block = self.geometry().block_of_data(number);
        if let Some(payload) = self.kept()?.payloads.get(&block) {
            return Ok(Some(payload.clone()));
        }
        if let Some(payload) = self.find(block)?.payload() {
            self.kept()?.keep(block, payload.clone());
            return Ok(Some(payload));
        }
        let place = self.geometry().place(block);
        if self.kept()?.hopeless.contains(&(place.group, place.stripe)) {
            return Ok(None);
        }
        let mut stripe = self.stripe(place.group, place.stripe)?;
        let lost: Vec<bool> = stripe.data.iter().map(Option::is_none).collect();
        let is_whole = stripe.mend(self.geometry())?;
        let mut kept = self.kept()?;
        if !is_whole {
            kept.hopeless.insert((place.group, place.stripe));
            return Ok(None);
        }
        // Its other lost blocks are asked for next, most likely.
        let blocks = self.geometry().group(place.group).data_blocks(place.stripe);
        for ((block, payload), was_lost) in blocks.zip(&stripe.data).zip(&lost) {
            if let (Some(payload), true) = (payload, *was_lost) {
                kept.keep(block, payload.clone());
            }
        }
        let Role::Data(at) = place.role else { return Err(Error::Internal("data in a block of parity")) };
        Ok(stripe.data.get(usize::from(at)).cloned().flatten())
    }

    /// Bytes of the data, `None` where some of them are lost.
    pub(crate) fn read(&self, offset: u64, length: u64) -> Result<Option<Vec<u8>>> {
        let end = offset.saturating_add(length);
        if end > self.data_length() {
            return Ok(None);
        }
        let mut out = Vec::new();
        let mut position = offset;
        while position < end {
            let number = position.checked_div(PAYLOAD).unwrap_or_default();
            let Some(payload) = self.data(number)? else { return Ok(None) };
            let from = to_usize(position.saturating_sub(number.saturating_mul(PAYLOAD)), "data")?;
            let wanted = to_usize(end.saturating_sub(position), "data")?;
            let to = from.saturating_add(wanted).min(PAYLOAD_LENGTH);
            let bytes = payload.get(from..to).ok_or(Error::Internal("a block of data is too short"))?;
            if out.is_empty() {
                // Blocks of that number are in the archive, or were.
                out.reserve_exact(wanted.min(to_usize(self.file_length(), "data")?));
            }
            out.extend_from_slice(bytes);
            position = position.saturating_add(to_u64(bytes.len()));
        }
        Ok(Some(out))
    }

    fn kept(&self) -> Result<std::sync::MutexGuard<'_, Kept>> {
        self.kept.lock().map_err(|_| Error::Internal("a reader of the archive panicked"))
    }
}

impl Kept {
    fn keep(&mut self, block: u64, payload: Bytes) {
        if self.payloads.insert(block, payload).is_none() {
            self.order.push_back(block);
        }
        while self.order.len() > KEPT {
            if let Some(oldest) = self.order.pop_front() {
                self.payloads.remove(&oldest);
            }
        }
    }
}

impl Stripe {
    /// Makes lost blocks anew; `false` where too many are lost.
    pub(crate) fn mend(&mut self, geometry: &Geometry) -> Result<bool> {
        let code = geometry.code().ok_or(Error::Internal("a geometry without a code"))?;
        let number = |at: usize| u8::try_from(at).unwrap_or(u8::MAX);
        let there = |blocks: &[Option<Bytes>], wanted: bool| -> Vec<u8> {
            let chosen = blocks.iter().enumerate().filter(|(_, payload)| payload.is_some() == wanted);
            chosen.map(|(at, _)| number(at)).collect()
        };
        let (known, lost) = (there(&self.data, true), there(&self.data, false));
        if !lost.is_empty() {
            let rows = there(&self.parity, true);
            let Some(recovery) = code.recovery(&known, &lost, &rows) else { return Ok(false) };
            let data = self.data.iter().flatten();
            let inputs: Vec<&[u8]> =
                data.chain(self.parity.iter().flatten().take(lost.len())).map(|payload| &payload[..]).collect();
            let mut made = vec![vec![0; PAYLOAD_LENGTH]; lost.len()];
            recovery.add(&inputs, &mut made);
            for (at, payload) in lost.iter().zip(made) {
                if let Some(block) = self.data.get_mut(usize::from(*at)) {
                    *block = Some(payload.into());
                }
            }
        }
        if self.parity.iter().any(Option::is_none) {
            let data: Vec<&[u8]> = self.data.iter().flatten().map(|payload| &payload[..]).collect();
            let mut made = vec![vec![0; PAYLOAD_LENGTH]; self.parity.len()];
            code.encoding(0, data.len()).add(&data, &mut made);
            for (block, payload) in self.parity.iter_mut().zip(made) {
                block.get_or_insert_with(|| payload.into());
            }
        }
        Ok(true)
    }
}

/// Whether an error says that these bytes cannot be read, and not that nothing can.
fn is_of_the_medium(error: &std::io::Error) -> bool {
    // EIO has no kind of its own.
    error.kind() == std::io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(5)
}
