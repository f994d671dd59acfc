//! Packs, chunks and index segments.

use backup_core::id::ChunkId;
use backup_core::storage::{MemoryStorage, Storage};
use backup_core::testing;

use crate::cases::Cases;
use crate::support::forger::{get, pack_of_kind, replace_body};

/// One frame of a run of zeros: 128 KiB a block.
fn zeros(blocks: &[u32]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
    for (at, length) in blocks.iter().enumerate() {
        let header = u32::from(at + 1 == blocks.len()) | 1 << 1 | length << 3;
        frame.extend([&header.to_le_bytes()[..3], &[0]].concat());
    }
    frame
}

pub(crate) fn add(cases: &mut Cases) {
    let storage = MemoryStorage::from_objects(cases.golden.clone());
    let size = |key: &backup_core::storage::Key| get(&storage, key).len();
    let data = pack_of_kind(&storage, 2).into_iter().max_by_key(size).unwrap();
    // The smallest pack has one chunk.
    let single = pack_of_kind(&storage, 2).into_iter().min_by_key(size).unwrap();
    let pages = pack_of_kind(&storage, 3).remove(0);
    let broken = ("restore", "damaged");

    cases.rule(1);
    cases.add("pack-missing", "pack: every one that a closure names is there", ("verify", "missing"), |storage, _| {
        storage.delete(&data).unwrap();
        data.to_string()
    });
    cases.edit("pack-size", "pack: it has the size that the closure says", ("verify", "size"), &data, |bytes| {
        let half = bytes.len() / 2;
        bytes.truncate(half);
    });
    cases.edit("pack-name", "pack: its name is its hash", ("verify", "bytes"), &data, |bytes| {
        *bytes.last_mut().unwrap() ^= 1;
    });
    cases.rule(6);
    let patch =
        |at: usize, patch: &'static [u8]| move |body: &mut Vec<u8>| body[at..at + patch.len()].copy_from_slice(patch);
    let mut forge = |name, rule, change: &dyn Fn(&mut Vec<u8>)| {
        cases.forge(name, rule, ("verify", "chunk"), &single, |body| change(body));
    };
    forge("pack-magic", "pack: it begins with PKB1", &patch(0, b"PKB2"));
    forge("pack-count", "pack: at most 262144 entries", &patch(4, &[0xff; 4]));
    forge("pack-count-above", "pack: its directory fits its body", &patch(4, &[2]));
    forge("pack-count-zero", "pack: at least one entry", &patch(4, &[0; 4]));
    forge("pack-reserved", "pack: reserved bytes are zero", &patch(15, &[1]));
    forge("pack-entry-reserved", "pack: reserved bytes are zero", &patch(59, &[1]));
    forge("pack-stored-zero", "pack: no payload is empty", &patch(48, &[0; 4]));
    forge("pack-stored-beyond", "pack: payloads stand in the body", &patch(50, &[1]));
    forge("pack-empty-chunk", "pack: no chunk is empty", &patch(52, &[0; 4]));
    forge("pack-raw-length", "pack: a chunk has at most 16 MiB", &patch(52, &[1, 0, 0, 1]));
    forge("pack-raw-differs", "pack: a raw payload is the chunk", &|body| body[52] += 1);
    forge("pack-zstd-longer", "pack: a compressed payload is shorter than its chunk", &|body| {
        let stored = body[48..52].to_vec();
        body[52..56].copy_from_slice(&stored);
        body[56] = 1;
    });
    forge("pack-codec", "pack: the codec is known", &patch(56, &[9]));
    forge("pack-kind", "pack: the kind is known", &patch(57, &[2]));
    forge("pack-tail", "pack: nothing follows the last payload", &|body| body.push(0));
    forge("pack-short", "pack: the last payload ends with the body", &|body| body.truncate(body.len() - 1));
    forge("pack-empty", "pack: a header of 16 bytes", &Vec::clear);

    cases.rule(8);
    let id = {
        let repository = crate::support::vectors::open(
            &std::sync::Arc::new(MemoryStorage::from_objects(cases.golden.clone())),
            1,
            0,
        );
        let body = testing::open_object(&repository.unwrap(), single.as_str(), &get(&storage, &single)).unwrap();
        ChunkId::new(body[16..48].try_into().unwrap()).to_string()
    };
    for (name, key) in [("chunk-id", &single), ("page-id", &pages)] {
        cases.add(name, "chunk: its content has its id", ("verify", "chunk"), |storage, repository| {
            let mut body = testing::open_object(repository, key.as_str(), &get(storage, key)).unwrap();
            patch(16, &[0xaa; 32])(&mut body);
            replace_body(storage, repository, key, &body);
            "aa".repeat(32)
        });
    }
    let mut chunk = |name, rule, raw: u32, payload: &[u8]| {
        assert!(payload.len() < raw as usize, "{name}: nothing else is wrong");
        cases.add(name, rule, broken, |storage, repository| {
            let mut body = testing::open_object(repository, single.as_str(), &get(storage, &single)).unwrap();
            assert_eq!(body[52..56], raw.to_le_bytes());
            body.truncate(60);
            body[48..52].copy_from_slice(&(payload.len() as u32).to_le_bytes());
            body[52..56].copy_from_slice(&raw.to_le_bytes());
            body[56] = 1;
            body.extend(payload);
            replace_body(storage, repository, &single, &body);
            id.clone()
        });
    };
    // What refers to it says this.
    let raw = 24;
    chunk("chunk-bomb", "chunk: it decompresses to its length and no more", raw, &zeros(&[128 << 10; 4]));
    chunk("chunk-zstd-short", "chunk: it decompresses to its length", raw, &zeros(&[raw - 1]));
    chunk("chunk-zstd-long", "chunk: it decompresses to its length", raw, &zeros(&[raw + 1]));
    chunk("chunk-zstd-two-frames", "chunk: one zstd frame", raw, &[zeros(&[raw - 1]), zeros(&[1])].concat());
    chunk("chunk-zstd-tail", "chunk: nothing follows the zstd frame", raw, &[&zeros(&[raw])[..], &[0]].concat());
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4][..], &zeros(&[raw])].concat();
    chunk("chunk-zstd-skippable", "chunk: no skippable frame", raw, &skippable);
    chunk("chunk-zstd-dictionary", "chunk: no dictionary", raw, &{
        let mut frame = zeros(&[raw]);
        frame[4] = 1;
        frame.insert(6, 7);
        frame
    });
    chunk("chunk-zstd-cut", "chunk: a whole zstd frame", raw, &zeros(&[raw, raw])[..10]);
    chunk("chunk-no-zstd", "chunk: a zstd frame", raw, &[0x55; 20]);
    chunk("chunk-other", "chunk: its content has its id", raw, &zeros(&[raw]));

    cases.add("chunk-kind", "chunk: it has the kind that its reference says", broken, |storage, repository| {
        let mut body = testing::open_object(repository, single.as_str(), &get(storage, &single)).unwrap();
        body[57] = 1;
        replace_body(storage, repository, &single, &body);
        id.clone()
    });
    index(cases);
}

