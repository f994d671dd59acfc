//! Restores in shards: together they are the whole, whoever runs them, and what is missing is noticed.

mod support;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use backup_core::ErrorKind;
use backup_core::content::{EntryKind, EntryPath};
use backup_core::extent::{Extent, ExtentKind};
use backup_core::progress::Event;
use backup_core::repository::{Backup, Planned, Repository, RestorePlan, Selection, Shard, ShardReport};
use backup_core::source::{BlockSink, BlockSource};
use support::tree::{Made, Node, Target, Tree};
use support::{control, init_with, memory, noise, open, options, path, small_options};

const IMAGE: u64 = (5 << 20) + 77_777;
const HOLE: (u64, u64) = (1 << 20, 2 << 20);

struct Image(Vec<u8>);

impl BlockSource for Image {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn extents(&self, from: u64, visit: &mut dyn FnMut(Extent) -> bool) -> io::Result<()> {
        let end = HOLE.0 + HOLE.1;
        let data = ExtentKind::Data;
        let extents = [
            Extent::new(0, HOLE.0, data),
            Extent::new(HOLE.0, HOLE.1, ExtentKind::Zero),
            Extent::new(end, IMAGE - end, data),
        ];
        extents.into_iter().filter(|extent| extent.end() > from).all(visit);
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.copy_from_slice(&self.0[offset as usize..][..buffer.len()]);
        Ok(())
    }
}

fn image() -> Vec<u8> {
    let mut bytes = noise(3, IMAGE as usize);
    bytes[HOLE.0 as usize..(HOLE.0 + HOLE.1) as usize].fill(0);
    bytes
}

fn stream() -> Vec<u8> {
    noise(4, (4 << 20) + 3)
}

/// A tree of everything, an image and a stream.
fn backup() -> (Repository, Backup) {
    let storage = memory();
    let repository = init_with(storage.clone(), &small_options(), 1).unwrap();
    let mut session = repository.begin(options(2)).unwrap();
    let mut nodes = vec![
        Node::directory("tree"),
        Node::directory("tree/empty"),
        Node::directory("tree/sub"),
        Node::file("tree/large", noise(1, 400_000)),
        Node::file("tree/nothing", []),
        Node::symlink("tree/sub/link", "nowhere"),
        Node::new("tree/sub/pipe", EntryKind::Fifo),
    ];
    for number in 0..60 {
        let name = format!("tree/sub/file-{number:02}");
        nodes.push(Node::file(&name, noise(100 + number, 500)));
        nodes.push(Node::file(&format!("tree/zz-name-{number:02}"), noise(100 + number, 500)).link_to(&name));
    }
    session.add_tree(&mut Tree::new(nodes)).unwrap();
    session.add_blocks(path("vm/disk"), &Image(image())).unwrap();
    session.add_stream(path("dump"), &mut stream().as_slice()).unwrap();
    let backup = session.commit().unwrap();
    (open(storage, 9).unwrap(), backup)
}

fn shards(count: u32) -> Vec<Shard> {
    (1..=count).map(|number| Shard::new(number, count).unwrap()).collect()
}

/// What a plan comes to when it has travelled as text.
fn sent(plan: &RestorePlan) -> RestorePlan {
    serde_json::from_str(&serde_json::to_string(plan).unwrap()).unwrap()
}

fn returned(report: &ShardReport) -> ShardReport {
    serde_json::from_str(&serde_json::to_string(report).unwrap()).unwrap()
}

