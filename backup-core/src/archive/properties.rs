//! Properties of what reads archives and parity, as functions of arbitrary bytes: for the fuzzer and for the tests
//! that replay its corpus.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a property that does not hold must stop the program"
)]

use std::io;
use std::sync::Arc;

use crate::archive::block::{Header, Identity, PAYLOAD_LENGTH};
use crate::archive::geometry::{Geometry, Profile};
use crate::archive::layout::{Layout, Step, table_record};
use crate::archive::record::{self, Record};
use crate::archive::writer::BlockWriter;
use crate::archive::{ArchiveStorage, check, repair};
use crate::crypto::hash;
use crate::error::Result;
use crate::repository::Control;
use crate::source::BlockSource;
use crate::storage::{Storage, StorageError, list_all};

struct File(Vec<u8>);

impl BlockSource for File {
    fn length(&self) -> u64 {
        crate::length::to_u64(self.0.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).expect("a small file");
        let bytes = self.0.get(from..).and_then(|bytes| bytes.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Data of an archive of two small objects, undamaged and with every kind of damage.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let objects: [(&str, &[u8]); 2] = [("config", b"critical"), ("packs/00/x", &[9; 1000])];
    let record = |(key, content): (&str, &[u8])| Record {
        key: Some(key.parse().expect("a key")),
        size: crate::length::to_u64(content.len()),
        hash: hash::digest(content),
    };
    let [critical, other] = objects.map(record);
    let layout = Layout::new(&[critical], &[other], Profile::Default).expect("a small archive");
    let mut data = Vec::new();
    for step in layout.steps() {
        let (record, content) = match step {
            Step::Object(placed) => {
                let is_it =
                    |(key, _): &&(&str, &[u8])| placed.record.key.as_ref().is_some_and(|own| own.as_str() == *key);
                (placed.record.clone(), objects.iter().find(is_it).expect("one of the two").1)
            }
            Step::Table => {
                let size = crate::length::to_u64(layout.table.len());
                (table_record(size, hash::digest(&layout.table)), &layout.table[..])
            }
        };
        data.extend_from_slice(&record.encode());
        data.extend_from_slice(content);
        data.resize(data.len().next_multiple_of(64), 0);
    }
    data.extend_from_slice(&record::encode_end(layout.tables));
    (0..8u8).map(|kind| [&[100, 3, 77, kind << 5], &data[..]].concat()).collect()
}

/// An archive whose data is `bytes` behind the first four, which say what is done to its blocks: nothing panics, whatever is
/// found has its hash, and a repair of what was repaired changes nothing.
///
/// Checks of records are made to fit, so that what they protect from is reached.
pub fn archive(bytes: &[u8]) {
    let Some(([at, with, cut, kind], data)) = bytes.split_first_chunk::<4>() else { return };
    let _ = Header::decode(data);
    let _ = Record::decode(data);
    if let Ok(records) = record::decode_table(data, 1 << 30) {
        assert_eq!(record::encode_table(&records), data, "one encoding for one table");
    }
    let mut data = data.get(..data.len().min(3 * PAYLOAD_LENGTH)).unwrap_or(data).to_vec();
    // The end of the input is the end of the data, where the tables are named.
    let blocks = data.len().div_ceil(PAYLOAD_LENGTH).max(1);
    let end = data.len().saturating_sub(64) / 64 * 64;
    let tail = data.split_off(end);
    data.resize(blocks * PAYLOAD_LENGTH - 64, 0);
    data.extend_from_slice(&tail);
    data.resize(blocks * PAYLOAD_LENGTH, 0);
    record::make_checks_fit(&mut data);
    let geometry = Geometry::new(2, 1 + kind % 2, 1, crate::length::to_u64(blocks)).expect("a small geometry");
    let mut file = Vec::new();
    let mut writer = BlockWriter::new(&mut file, Identity { id: [7; 16], geometry }).expect("a small archive");
    writer.write(&data).and_then(|()| writer.finish()).expect("memory takes it");
    let position = usize::from(*at) * file.len() / 256;
    match kind >> 5 {
        0 | 1 => {}
        2 => file[position] ^= *with,
        3 => drop(file.drain(position..(position + usize::from(*cut)).min(file.len()))),
        4 => drop(file.splice(position..position, std::iter::repeat_n(*with, usize::from(*cut)))),
        5 => file.truncate(position),
        6 => file.drain(..position).for_each(drop),
        _ => file[position..].fill(*with),
    }
    let Some(storage) = opened(ArchiveStorage::open(Arc::new(File(file.clone())), "fuzz")) else { return };
    for object in list_all(&storage, "").expect("an archive can be listed") {
        match storage.get(&object.key, 1 << 20) {
            Ok(bytes) => assert_eq!(crate::length::to_u64(bytes.len()), object.size, "{}", object.key),
            Err(StorageError::NotFound | StorageError::TooLarge { .. }) => {}
            Err(error) => panic!("{}: {error}", object.key),
        }
    }
    let control = Control::default();
    let found = check(Arc::new(File(file.clone())), "fuzz", &control).expect("it was opened");
    let mut repaired = Vec::new();
    let done = repair(Arc::new(File(file)), "fuzz", &mut repaired, &control).expect("it was opened");
    assert_eq!(done.found.lost_blocks, found.lost_blocks);
    if done.exact {
        let mut again = Vec::new();
        let next = repair(Arc::new(File(repaired.clone())), "fuzz", &mut again, &control).expect("it was repaired");
        assert!(next.found.ok && again == repaired, "a repaired archive is sound");
    }
}

/// What was opened; a refusal must blame the bytes.
fn opened<T>(result: Result<T>) -> Option<T> {
    result.map_err(|error| assert!(error.is_of_one_object(), "{error:?}")).ok()
}