fn index(cases: &mut Cases) {
    let key = cases.first("index/", "");
    cases.rule(1);
    cases.add("index-missing", "index: every one that a commit names is there", ("verify", "missing"), |storage, _| {
        storage.delete(&key).unwrap();
        key.to_string()
    });
    cases.edit("index-name", "index: its name is its hash", ("verify", "bytes"), &key, |bytes| bytes[300] ^= 1);
    cases.rule(7);
    let mut forge = |name, rule, change: &dyn Fn(&mut Vec<u8>, usize)| {
        cases.forge(name, rule, ("verify", "structure"), &key, |body| {
            let packs = u32::from_le_bytes(body[4..8].try_into().unwrap()) as usize;
            change(body, 16 + 40 * packs);
        });
    };
    // Behind the packs stand entries: id, pack, offset, stored, raw, codec, kind, reserved.
    forge("index-magic", "index: it begins with BIX1", &|body, _| body[3] = b'2');
    forge("index-reserved", "index: reserved bytes are zero", &|body, _| body[15] = 1);
    forge("index-counts", "index: its length fits its counts", &|body, _| body[8] += 1);
    forge("index-counts-huge", "index: its length fits its counts", &|body, _| body[4..12].fill(0xff));
    forge("index-cut", "index: its length fits its counts", &|body, _| body.truncate(body.len() - 1));
    forge("index-packs-order", "index: packs ascend", &|body, entries| {
        assert!(entries >= 96);
        let first: Vec<u8> = body.drain(16..56).collect();
        body.splice(56..56, first);
    });
    forge("index-pack-size-zero", "index: no pack is empty", &|body, _| body[48..56].fill(0));
    forge("index-pack-size-huge", "index: a pack has at most 4 GiB", &|body, _| {
        body[48..56].copy_from_slice(&((4u64 << 30) + 1).to_le_bytes());
    });
    forge("index-order", "index: entries ascend", &|body, entries| {
        let first: Vec<u8> = body.drain(entries..entries + 52).collect();
        body.splice(entries + 52..entries + 52, first);
    });
    forge("index-twice", "index: entries ascend strictly", &|body, entries| {
        let first = body[entries..entries + 52].to_vec();
        body[entries + 52..entries + 104].copy_from_slice(&first);
    });
    forge("index-pack", "index: entries refer to listed packs", &|body, entries| {
        body[entries + 32..entries + 36].fill(0xff);
    });
    forge("index-offset-low", "index: no payload in the header of a pack", &|body, entries| {
        body[entries + 36..entries + 40].copy_from_slice(&[15, 0, 0, 0]);
    });
    forge("index-offset-high", "index: payloads stand in their pack", &|body, entries| {
        body[entries + 36..entries + 40].fill(0xff);
    });
    forge("index-stored-zero", "index: no payload is empty", &|body, entries| body[entries + 40..entries + 44].fill(0));
    forge("index-raw-large", "index: a chunk has at most 16 MiB", &|body, entries| body[entries + 47] = 2);
    forge("index-codec", "index: the codec is known", &|body, entries| body[entries + 48] = 2);
    forge("index-kind", "index: the kind is known", &|body, entries| body[entries + 49] = 2);
    forge("index-entry-reserved", "index: reserved bytes are zero", &|body, entries| body[entries + 51] = 1);
}
