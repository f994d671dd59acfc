//! One block: a header that says all about the archive, and its part of data or parity.

use crate::archive::geometry::Geometry;
use crate::crypto::hash;

/// Bytes of a block.
pub(crate) const BLOCK: u64 = 64 << 10;
/// The same, in memory.
pub(crate) const BLOCK_LENGTH: usize = 64 << 10;
/// Bytes of its header.
pub(crate) const HEADER_LENGTH: usize = 64;
/// Bytes of data or parity.
pub(crate) const PAYLOAD_LENGTH: usize = BLOCK_LENGTH - HEADER_LENGTH;
/// The same, on storage.
pub(crate) const PAYLOAD: u64 = BLOCK - 64;

/// What every block begins with.
pub(crate) const MAGIC: [u8; 8] = [0x89, b'B', b'K', b'A', b'R', 0x0d, 0x0a, 0x1a];
const VERSION: u8 = 1;

/// An archive: random, chosen when it is written.
pub(crate) type ArchiveId = [u8; 16];

/// What all blocks of an archive have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) id: ArchiveId,
    pub(crate) geometry: Geometry,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) identity: Identity,
    pub(crate) block: u64,
}

/// Why bytes are no block of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoBlock {
    /// They are something else, or damaged.
    Damaged,
    /// A later version wrote them.
    Unsupported,
}

impl Header {
    /// The header of a block with this payload.
    pub(crate) fn encode(&self, payload: &[u8]) -> [u8; HEADER_LENGTH] {
        let geometry = &self.identity.geometry;
        let mut out = [0; HEADER_LENGTH];
        let parts: [&[u8]; 6] = [
            &MAGIC,
            &[VERSION, geometry.columns, geometry.rows, geometry.depth],
            &[0; 4],
            &self.identity.id,
            &self.block.to_le_bytes(),
            &geometry.data.to_le_bytes(),
        ];
        let bytes = parts.into_iter().flatten();
        out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = *byte);
        let check = check(&out, payload);
        out.iter_mut().rev().zip(check.iter().rev()).for_each(|(out, byte)| *out = *byte);
        out
    }

    /// Reads a header, without its check.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, NoBlock> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(NoBlock::Damaged)?;
        let [version, columns, rows, depth, flags @ ..] = rest else { return Err(NoBlock::Damaged) };
        let (flags, rest) = flags.split_first_chunk::<4>().ok_or(NoBlock::Damaged)?;
        if *version != VERSION || *flags != [0; 4] {
            return Err(NoBlock::Unsupported);
        }
        let (id, rest) = rest.split_first_chunk::<16>().ok_or(NoBlock::Damaged)?;
        let (block, rest) = rest.split_first_chunk::<8>().ok_or(NoBlock::Damaged)?;
        let data = rest.first_chunk::<8>().ok_or(NoBlock::Damaged)?;
        let geometry = Geometry::new(*columns, *rows, *depth, u64::from_le_bytes(*data)).ok_or(NoBlock::Damaged)?;
        let block = u64::from_le_bytes(*block);
        if block >= geometry.blocks() {
            return Err(NoBlock::Damaged);
        }
        Ok(Self { identity: Identity { id: *id, geometry }, block })
    }

    /// Reads a whole block and compares its check.
    pub(crate) fn open(bytes: &[u8]) -> Result<(Self, &[u8]), NoBlock> {
        let (header, payload) = bytes.split_first_chunk::<HEADER_LENGTH>().ok_or(NoBlock::Damaged)?;
        if payload.len() != PAYLOAD_LENGTH {
            return Err(NoBlock::Damaged);
        }
        let decoded = Self::decode(header);
        // What only looks like a later version is damaged.
        if header.last_chunk::<16>() != Some(&check(header, payload)) {
            return Err(NoBlock::Damaged);
        }
        Ok((decoded?, payload))
    }
}

/// The check of a block: 16 bytes of BLAKE3 over the rest of its header and its payload.
fn check(header: &[u8; HEADER_LENGTH], payload: &[u8]) -> [u8; 16] {
    let (checked, _) = header.split_at(48);
    let digest = hash::digest_of_parts(&[checked, payload]);
    let mut out = [0; 16];
    out.iter_mut().zip(digest.as_bytes()).for_each(|(out, byte)| *out = *byte);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::geometry::Profile;

    #[test]
    fn every_changed_bit_of_a_header_is_noticed() {
        let geometry = Profile::Default.geometry(1000).unwrap();
        let header = Header { identity: Identity { id: [7; 16], geometry }, block: 5 };
        let payload = vec![3; PAYLOAD_LENGTH];
        let mut bytes = header.encode(&payload).to_vec();
        bytes.extend_from_slice(&payload);
        assert_eq!(Header::open(&bytes), Ok((header, &payload[..])));
        for bit in 0..HEADER_LENGTH * 8 + 64 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::open(&changed), Err(NoBlock::Damaged), "bit {bit}");
        }
        assert_eq!(Header::open(&bytes[1..]), Err(NoBlock::Damaged));
        assert_eq!(Header::open(&bytes[..bytes.len() - 1]), Err(NoBlock::Damaged));
        // A later version is told from damage.
        bytes[8] = 2;
        let (head, payload) = bytes.split_at(HEADER_LENGTH);
        let check = check(head.try_into().unwrap(), payload);
        bytes[48..64].copy_from_slice(&check);
        assert_eq!(Header::open(&bytes), Err(NoBlock::Unsupported));
    }
}
