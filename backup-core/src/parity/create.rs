//! Making parity of objects.

use bytes::Bytes;

use crate::crypto::hash;
use crate::erasure::{Code, Encoder};
use crate::error::{Error, Result};
use crate::format::layout::Place;
use crate::id::ObjectName;
use crate::length::{index, to_u64, to_usize};
use crate::parity::group::{BLOCK, BLOCK_LENGTH, Group, Member, blocks, check};
use crate::progress::Event;
use crate::repository::{Control, read_error};
use crate::storage::{PutMode, Storage, StorageError};

/// Data and parity blocks of a stripe.
const COLUMNS: u8 = 128;
const ROWS: u8 = 8;
/// Bytes of objects that are protected together.
const TARGET: u64 = 256 << 20;
/// Most objects that are.
const MOST_MEMBERS: usize = 1 << 16;

/// Cuts objects into groups. Offsets are set; any one object of a group may be lost.
pub(crate) fn groups(mut objects: Vec<Member>) -> Vec<Group> {
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    let mut groups = Vec::new();
    let mut members: Vec<Member> = Vec::new();
    for mut member in objects.into_iter().filter(|member| member.size > 0) {
        let length = members.last().map_or(0, Member::end);
        if !members.is_empty() && (length.saturating_add(member.size) > TARGET || members.len() >= MOST_MEMBERS) {
            groups.push(group(std::mem::take(&mut members)));
        }
        member.offset = members.last().map_or(0, Member::end);
        members.push(member);
    }
    if !members.is_empty() {
        groups.push(group(members));
    }
    groups
}

fn group(members: Vec<Member>) -> Group {
    let number = blocks(members.last().map_or(0, Member::end)).max(1);
    // An object may begin and end in the middle of blocks.
    let largest = members.iter().map(|member| blocks(member.size).saturating_add(1)).max().unwrap_or(1);
    let depth = largest.div_ceil(u64::from(ROWS)).max(number.div_ceil(u64::from(COLUMNS))).min(number);
    let depth = u32::try_from(depth).unwrap_or(u32::MAX);
    Group { columns: COLUMNS, rows: ROWS, depth, members, checks: Vec::new() }
}

/// Reads the objects of a group and stores their parity. Returns its name and size.
pub(crate) fn store(storage: &dyn Storage, mut group: Group, control: &Control) -> Result<(ObjectName, u64)> {
    let code: Code = group.code()?;
    let mut stripes: Vec<Encoder> = (0..group.depth).map(|_| Encoder::new(code, BLOCK_LENGTH)).collect();
    let mut block = Vec::with_capacity(BLOCK_LENGTH);
    let mut number = 0u64;
    let mut checks = Vec::new();
    let depth = u64::from(group.depth).max(1);
    let mut complete = |block: Vec<u8>, number: u64| {
        checks.push(check(&block));
        let stripe = number.checked_rem(depth).and_then(|stripe| u32::try_from(stripe).ok()).map(index);
        if let Some(stripe) = stripe.and_then(|stripe| stripes.get_mut(stripe)) {
            stripe.add(block);
        }
    };
    for member in &group.members {
        control.cancel().check()?;
        let bytes = storage.get(&member.key, member.size).map_err(|error| read_error(&member.key, error))?;
        control.event(&Event::Fetched { bytes: member.size });
        if to_u64(bytes.len()) != member.size || hash::digest(&bytes) != member.hash {
            return Err(Error::damaged("object", &member.key, "it changed while parity was made of it"));
        }
        let mut rest: &[u8] = &bytes;
        while !rest.is_empty() {
            let room = BLOCK_LENGTH.saturating_sub(block.len()).min(rest.len());
            let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            block.extend_from_slice(now);
            rest = later;
            if block.len() == BLOCK_LENGTH {
                complete(std::mem::replace(&mut block, Vec::with_capacity(BLOCK_LENGTH)), number);
                number = number.saturating_add(1);
            }
        }
    }
    if !block.is_empty() {
        block.resize(BLOCK_LENGTH, 0);
        complete(block, number);
    }
    group.checks = checks;
    let mut out = group.encode_head();
    let parity = BLOCK.saturating_mul(u64::from(ROWS)).saturating_mul(depth);
    out.reserve_exact(to_usize(parity, "parity")?);
    for row in 0..usize::from(group.rows) {
        for stripe in &mut stripes {
            let block = stripe.parity().get(row).ok_or(Error::Internal("a stripe without its parity"))?;
            out.extend_from_slice(block);
        }
    }
    let name = hash::object_name(&out);
    let (key, size) = (Place::Parity(name).key(), to_u64(out.len()));
    let out = Bytes::from(out);
    let put = match storage.put(&key, out.clone(), PutMode::Create) {
        // The same objects have the same parity; what has its name may be damaged.
        Err(StorageError::AlreadyExists) => match storage.get(&key, size) {
            Ok(found) if found == out => Ok(()),
            _ => storage.put(&key, out, PutMode::Overwrite),
        },
        put => put,
    };
    put.map_err(|error| Error::storage("put", &key, error))?;
    control.event(&Event::Stored { bytes: size });
    Ok((name, size))
}
