//! Sealed objects and the binary bodies in them.

use super::{assert_blames_bytes, judged};
use crate::compress::{Codec, Compressor, Decompressor};
use crate::crypto::{AesGcm, hash};
use crate::entropy::SeededEntropy;
use crate::error::Result;
use crate::format::Padding;
use crate::format::header::{HEADER_LENGTH, Header};
use crate::id::{ChunkId, RepositoryId, SessionId};
use crate::index::{Index, Segment, SegmentBuilder};
use crate::length::{index, to_u64};
use crate::limits;
use crate::object::{FrameKey, ObjectKeys, ObjectReader, ObjectType, Sealer, frame_nonce};
use crate::pack::{Directory, PackBuilder, PackEntry};
use crate::secret::Secret;

const REPOSITORY: RepositoryId = RepositoryId::new([0x11; 16]);
const KEY: &[u8; 32] = &[0x22; 32];

/// Sealed objects. The first byte chooses how the rest is used: as an object, as changes to an object that was sealed
/// with known keys, as the plaintext of frames that somebody with the keys made, as the bytes of a header.
pub fn sealed_object(bytes: &[u8]) {
    let Some((selector, rest)) = bytes.split_first() else { return };
    match selector % 4 {
        0 => foreign_object(rest),
        1 => changed_object(rest),
        2 => forged_plaintext(rest),
        _ => header(rest),
    }
}

/// Whatever the bytes are, nobody without the keys has made an object that opens.
fn foreign_object(bytes: &[u8]) {
    let root = [(1, Secret::copy_of(&[0x33; 32]))];
    let dedup = Secret::copy_of(&[0x44; 32]);
    let (provider, entropy) = (std::sync::Arc::new(AesGcm), std::sync::Arc::new(SeededEntropy::new(1)));
    let keys = ObjectKeys::new(REPOSITORY, &root, &dedup, provider, entropy).expect("there is a root key");
    for kind in [ObjectType::DataPack, ObjectType::MetaPack, ObjectType::Index, ObjectType::Body] {
        let opened = judged(keys.open(kind, "fuzz", bytes));
        assert!(opened.is_none(), "a {} was opened that nobody has sealed", kind.name());
    }
}

/// A genuine object with changes: four bytes each, a position and what is XORed to the byte there. The object is
/// refused, and so is every range that a change touches; other ranges are what they were.
fn changed_object(input: &[u8]) {
    let Some((length, edits)) = input.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_le_bytes(*length)) % 20_000;
    let body: Vec<u8> = (0..length).map(|position| position.to_le_bytes()[0] ^ position.to_le_bytes()[1]).collect();
    let object = sealer(&SeededEntropy::new(5)).seal(&[&body]).expect("a body can be sealed").bytes.to_vec();
    let mut changed = object.clone();
    let (edits, tail) = edits.as_chunks::<4>();
    for [p0, p1, p2, mask] in edits {
        let position = index(u32::from_le_bytes([*p0, *p1, *p2, 0])) % changed.len();
        changed[position] ^= mask;
    }
    if let [cut, ..] = tail {
        changed.truncate(changed.len().saturating_sub(usize::from(*cut)));
    }
    let is_changed = changed != object;
    let Some(reader) = judged(reader(&changed, to_u64(changed.len()))) else {
        assert!(is_changed, "a genuine object is refused");
        return;
    };
    assert_eq!(changed[..HEADER_LENGTH], object[..HEADER_LENGTH], "a changed header is accepted");
    match judged(reader.open_all(&changed)) {
        Some(opened) => {
            assert!(!is_changed, "a changed object opens");
            assert_eq!(opened, body);
        }
        None => assert!(is_changed, "a genuine object is refused"),
    }
    for range in [0..1, 0..to_u64(length), 4080..4096, 4088..8192, 8184..8185, to_u64(length / 2)..to_u64(length)] {
        let Some(span) = judged(reader.span(&range)) else { continue };
        let (start, end) = (usize::try_from(span.start).unwrap(), usize::try_from(span.end).unwrap());
        let (Some(now), Some(before)) = (changed.get(start..end), object.get(start..end)) else { continue };
        match judged(reader.open_span(&range, now)) {
            Some(opened) => {
                assert_eq!(now, before, "changed frames open");
                let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
                // Ranges behind the body end in its padding, unless the first frame is among those read.
                let padded: Vec<u8> = body.iter().copied().chain(std::iter::repeat(0)).take(end).skip(start).collect();
                assert_eq!(opened, padded);
            }
            None => assert!(now != before || range.end > to_u64(length), "a genuine range is refused"),
        }
    }
}

