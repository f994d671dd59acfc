//! Block devices as sources and targets, with a loop device.

mod support;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use backup_adapters::tree::{OverwritePolicy, SourceOptions};
use backup_adapters::{FileSink, FileTreeSource, ImageSource};
use backup_core::content::EntryKind;
use backup_core::source::{BlockSink, BlockSource, TreeSource};
use support::skip;

const LENGTH: u64 = 4 << 20;

/// A loop device over a file full of ones, detached when dropped.
struct Loop(PathBuf, #[expect(dead_code, reason = "kept for its file")] tempfile::TempDir);

impl Loop {
    fn attach() -> Option<Self> {
        let here = tempfile::tempdir().unwrap();
        let file = here.path().join("backing");
        fs::write(&file, vec![1; usize::try_from(LENGTH).unwrap()]).unwrap();
        match Command::new("losetup").args(["-f", "--show"]).arg(&file).output() {
            Ok(output) if output.status.success() => {
                Some(Self(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()), here))
            }
            _ => {
                skip("loop devices need root");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

#[test]
fn a_device_is_written_in_place_and_read_as_a_disk() {
    let Some(device) = Loop::attach() else { return };
    let error = FileSink::create(device.path(), OverwritePolicy::Refuse).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    let sink = FileSink::create(device.path(), OverwritePolicy::Overwrite).unwrap();
    sink.write_at(0, &[7; 4096]).unwrap();
    sink.hole(4096, LENGTH - 8192).unwrap();
    sink.write_at(LENGTH - 4096, &[8; 4096]).unwrap();
    sink.finish(LENGTH).unwrap();
    assert_eq!(sink.finish(LENGTH + 1).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(sink.write_at(LENGTH, &[1]).is_err());

    let image = ImageSource::open(device.path()).unwrap();
    let mut walk = FileTreeSource::new([device.path()], SourceOptions::default()).unwrap();
    let node = walk.next_node().unwrap().unwrap();
    assert!(node.kind == EntryKind::Disk && node.size == LENGTH && walk.next_node().is_none());
    let content = node.content.unwrap().open().unwrap();
    assert!(content.is_image() && content.is_unchanged().unwrap());
    for source in [&image as &dyn BlockSource, &*content as &dyn BlockSource] {
        assert_eq!(source.length(), LENGTH);
        let mut covered = 0;
        source
            .extents(0, &mut |extent| {
                covered += extent.length;
                true
            })
            .unwrap();
        assert_eq!(covered, LENGTH);
        let mut all = vec![9; usize::try_from(LENGTH).unwrap()];
        source.read_at(0, &mut all).unwrap();
        assert!(all.starts_with(&[7; 4096]) && all.ends_with(&[8; 4096]));
        assert!(all[4096..all.len() - 4096].iter().all(|byte| *byte == 0), "old data shows through a hole");
    }
}

#[test]
fn a_device_below_a_root_is_a_node_without_content() {
    let Some(device) = Loop::attach() else { return };
    let from = tempfile::tempdir().unwrap();
    let number = rustix::fs::stat(device.path()).unwrap().st_rdev;
    let node = from.path().join("node");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &node, rustix::fs::FileType::BlockDevice, mode, number).unwrap();
    let mut walk = FileTreeSource::new([from.path()], SourceOptions::default()).unwrap();
    assert_eq!(walk.next_node().unwrap().unwrap().kind, EntryKind::Directory);
    let node = walk.next_node().unwrap().unwrap();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    assert_eq!(node.kind, EntryKind::BlockDevice { major, minor });
    assert!(node.content.is_none());
}
