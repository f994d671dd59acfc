//! Writing blocks in order: data as it comes, and behind each group the parity that was made of it meanwhile.

use std::io::Write;

use crate::archive::block::{HEADER_LENGTH, Header, Identity, PAYLOAD_LENGTH};
use crate::archive::geometry::Group;
use crate::erasure::{Code, Encoder};
use crate::error::{Error, Result};
use crate::length::{index, to_u64};

/// Turns data into blocks. Memory: 16 data blocks and the parity blocks of each stripe.
pub(crate) struct BlockWriter<'w> {
    sink: &'w mut dyn Write,
    identity: Identity,
    code: Code,
    /// The block that is written next.
    block: u64,
    group_number: u64,
    group: Group,
    /// Data blocks of the group that were written.
    in_group: u64,
    payload: Vec<u8>,
    stripes: Vec<Encoder>,
}

impl<'w> BlockWriter<'w> {
    pub(crate) fn new(sink: &'w mut dyn Write, identity: Identity) -> Result<Self> {
        let geometry = identity.geometry;
        let code = geometry.code().ok_or(Error::Internal("a geometry without a code"))?;
        Ok(Self {
            sink,
            identity,
            code,
            block: 0,
            group_number: 0,
            group: geometry.group(0),
            in_group: 0,
            payload: Vec::with_capacity(PAYLOAD_LENGTH),
            stripes: (0..geometry.depth).map(|_| Encoder::new(code, PAYLOAD_LENGTH)).collect(),
        })
    }

    /// Takes the next bytes of data.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = PAYLOAD_LENGTH.saturating_sub(self.payload.len()).min(bytes.len());
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.payload.extend_from_slice(now);
            bytes = later;
            if self.payload.len() == PAYLOAD_LENGTH {
                self.data_block()?;
            }
        }
        Ok(())
    }

    /// Takes `count` zeros.
    pub(crate) fn zeros(&mut self, count: u64) -> Result<()> {
        let mut left = count;
        while left > 0 {
            let now = left.min(to_u64(PAYLOAD_LENGTH.saturating_sub(self.payload.len())));
            let zeros = vec![0; crate::length::to_usize(now, "zeros")?];
            self.write(&zeros)?;
            left = left.saturating_sub(now);
        }
        Ok(())
    }

    fn data_block(&mut self) -> Result<()> {
        let payload = std::mem::replace(&mut self.payload, Vec::with_capacity(PAYLOAD_LENGTH));
        write_block(self.sink, &Header { identity: self.identity, block: self.block }, &payload)?;
        let depth = u64::from(self.identity.geometry.depth).max(1);
        let stripe = self.in_group.checked_rem(depth).unwrap_or_default();
        if let Some(stripe) = self.stripes.get_mut(index(u32::try_from(stripe).unwrap_or_default())) {
            stripe.add(payload);
        }
        self.block = self.block.saturating_add(1);
        self.in_group = self.in_group.saturating_add(1);
        if self.in_group == self.group.data {
            self.end_group()?;
        }
        Ok(())
    }

    fn end_group(&mut self) -> Result<()> {
        let geometry = self.identity.geometry;
        let depth = usize::from(geometry.depth).max(1);
        let behind = usize::try_from(self.group.data.checked_rem(u64::from(geometry.depth)).unwrap_or_default());
        let behind = behind.unwrap_or_default();
        for row in 0..usize::from(geometry.rows) {
            // The turn of stripes goes on from data to parity.
            for turn in 0..depth {
                let stripe = behind.saturating_add(turn).checked_rem(depth).unwrap_or_default();
                let parity = self.stripes.get_mut(stripe).and_then(|stripe| stripe.parity().get(row));
                let parity = parity.ok_or(Error::Internal("a stripe without its parity"))?;
                write_block(self.sink, &Header { identity: self.identity, block: self.block }, parity)?;
                self.block = self.block.saturating_add(1);
            }
        }
        self.stripes.iter_mut().for_each(|stripe| *stripe = Encoder::new(self.code, PAYLOAD_LENGTH));
        self.group_number = self.group_number.saturating_add(1);
        self.group = geometry.group(self.group_number);
        self.in_group = 0;
        Ok(())
    }

    /// Checks that everything was written, and flushes.
    pub(crate) fn finish(self) -> Result<()> {
        if self.block != self.identity.geometry.blocks() || !self.payload.is_empty() {
            return Err(Error::Internal("an archive has another length than it was laid out for"));
        }
        self.sink.flush().map_err(sink_error)
    }
}

/// Writes one block.
pub(crate) fn write_block(sink: &mut dyn Write, header: &Header, payload: &[u8]) -> Result<()> {
    let header: [u8; HEADER_LENGTH] = header.encode(payload);
    sink.write_all(&header).and_then(|()| sink.write_all(payload)).map_err(sink_error)
}

pub(crate) fn sink_error(source: std::io::Error) -> Error {
    Error::Sink { name: "archive".to_owned(), source }
}