/// Any plaintext in authentic frames: somebody with the keys chose the length before the body and the padding.
fn forged_plaintext(input: &[u8]) {
    let frames = input.len().div_ceil(4096).clamp(1, 4);
    let mut plain = input.to_vec();
    plain.resize(frames * 4096, 0);
    let frames = u32::try_from(frames).unwrap();
    let mut header = Header {
        kind: ObjectType::Body.number(),
        frame_log2: 12,
        frames,
        repository: REPOSITORY,
        generation: 1,
        session: SessionId::new([0x55; 16]),
        salt: *hash::digest(input).as_bytes(),
        commitment: [0; 32],
    };
    let key = FrameKey::derive(&header, KEY, &AesGcm).expect("a key can be derived");
    header.commitment = *key.commitment();
    let mut object = header.encode().to_vec();
    for (number, frame) in (0..).zip(plain.chunks(4096)) {
        let mut frame = frame.to_vec();
        let tag = key.aead().seal(&frame_nonce(key.iv(), number, frames), &mut frame).expect("a frame can be sealed");
        object.extend(frame);
        object.extend(tag);
    }
    let reader = reader(&object, to_u64(object.len())).expect("the header is genuine");
    // What docs/format.md says, "Sealed objects".
    let length = u64::from_le_bytes(*plain.first_chunk().unwrap());
    let body_and_padding = &plain[8..];
    let body = usize::try_from(length).ok().and_then(|length| body_and_padding.split_at_checked(length));
    let expected = body.filter(|(_, padding)| padding.iter().all(|byte| *byte == 0)).map(|(body, _)| body.to_vec());
    assert_eq!(judged(reader.open_all(&object)), expected);
    let span = reader.length_span();
    let first = &object[usize::try_from(span.start).unwrap()..usize::try_from(span.end).unwrap()];
    assert_eq!(judged(reader.body_length(first)), body.map(|_| length));
    for range in [0..16, 0..length, 4088..4090, length.saturating_sub(9)..length, 0..u64::MAX, u64::MAX - 1..u64::MAX] {
        let Some(span) = judged(reader.span(&range)) else { continue };
        let span = usize::try_from(span.start).unwrap()..usize::try_from(span.end).unwrap();
        if let Some(opened) = judged(reader.open_span(&range, &object[span])) {
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            assert_eq!(opened, body_and_padding[range]);
        }
    }
}

/// The header alone, of an object of any size.
fn header(input: &[u8]) {
    let Some((size, bytes)) = input.split_first_chunk::<8>() else { return };
    let size = u64::from_le_bytes(*size);
    if let Some(header) = judged(Header::parse(bytes, size, "object", "fuzz")) {
        assert_eq!(header.encode(), bytes[..HEADER_LENGTH]);
        check_geometry(&header, size);
    }
    // The size that the header asks for, whatever the input says.
    if let (Some(log2), Some(frames)) = (bytes.get(11), bytes.get(36..40).and_then(<[u8]>::first_chunk::<4>)) {
        let size = 128 + u128::from(u32::from_le_bytes(*frames)) * ((1u128 << (log2 % 64)) + 16);
        let Ok(size) = u64::try_from(size) else { return };
        if let Some(header) = judged(Header::parse(bytes, size, "object", "fuzz")) {
            check_geometry(&header, size);
        }
    }
}

fn check_geometry(header: &Header, size: u64) {
    assert!((12..=20).contains(&header.frame_log2) && (1..=4096).contains(&header.frames));
    let (log2, frames) = (u32::from(header.frame_log2), u128::from(header.frames));
    assert_eq!(u128::from(size), 128 + frames * ((1u128 << log2) + 16));
    assert!(size <= limits::OBJECT);
    assert_eq!(u128::from(header.plaintext_size()), frames << log2);
}

fn sealer(entropy: &SeededEntropy) -> Sealer<'_> {
    Sealer {
        provider: &AesGcm,
        entropy,
        repository: REPOSITORY,
        kind: ObjectType::Body,
        generation: 1,
        session: SessionId::new([0x55; 16]),
        key: KEY,
        hedge: &[0x66; 32],
        padding: Padding::Padme,
    }
}

