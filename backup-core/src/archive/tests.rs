//! Archives of many small groups, damaged at every place.

use std::io;
use std::sync::Arc;

use crate::archive::block::{BLOCK_LENGTH, Identity};
use crate::archive::blocks::Blocks;
use crate::archive::geometry::Geometry;
use crate::archive::repair::repair;
use crate::archive::writer::BlockWriter;
use crate::repository::Control;
use crate::source::BlockSource;

struct File(Vec<u8>);

impl BlockSource for File {
    fn length(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.0[from..from + buffer.len()]);
        Ok(())
    }
}

fn noise(length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    blake3::Hasher::new().update(&length.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The data and the archive of it.
fn written(geometry: Geometry) -> (Vec<u8>, Vec<u8>) {
    let identity = Identity { id: [3; 16], geometry };
    let mut out = Vec::new();
    let mut writer = BlockWriter::new(&mut out, identity).unwrap();
    let data = noise(geometry.data * 65_472);
    // In pieces that end anywhere.
    for piece in data.chunks(50_001) {
        writer.write(piece).unwrap();
    }
    writer.finish().unwrap();
    (data, out)
}

fn blocks(bytes: &[u8]) -> Blocks {
    Blocks::open(Arc::new(File(bytes.to_vec())), "file", &Control::default()).unwrap()
}

#[test]
fn every_burst_over_many_groups_is_mended() {
    for (columns, rows, depth, data) in [(3, 2, 2, 31), (2, 1, 3, 14), (20, 3, 1, 41), (5, 2, 4, 4)] {
        let geometry = Geometry::new(columns, rows, depth, data).unwrap();
        let (data, bytes) = written(geometry);
        let burst = usize::try_from(geometry.promise()).unwrap();
        let promised = usize::try_from(geometry.parity()).unwrap();
        for start in (0..bytes.len()).step_by(BLOCK_LENGTH / 2 + 1) {
            let mut damaged = bytes.clone();
            damaged[start..(start + burst).min(bytes.len())].fill(0);
            let mut out = Vec::new();
            let report = repair(Arc::new(File(damaged.clone())), "file", &mut out, &Control::default()).unwrap();
            assert!(out == bytes && report.exact, "{geometry:?} {start}");
            assert!(report.found.lost_blocks <= u64::try_from(promised).unwrap());
            let read = blocks(&damaged).read(0, u64::try_from(data.len()).unwrap()).unwrap();
            assert!(read.as_ref() == Some(&data), "{geometry:?} {start}");
        }
    }
}

/// Every set of lost blocks of a small archive: mended where each stripe has enough left, and only there.
#[test]
fn every_set_of_lost_blocks_is_judged_rightly() {
    let geometry = Geometry::new(2, 1, 2, 6).unwrap();
    let (_, bytes) = written(geometry);
    assert_eq!(bytes.len(), 10 * BLOCK_LENGTH);
    for pattern in 1u32..1 << 10 {
        let mut damaged = bytes.clone();
        let mut losses = std::collections::BTreeMap::new();
        for block in (0..10u64).filter(|block| pattern >> block & 1 == 1) {
            damaged[usize::try_from(block).unwrap() * BLOCK_LENGTH + 1000] ^= 1;
            let place = geometry.place(block);
            *losses.entry((place.group, place.stripe)).or_insert(0) += 1;
        }
        let mut out = Vec::new();
        let Ok(report) = repair(Arc::new(File(damaged)), "file", &mut out, &Control::default()) else {
            assert_eq!(pattern, (1 << 10) - 1, "an archive was found in nothing but damage");
            continue;
        };
        let can_be_mended = losses.values().all(|count| *count <= 1);
        assert_eq!(report.exact, can_be_mended, "{pattern:b}");
        assert_eq!(out == bytes, can_be_mended, "{pattern:b}");
        assert_eq!(report.found.lost_blocks, u64::from(pattern.count_ones()));
    }
}
