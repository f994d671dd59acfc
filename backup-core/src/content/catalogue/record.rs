//! The bytes of an entry without its path (`docs/format.md`, "Entries").

use std::fmt;

use crate::content::entry::{Attributes, ChunkRef, Content, ContentRoot, Entry, EntryKind, PageRef};
use crate::content::page::{read_page_ref, read_refs, write_page_ref, write_refs};
use crate::content::path::EntryPath;
use crate::error::{Error, Result};
use crate::format::cbor::{self, MapReader, MapWriter, Value};
use crate::id::Digest;
use crate::length::to_u64;
use crate::limits;
use crate::time::Timestamp;

/// Keys of the map.
mod key {
    pub(super) const KIND: u64 = 1;
    pub(super) const TARGET: u64 = 2;
    pub(super) const DEVICE: u64 = 3;
    pub(super) const LENGTH: u64 = 4;
    pub(super) const INLINE: u64 = 5;
    pub(super) const TREE: u64 = 6;
    pub(super) const DIGEST: u64 = 7;
    pub(super) const HARD_LINK: u64 = 8;
    pub(super) const INCONSISTENT: u64 = 9;
    pub(super) const MODE: u64 = 16;
    pub(super) const UID: u64 = 17;
    pub(super) const GID: u64 = 18;
    pub(super) const USER: u64 = 19;
    pub(super) const GROUP: u64 = 20;
    pub(super) const MODIFIED: u64 = 21;
    pub(super) const CHANGED: u64 = 22;
    pub(super) const INODE: u64 = 23;
    pub(super) const EXTENDED: u64 = 24;
}

/// Encodes everything of an entry but its path.
///
/// # Errors
///
/// [`Error::InvalidArgument`] or [`Error::LimitExceeded`] naming the entry, where it holds what no
/// reader would accept.
pub(super) fn encode(entry: &Entry) -> Result<Vec<u8>> {
    if let Some(fault) = fault(entry) {
        return Err(Error::invalid(format!("entry {}", entry.path), fault));
    }
    let bytes = cbor::encode_map(|map| {
        map.u64(key::KIND, kind_number(&entry.kind));
        match &entry.kind {
            EntryKind::Symlink { target } => map.bytes(key::TARGET, target),
            EntryKind::CharacterDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                map.array(key::DEVICE, |pair| {
                    pair.u64(u64::from(*major));
                    pair.u64(u64::from(*minor));
                });
            }
            EntryKind::File | EntryKind::Directory | EntryKind::Fifo | EntryKind::Stream | EntryKind::Disk => {}
        }
        write_content(map, &entry.content);
        if let Some(digest) = &entry.digest {
            map.bytes(key::DIGEST, digest.as_bytes());
        }
        if let Some(path) = &entry.hard_link {
            map.bytes(key::HARD_LINK, path.as_bytes());
        }
        if entry.inconsistent {
            map.bool(key::INCONSISTENT, true);
        }
        write_attributes(map, &entry.attributes);
    })?;
    if bytes.len() > limits::ENTRY {
        let what = format!("attributes of entry {}", entry.path);
        return Err(Error::limit(what, to_u64(bytes.len()), to_u64(limits::ENTRY)));
    }
    Ok(bytes)
}

/// Decodes an entry. `path` has passed its checks.
///
/// # Errors
///
/// [`Error::Damaged`] naming the entry.
pub(super) fn decode(path: EntryPath, bytes: &[u8]) -> Result<Entry> {
    let name = path.clone();
    let damaged = |reason: &str| Error::damaged(WHAT, &name, reason);
    if bytes.len() > limits::ENTRY {
        return Err(damaged("it is longer than 4 MiB"));
    }
    let mut map = cbor::decode(bytes, WHAT, &name)?.map()?;
    let kind = read_kind(&mut map)?;
    let mut entry = Entry::new(path, kind);
    entry.content = read_content(&mut map)?;
    entry.digest = map.optional(key::DIGEST)?.map(|value| value.fixed().map(Digest::new)).transpose()?;
    entry.hard_link = map.optional(key::HARD_LINK)?.map(|value| read_path(value, &name)).transpose()?;
    entry.inconsistent = match map.optional(key::INCONSISTENT)?.map(Value::bool).transpose()? {
        None => false,
        Some(true) => true,
        Some(false) => return Err(damaged("a mark that is not set is given")),
    };
    entry.attributes = read_attributes(&mut map)?;
    map.finish()?;
    match fault(&entry) {
        Some(fault) => Err(damaged(fault)),
        None => Ok(entry),
    }
}