fn in_shards(repository: &Repository, plan: &RestorePlan, count: u32) -> (BTreeMap<EntryPath, Made>, ShardReport) {
    let (mut made, mut reports, mut sizes) = (BTreeMap::new(), Vec::new(), Vec::new());
    for shard in shards(count) {
        let target = Target::default();
        let report = repository.restore_planned(&sent(&plan.shard(shard)), &target, &control(2)).unwrap();
        assert!(report.is_complete(), "{report:?}");
        let map = target.into_map();
        assert_eq!(report.entries, map.len() as u64);
        sizes.push(map.len());
        for (path, one) in map {
            assert!(one != Made::Other(EntryKind::Directory), "{path} is a directory");
            assert!(made.insert(path.clone(), one).is_none(), "{path} was restored twice");
        }
        reports.push(returned(&report));
    }
    assert!(count == 1 || sizes.iter().filter(|size| **size > 0).count() > 1, "one did all: {sizes:?}");
    let merged = ShardReport::merge(reports).unwrap();
    let target = Target::default();
    let whole = repository.complete_planned(merged, &target, &control(1)).unwrap();
    made.extend(target.into_map());
    (made, whole)
}

#[test]
fn shards_of_a_tree_are_together_what_a_restore_makes() {
    let (repository, backup) = backup();
    for selection in [Selection::all(), Selection::within(vec![path("tree/sub"), path("vm")])] {
        let target = Target::default();
        let report = repository.restore_tree(&backup, &selection, &target, &control(2)).unwrap();
        let expected = target.into_map();
        let plan = repository.plan_restore(&backup, &selection).unwrap();
        for count in 1..=5 {
            let (made, whole) = in_shards(&repository, &plan, count);
            assert!(made == expected, "{count} shards");
            assert_eq!((whole.entries, whole.bytes), (report.entries, report.bytes));
            assert!(whole.is_complete() && whole.plan == plan);
        }
    }
}

/// A target that all shards write, and that notices what is written twice.
#[derive(Default)]
struct Shared {
    written: Mutex<BTreeMap<u64, Vec<u8>>>,
    holes: Mutex<u64>,
    finished: Mutex<Vec<u64>>,
}

impl BlockSink for Shared {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        assert!(!data.is_empty());
        assert!(self.written.lock().unwrap().insert(offset, data.to_vec()).is_none(), "{offset} is written twice");
        Ok(())
    }

    fn hole(&self, offset: u64, length: u64) -> io::Result<()> {
        *self.holes.lock().unwrap() += length;
        self.write_at(offset, &vec![0; length as usize])
    }

    fn finish(&self, length: u64) -> io::Result<()> {
        self.finished.lock().unwrap().push(length);
        Ok(())
    }
}

impl Shared {
    fn content(&self) -> Vec<u8> {
        let mut content = Vec::new();
        for (offset, data) in &*self.written.lock().unwrap() {
            assert_eq!(*offset, content.len() as u64, "there is a gap, or something twice");
            content.extend(data);
        }
        content
    }
}

#[test]
fn shards_of_a_content_write_disjoint_ranges_of_one_target() {
    let (repository, backup) = backup();
    for (name, expected, holes) in
        [("vm/disk", image(), HOLE.1), ("dump", stream(), 0), ("tree/nothing", Vec::new(), 0)]
    {
        let plan = repository.plan_content(&backup, &path(name)).unwrap();
        // More shards than there are pieces of work, too.
        for count in [1, 2, 3, 4, 5, 16] {
            let shared = Shared::default();
            let reports = shards(count).into_iter().map(|shard| {
                let plan = sent(&plan.shard(shard));
                returned(&repository.restore_planned_content(&plan, &shared, &control(2)).unwrap())
            });
            let merged = ShardReport::merge(reports.collect()).unwrap();
            assert_eq!((merged.bytes, merged.entries), (expected.len() as u64, 1));
            assert!(shared.content() == expected, "{name} in {count}");
            assert_eq!(*shared.holes.lock().unwrap(), holes);
            assert_eq!(*shared.finished.lock().unwrap(), vec![expected.len() as u64; count as usize]);
        }
    }
}

