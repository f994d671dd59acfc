//! Bounds of the format (`docs/format.md`, "Limits"), checked before anything is allocated.

/// Largest `config` object.
pub const CONFIG: u64 = 64 << 10;
/// Exact size of a key slot.
pub const SLOT: u64 = 256;
/// Largest keyring object.
pub const KEYRING: u64 = 64 << 10;
/// Largest commit (an `outcome` object).
pub const COMMIT: u64 = 64 << 10;
/// Largest backup body object.
pub const BODY: u64 = 16 << 20;
/// Most packs in one closure.
pub const CLOSURE_PACKS: u64 = 1 << 24;
/// Largest closure object: 40 bytes a pack and a header.
pub const CLOSURE: u64 = CLOSURE_PACKS * 40 + 64;
/// Largest collection record.
pub const COLLECTION: u64 = 1 << 30;
/// Largest index object.
pub const INDEX: u64 = 256 << 20;
/// Largest sealed object of any type.
pub const OBJECT: u64 = 4 << 30;
/// Most entries in the directory of one pack.
pub const PACK_ENTRIES: u32 = 1 << 18;
/// Largest pack.
pub const PACK: u64 = 256 << 20;
/// Largest chunk, before and after compression.
pub const CHUNK: u32 = 16 << 20;
/// Longest path of an entry in bytes.
pub const PATH: usize = 64 << 10;
/// Longest component of a path in bytes.
pub const PATH_COMPONENT: usize = 4 << 10;
/// Deepest nesting of CBOR maps and arrays.
pub const CBOR_DEPTH: usize = 8;
/// Most levels of a tree of pages.
pub const TREE_HEIGHT: u8 = 8;
/// Most key slots that are tried when opening.
pub const SLOTS_TRIED: usize = 8;
/// Largest content of one entry: 2^62 bytes, so that sums of offsets stay far from overflow.
pub const CONTENT: u64 = 1 << 62;
/// Largest page of a content or catalogue tree.
pub const PAGE: u32 = 8 << 20;
/// Most items in one page.
pub const PAGE_ITEMS: u64 = 1024;
/// Longest encoded entry of a catalogue, without its path.
pub const ENTRY: usize = 4 << 20;
/// Most backups of other repositories that a backup names as what it is a copy of.
pub const ORIGINS: u64 = 64;
/// Most chunk references that stand in an entry itself.
pub const INLINE_REFS: u64 = 4;