/// What entries are called in errors.
const WHAT: &str = "entry";

/// The rule that an entry breaks, if any.
fn fault(entry: &Entry) -> Option<&'static str> {
    if !entry.kind.has_content() && (entry.content.length > 0 || entry.digest.is_some()) {
        return Some("an entry of this kind has no content");
    }
    if entry.content.length > limits::CONTENT {
        return Some("its content is longer than 2^62 bytes");
    }
    match &entry.content.root {
        ContentRoot::Inline(refs) => {
            let sum = refs.iter().fold(0u64, |sum, reference| sum.saturating_add(reference.length()));
            if to_u64(refs.len()) > limits::INLINE_REFS || sum != entry.content.length {
                return Some("its chunk references do not fit its length");
            }
        }
        ContentRoot::Tree { height, .. } => {
            if entry.content.length == 0 || *height == 0 || *height > limits::TREE_HEIGHT {
                return Some("its tree of chunk references has an impossible height");
            }
        }
    }
    if let EntryKind::Symlink { target } = &entry.kind
        && (target.is_empty() || target.len() > limits::PATH || target.contains(&0))
    {
        return Some("its link target is empty, contains NUL or is longer than 65536 bytes");
    }
    if entry.hard_link.is_some() && entry.content.length > 0 {
        return Some("it is a hard link and has a content of its own");
    }
    if entry.hard_link.as_ref() == Some(&entry.path) {
        return Some("it is a hard link to itself");
    }
    if entry.attributes.mode.is_some_and(|mode| mode > 0o7777) {
        return Some("its mode has bits beyond 07777");
    }
    let extended = &entry.attributes.extended;
    if extended.iter().any(|(name, _)| name.is_empty() || name.contains(&0)) {
        return Some("the name of an extended attribute is empty or contains NUL");
    }
    if !extended.is_sorted_by(|(one, _), (two, _)| one < two) {
        return Some("its extended attributes are not in ascending order");
    }
    None
}

fn kind_number(kind: &EntryKind) -> u64 {
    match kind {
        EntryKind::File => 1,
        EntryKind::Directory => 2,
        EntryKind::Symlink { .. } => 3,
        EntryKind::Fifo => 4,
        EntryKind::CharacterDevice { .. } => 5,
        EntryKind::BlockDevice { .. } => 6,
        EntryKind::Stream => 7,
        EntryKind::Disk => 8,
    }
}

fn read_kind(map: &mut MapReader<'_>) -> Result<EntryKind> {
    let number = map.required(key::KIND)?;
    Ok(match number.u64()? {
        1 => EntryKind::File,
        2 => EntryKind::Directory,
        3 => EntryKind::Symlink { target: map.required(key::TARGET)?.bytes()?.to_vec() },
        4 => EntryKind::Fifo,
        device @ (5 | 6) => {
            let mut pair = map.required(key::DEVICE)?.array()?;
            let (major, minor) = (pair.required()?.u32()?, pair.required()?.u32()?);
            pair.finish()?;
            if device == 5 {
                EntryKind::CharacterDevice { major, minor }
            } else {
                EntryKind::BlockDevice { major, minor }
            }
        }
        7 => EntryKind::Stream,
        8 => EntryKind::Disk,
        _ => return Err(number.damaged("its kind is unknown")),
    })
}

fn write_content(map: &mut MapWriter<'_>, content: &Content) {
    if content.length == 0 {
        return;
    }
    map.u64(key::LENGTH, content.length);
    match &content.root {
        ContentRoot::Inline(refs) => map.array(key::INLINE, |array| write_refs(array, refs)),
        ContentRoot::Tree { height, page } => map.array(key::TREE, |array| {
            array.u64(u64::from(*height));
            write_page_ref(array, page);
        }),
    }
}