fn reader(object: &[u8], size: u64) -> Result<ObjectReader> {
    let header = Header::parse(object, size, "backup body", "fuzz")?;
    ObjectReader::new(ObjectType::Body, "fuzz", header, REPOSITORY, KEY, &AesGcm)
}

/// The body of a pack, and its payloads.
pub fn pack(body: &[u8]) {
    let size = to_u64(body.len());
    if let Some(header) = body.get(..crate::pack::HEADER_LENGTH)
        && let Some(length) = judged(Directory::length(header, &"fuzz"))
    {
        assert!(length <= 16 + 44 * (1 << 18));
    }
    // The directory of a pack of another length than the bytes have.
    for other in [size.saturating_sub(1), size + 1, u64::from(u32::MAX), u64::MAX] {
        if let Some(directory) = judged(Directory::parse(body, other, &"fuzz")) {
            assert!(directory.entries().iter().all(|entry| entry.range().end <= other));
        }
    }
    let Some(directory) = judged(Directory::parse(body, size, &"fuzz")) else { return };
    let mut again = PackBuilder::new();
    let mut decompressor = Decompressor::new().expect("zstd can be set up");
    for entry in directory.entries() {
        let payload = judged(Directory::payload(body, entry, &"fuzz")).expect("a payload is within its pack");
        again
            .push(entry.id, entry.kind, entry.codec, entry.raw, payload.to_vec())
            .expect("what was read can be written");
        if let Some(plain) = judged(decompressor.decompress(entry.codec, payload, entry.raw, &"fuzz")) {
            assert_eq!(to_u64(plain.len()), u64::from(entry.raw));
        }
    }
    assert_eq!(again.finish().expect("a pack is not empty").parts().concat(), body);
}

/// The body of an index segment, loaded into an index.
pub fn index_segment(body: &[u8]) {
    let Some(segment) = judged(Segment::parse(body, &"fuzz")) else { return };
    let mut again = SegmentBuilder::new();
    for (number, (name, size)) in (0..).zip(segment.packs()) {
        let entries: Vec<PackEntry> =
            segment.entries().filter(|entry| entry.pack == number).map(|entry| entry.entry).collect();
        again.push(name, size, &entries).expect("what was read can be written");
    }
    assert_eq!(again.finish().expect("what was read can be written"), body);

    let mut index = Index::new();
    index.load(&segment).expect("a segment is loaded");
    assert_eq!(index.packs().len(), segment.packs().len());
    for (name, size) in segment.packs() {
        assert_eq!(index.pack_size(&name), Some(size));
    }
    let packs: Vec<_> = segment.packs().map(|(name, _)| name).collect();
    for found in segment.entries() {
        let places = index.lookup_all(&found.entry.id);
        let pack = packs[usize::try_from(found.pack).unwrap()];
        assert!(
            places.iter().any(|place| (place.pack, place.offset) == (pack, found.entry.offset)),
            "a chunk is not found again"
        );
    }
    // Twice the same segment says nothing new.
    let count = index.chunk_count();
    index.load(&segment).expect("a segment is loaded");
    assert_eq!(index.chunk_count(), count);
    assert!(index.lookup(&ChunkId::new([0xa5; 32])).is_none_or(|place| packs.contains(&place.pack)));
}

/// Decompression into bounded output. The first three bytes are the length that is asked for, the rest is compressed;
/// and the rest, compressed, comes back.
pub fn decompress(bytes: &[u8]) {
    let Some(([low, middle, high], stored)) = bytes.split_first_chunk::<3>() else { return };
    let raw = u32::from_le_bytes([*low, *middle, *high, 0]);
    let mut decompressor = Decompressor::new().expect("zstd can be set up");
    for codec in [Codec::Raw, Codec::Zstd] {
        match decompressor.decompress(codec, stored, raw, &"fuzz") {
            Ok(plain) => assert_eq!(to_u64(plain.len()), u64::from(raw)),
            Err(error) => assert_blames_bytes(&error),
        }
    }
    let level = i32::from(low % 27) - 7;
    let (codec, compressed) = Compressor::new(level.min(9)).expect("the level exists").compress(stored);
    assert!(compressed.len() <= stored.len());
    let length = u32::try_from(stored.len()).unwrap();
    let plain = decompressor.decompress(codec, &compressed, length, &"fuzz").expect("what was compressed comes back");
    assert_eq!(plain, stored);
}