/// The work is divided: together shards read what a whole restore reads, and each its part.
#[test]
fn a_shard_reads_its_part_only() {
    let (repository, backup) = backup();
    let plan = repository.plan_content(&backup, &path("vm/disk")).unwrap();
    let fetched_by = |plan: &RestorePlan| {
        let sum = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&sum);
        let observer = move |event: &Event<'_>| {
            if let Event::Fetched { bytes } = event {
                counted.fetch_add(*bytes, Ordering::Relaxed);
            }
        };
        let control = control(1).with_observer(Arc::new(observer));
        repository.restore_planned_content(plan, &Shared::default(), &control).unwrap();
        sum.load(Ordering::Relaxed)
    };
    let whole = fetched_by(&plan);
    let fetched: Vec<u64> = shards(5).into_iter().map(|shard| fetched_by(&plan.shard(shard))).collect();
    let sum: u64 = fetched.iter().sum();
    assert!(sum > 3_000_000 && sum <= whole, "{fetched:?} of {whole}");
    // The second and the third are the hole.
    assert_eq!(fetched[1..3], [0, 0], "{fetched:?}");
    assert!(fetched.iter().all(|part| part * 5 < whole * 2), "{fetched:?} of {whole}");
}

#[test]
fn what_is_missing_or_of_another_restore_is_refused() {
    let (repository, backup) = backup();
    let plan = repository.plan_content(&backup, &path("dump")).unwrap();
    let run = |plan: &RestorePlan, count: u32| -> Vec<ShardReport> {
        let run =
            |shard| repository.restore_planned_content(&plan.shard(shard), &Shared::default(), &control(1)).unwrap();
        shards(count).into_iter().map(run).collect()
    };
    let refused = |reports: Vec<ShardReport>, why: &str| {
        let error = ShardReport::merge(reports).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidArgument && error.to_string().contains(why), "{error}");
    };
    let reports = run(&plan, 3);
    for missing in 0..3 {
        let mut some = reports.clone();
        some.remove(missing);
        refused(some, &format!("shard {}/3 is missing", missing + 1));
    }
    refused(Vec::new(), "there are none");
    refused([reports.clone(), reports[1..2].to_vec()].concat(), "twice");
    refused([reports[..2].to_vec(), run(&plan, 4)[2..].to_vec()].concat(), "another restore");
    let other = run(&repository.plan_content(&backup, &path("vm/disk")).unwrap(), 3);
    refused([reports[..2].to_vec(), other[2..].to_vec()].concat(), "another restore");
    let mut short = reports.clone();
    short[0].bytes -= 1;
    refused(short, "were restored");
    let mut whole = reports;
    whole[0].plan.shard = None;
    refused(whole, "not of a shard");

    // Plans of other repositories, of other kinds, and of backups that are gone.
    let error = |plan: &RestorePlan| {
        let tree = repository.restore_planned(plan, &Target::default(), &control(1)).unwrap_err().kind();
        (
            tree,
            repository.restore_planned_content(plan, &Shared::default(), &control(1)).map(drop).map_err(|e| e.kind()),
        )
    };
    let mut changed = plan.clone();
    changed.repository = backup_core::id::RepositoryId::new([9; 16]);
    assert_eq!(error(&changed), (ErrorKind::InvalidArgument, Err(ErrorKind::InvalidArgument)));
    assert_eq!(error(&plan), (ErrorKind::InvalidArgument, Ok(())));
    let mut changed = plan.clone();
    changed.backup = backup_core::id::BackupId::new([9; 32]);
    assert_eq!(error(&changed).1, Err(ErrorKind::NotFound));
    let mut changed = plan;
    if let Planned::Content { length, .. } = &mut changed.what {
        *length += 1;
    }
    assert_eq!(error(&changed).1, Err(ErrorKind::InvalidArgument));
    assert_eq!(repository.plan_content(&backup, &path("tree")).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let nowhere = Selection::within(vec![path("nowhere")]);
    assert_eq!(repository.plan_restore(&backup, &nowhere).unwrap_err().kind(), ErrorKind::NotFound);
}