fn read_content(map: &mut MapReader<'_>) -> Result<Content> {
    let Some(length) = map.optional(key::LENGTH)? else { return Ok(Content::default()) };
    let field = length;
    let length = length.u64()?;
    if length == 0 || length > limits::CONTENT {
        return Err(field.damaged("its content has an impossible length"));
    }
    if let Some(inline) = map.optional(key::INLINE)? {
        let refs: Vec<ChunkRef> = read_refs(inline.array()?, limits::INLINE_REFS, length)?;
        return Ok(Content { length, root: ContentRoot::Inline(refs) });
    }
    let mut tree = map.required(key::TREE)?.array()?;
    let height = tree.required()?.u8()?;
    let page: PageRef = read_page_ref(&mut tree)?;
    tree.finish()?;
    Ok(Content { length, root: ContentRoot::Tree { height, page } })
}

fn write_attributes(map: &mut MapWriter<'_>, attributes: &Attributes) {
    let number = |map: &mut MapWriter<'_>, key, value: Option<u32>| {
        if let Some(value) = value {
            map.u64(key, u64::from(value));
        }
    };
    number(map, key::MODE, attributes.mode);
    number(map, key::UID, attributes.uid);
    number(map, key::GID, attributes.gid);
    for (key, name) in [(key::USER, &attributes.user), (key::GROUP, &attributes.group)] {
        if let Some(name) = name {
            map.text(key, name);
        }
    }
    for (key, instant) in [(key::MODIFIED, attributes.modified), (key::CHANGED, attributes.changed)] {
        if let Some(instant) = instant {
            let (seconds, nanoseconds) = instant.to_unix();
            map.array(key, |pair| {
                pair.i64(seconds);
                pair.u64(u64::from(nanoseconds));
            });
        }
    }
    if let Some(inode) = attributes.inode {
        map.u64(key::INODE, inode);
    }
    if !attributes.extended.is_empty() {
        map.array(key::EXTENDED, |array| {
            for (name, value) in &attributes.extended {
                array.bytes(name);
                array.bytes(value);
            }
        });
    }
}

fn read_attributes(map: &mut MapReader<'_>) -> Result<Attributes> {
    let mut attributes = Attributes {
        mode: read_u32(map, key::MODE)?,
        uid: read_u32(map, key::UID)?,
        gid: read_u32(map, key::GID)?,
        user: map.optional(key::USER)?.map(|value| value.text().map(str::to_owned)).transpose()?,
        group: map.optional(key::GROUP)?.map(|value| value.text().map(str::to_owned)).transpose()?,
        modified: map.optional(key::MODIFIED)?.map(read_instant).transpose()?,
        changed: map.optional(key::CHANGED)?.map(read_instant).transpose()?,
        inode: map.optional(key::INODE)?.map(Value::u64).transpose()?,
        extended: Vec::new(),
    };
    if let Some(extended) = map.optional(key::EXTENDED)? {
        let mut items = extended.array()?;
        if items.remaining() == 0 {
            return Err(extended.damaged("an empty list of extended attributes is given"));
        }
        while items.remaining() > 0 {
            let name = items.required()?.bytes()?.to_vec();
            attributes.extended.push((name, items.required()?.bytes()?.to_vec()));
        }
    }
    Ok(attributes)
}

fn read_u32(map: &mut MapReader<'_>, key: u64) -> Result<Option<u32>> {
    map.optional(key)?.map(Value::u32).transpose()
}

fn read_instant(value: Value<'_>) -> Result<Timestamp> {
    let mut pair = value.array()?;
    let (seconds, nanoseconds) = (pair.required()?.i64()?, pair.required()?.u32()?);
    pair.finish()?;
    Timestamp::from_unix(seconds, nanoseconds).map_err(|_| value.damaged("a time is out of range"))
}

fn read_path(value: Value<'_>, name: &dyn fmt::Display) -> Result<EntryPath> {
    EntryPath::new(value.bytes()?).map_err(|error| Error::damaged(WHAT, name, error.to_string()))
}

#[cfg(test)]
pub(super) mod tests;
