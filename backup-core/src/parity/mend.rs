//! Bringing objects of a group back.

use std::collections::BTreeMap;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::crypto::hash;
use crate::error::{Error, Result};
use crate::length::{index, to_u64, to_usize};
use crate::parity::group::{BLOCK, BLOCK_LENGTH, Group, Member, check};
use crate::repository::Control;
use crate::storage::{Key, Storage};

/// Objects of the group that are damaged (`true`) or missing (`false`), by key.
pub(crate) type Bad = BTreeMap<Key, bool>;

/// The bytes of those objects of `bad` that can be brought back, each compared with its hash.
pub(crate) fn mend(
    storage: &dyn Storage,
    group: &Group,
    object: &[u8],
    head: u64,
    bad: &Bad,
    control: &Control,
) -> Result<BTreeMap<Key, Bytes>> {
    let reader = Reader { storage, group, bad, damaged: read_damaged(storage, group, bad) };
    let mut mended: HashMap<u64, Vec<u8>> = HashMap::new();
    for stripe in 0..u64::from(group.depth) {
        control.cancel().check()?;
        let numbers: Vec<u64> = group.blocks_of(stripe).collect();
        if !numbers.iter().any(|number| reader.may_be_lost(*number)) {
            continue;
        }
        let blocks: Vec<Option<Vec<u8>>> = numbers.iter().map(|number| reader.block(*number)).collect::<Result<_>>()?;
        let column = |at: usize| u8::try_from(at).unwrap_or(u8::MAX);
        let positions = |wanted: bool| -> Vec<u8> {
            let chosen = blocks.iter().enumerate().filter(|(_, block)| block.is_some() == wanted);
            chosen.map(|(at, _)| column(at)).collect()
        };
        let (known, lost) = (positions(true), positions(false));
        let rows: Vec<u8> = (0..group.rows).collect();
        let Some(recovery) = group.code()?.recovery(&known, &lost, &rows) else { continue };
        let parity = rows.iter().take(lost.len()).map(|row| {
            let begin = to_usize(group.parity_offset(head, stripe, u64::from(*row)), "parity")?;
            object.get(begin..begin.saturating_add(BLOCK_LENGTH)).ok_or(Error::Internal("parity is too short"))
        });
        let parity = parity.collect::<Result<Vec<&[u8]>>>()?;
        let inputs: Vec<&[u8]> = blocks.iter().flatten().map(Vec::as_slice).chain(parity).collect();
        let mut made = vec![vec![0; BLOCK_LENGTH]; lost.len()];
        recovery.add(&inputs, &mut made);
        for (at, block) in lost.iter().zip(made) {
            if let Some(number) = numbers.get(usize::from(*at)) {
                mended.insert(*number, block);
            }
        }
    }
    let mut out = BTreeMap::new();
    for member in group.members.iter().filter(|member| bad.contains_key(&member.key)) {
        if let Some(bytes) = reader.assemble(member, &mended)?
            && hash::digest(&bytes) == member.hash
        {
            out.insert(member.key.clone(), bytes.into());
        }
    }
    Ok(out)
}

struct Reader<'r> {
    storage: &'r dyn Storage,
    group: &'r Group,
    bad: &'r Bad,
    /// What is there of damaged objects.
    damaged: BTreeMap<Key, Bytes>,
}

/// Damaged objects as they are, as far as they can be read.
fn read_damaged(storage: &dyn Storage, group: &Group, bad: &Bad) -> BTreeMap<Key, Bytes> {
    let damaged = group.members.iter().filter(|member| bad.get(&member.key) == Some(&true));
    let read = damaged.filter_map(|member| {
        // One that became longer is damaged too; more than twice its size is not worth its memory.
        let bytes = storage.get(&member.key, member.size.saturating_mul(2)).ok()?;
        Some((member.key.clone(), bytes))
    });
    read.collect()
}

impl Reader<'_> {
    /// The members with bytes in a block.
    fn members(&self, number: u64) -> impl Iterator<Item = &Member> {
        let (begin, end) = (number.saturating_mul(BLOCK), number.saturating_add(1).saturating_mul(BLOCK));
        let first = self.group.members.partition_point(|member| member.end() <= begin);
        self.group.members.iter().skip(first).take_while(move |member| member.offset < end)
    }

    fn may_be_lost(&self, number: u64) -> bool {
        self.members(number).any(|member| self.bad.contains_key(&member.key))
    }

    /// A block as its objects have it, `None` where it is lost.
    fn block(&self, number: u64) -> Result<Option<Vec<u8>>> {
        let begin = number.saturating_mul(BLOCK);
        let mut out = vec![0; BLOCK_LENGTH];
        for member in self.members(number) {
            let from = begin.max(member.offset);
            let to = begin.saturating_add(BLOCK).min(member.end());
            let range = from.saturating_sub(member.offset)..to.saturating_sub(member.offset);
            let bytes = match self.bad.get(&member.key) {
                None => self.storage.get_range(&member.key, range).ok(),
                Some(false) => None,
                Some(true) => {
                    let (from, to) = (to_usize(range.start, "object")?, to_usize(range.end, "object")?);
                    self.damaged.get(&member.key).and_then(|bytes| bytes.get(from..to)).map(Bytes::copy_from_slice)
                }
            };
            let Some(bytes) = bytes else { return Ok(None) };
            let at = to_usize(from.saturating_sub(begin), "block")?;
            let target = out.get_mut(at..at.saturating_add(bytes.len()));
            target.ok_or(Error::Internal("an object reaches beyond its block"))?.copy_from_slice(&bytes);
        }
        let is_whole = self.group.checks.get(index(u32::try_from(number).unwrap_or(u32::MAX))) == Some(&check(&out));
        Ok(is_whole.then_some(out))
    }

    /// The bytes of a member, `None` where a block of it is lost.
    fn assemble(&self, member: &Member, mended: &HashMap<u64, Vec<u8>>) -> Result<Option<Vec<u8>>> {
        let mut out = Vec::with_capacity(to_usize(member.size, "object")?);
        let mut position = member.offset;
        while position < member.end() {
            let number = position.checked_div(BLOCK).unwrap_or_default();
            let block = match mended.get(&number) {
                Some(block) => Some(block.clone()),
                None => self.block(number)?,
            };
            let Some(block) = block else { return Ok(None) };
            let begin = number.saturating_mul(BLOCK);
            let from = to_usize(position.saturating_sub(begin), "block")?;
            let to = to_usize(member.end().saturating_sub(begin).min(BLOCK), "block")?;
            let bytes = block.get(from..to).ok_or(Error::Internal("a block is too short"))?;
            out.extend_from_slice(bytes);
            position = position.saturating_add(to_u64(bytes.len()));
        }
        Ok(Some(out))
    }
}
