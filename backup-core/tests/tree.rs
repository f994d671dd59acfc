//! Trees of files that change, vanish and break while they are read, through the engine and back.

mod support;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use backup_core::ErrorKind;
use backup_core::content::{Attributes, Entry, EntryKind, EntryPath};
use backup_core::extent::Extent;
use backup_core::progress::{Event, Observer};
use backup_core::repository::{Backup, Repository, Selection, VerifyLevel, VerifyOptions};
use backup_core::source::{BlockSink, BlockSource, TreeSink};
use backup_core::storage::Key;
use proptest::prelude::*;
use support::forger::overwrite;
use support::tree::{Made, Manner, Node, Target, Tree};
use support::{assert_sound, control, init_with, memory, noise, open, options, path, small_options};

/// Chunks of 4 to 64 KiB: files up to 4 KiB are small ones.
fn repository() -> Repository {
    init_with(memory(), &small_options(), 1).unwrap()
}

fn back_up(repository: &Repository, nodes: Vec<Node>, threads: usize) -> Backup {
    let mut session = repository.begin(options(threads)).unwrap();
    session.add_tree(&mut Tree::new(nodes)).unwrap();
    session.commit().unwrap()
}

fn entries(repository: &Repository, backup: &Backup) -> BTreeMap<EntryPath, Entry> {
    repository.entries(backup).unwrap().map(|entry| entry.map(|entry| (entry.path.clone(), entry)).unwrap()).collect()
}

fn restore(repository: &Repository, backup: &Backup, threads: usize) -> BTreeMap<EntryPath, Made> {
    let target = Target::default();
    let report = repository.restore_tree(backup, &Selection::all(), &target, &control(threads)).unwrap();
    assert!(report.is_complete(), "{:?}", report.problems);
    let made = target.into_map();
    assert_eq!(report.entries, made.len() as u64);
    made
}

fn content(bytes: &[u8]) -> Made {
    Made::Content(Arc::new(bytes.to_vec()), 0)
}

fn bytes<'m>(made: &'m BTreeMap<EntryPath, Made>, name: &str) -> &'m [u8] {
    match &made[&path(name)] {
        Made::Content(bytes, _) => bytes,
        other => panic!("{name}: {other:?}"),
    }
}

fn problems(backup: &Backup) -> Vec<&str> {
    let mut names: Vec<&str> = backup.problems.iter().map(|problem| problem.name.as_str()).collect();
    names.sort_unstable();
    names
}

/// A small file, a large one, an image: each of the three ways of reading.
fn three(name: &str, manner: &Manner) -> Vec<Node> {
    [("small", 3000, false), ("large", 300_000, false), ("image", 300_000, true)]
        .into_iter()
        .map(|(way, length, is_image)| {
            let node = Node::file(&format!("{name}-{way}"), noise(length, length as usize));
            Node { is_image, ..node }.with_manner(manner.clone())
        })
        .collect()
}

#[test]
fn what_changes_while_it_is_read_is_kept_and_marked() {
    for threads in [1, 3] {
        for manner in [Manner::Changed, Manner::Unknowable] {
            let repository = repository();
            let mut nodes = three("changed", &manner);
            nodes.extend(three("good", &Manner::Normal));
            let backup = back_up(&repository, nodes.clone(), threads);
            assert!(!backup.is_complete());
            assert_eq!(problems(&backup), ["changed-image", "changed-large", "changed-small"]);
            for (name, entry) in entries(&repository, &backup) {
                assert_eq!(entry.inconsistent, name.to_string().starts_with("changed"), "{name}");
            }
            let made = restore(&repository, &backup, threads);
            for node in &nodes {
                assert_eq!(made[&node.path], content(node.content.as_ref().unwrap()), "{}", node.path);
            }
            assert_sound(&repository);

            // The next backup reads what was inconsistent again, whatever its times say.
            let nodes: Vec<Node> = three("changed", &Manner::Normal);
            assert!(entries(&repository, &back_up(&repository, nodes, threads)).values().all(|e| !e.inconsistent));
        }
    }
}

#[test]
fn what_vanishes_or_breaks_is_listed_and_the_rest_is_backed_up() {
    for threads in [1, 3] {
        for manner in [Manner::Vanished, Manner::BrokenAt(2000), Manner::BrokenAt(0)] {
            let repository = repository();
            let mut nodes = three("bad", &manner);
            nodes.extend(three("good", &Manner::Normal));
            let backup = back_up(&repository, nodes.clone(), threads);
            assert_eq!(problems(&backup), ["bad-image", "bad-large", "bad-small"], "{manner:?}");
            assert_eq!(backup.problem_count, 3);
            let word = if manner == Manner::Vanished { "not found" } else { "unreadable sector" };
            assert!(backup.problems.iter().all(|problem| problem.message.contains(word)), "{:?}", backup.problems);
            let made = restore(&repository, &backup, threads);
            assert_eq!(made.len(), 3, "{manner:?}: what was left out is not restored as something else");
            for node in &nodes[3..] {
                assert_eq!(made[&node.path], content(node.content.as_ref().unwrap()), "{}", node.path);
            }
            assert_eq!(backup.statistics.entries, 3);
            assert_sound(&repository);
        }
    }
}

#[test]
fn an_error_late_in_a_large_file_leaves_out_that_file_only() {
    for threads in [1, 3] {
        let repository = repository();
        let broken = Node::file("b", noise(1, 9 << 20));
        let nodes = vec![
            Node::file("a", noise(2, 500_000)),
            broken.clone().with_manner(Manner::BrokenAt(8 << 20)),
            Node::file("c", noise(3, 500_000)),
        ];
        let backup = back_up(&repository, nodes, threads);
        assert_eq!(problems(&backup), ["b"]);
        let made = restore(&repository, &backup, threads);
        assert_eq!((bytes(&made, "a"), bytes(&made, "c")), (&noise(2, 500_000)[..], &noise(3, 500_000)[..]));
        assert_eq!(made.len(), 2);
        // What was stored of it is used when it can be read again.
        let backup = back_up(&repository, vec![broken], threads);
        assert!(backup.statistics.bytes_new < 2 << 20, "{:?}", backup.statistics);
        assert_eq!(bytes(&restore(&repository, &backup, threads), "b"), noise(1, 9 << 20));
        assert_sound(&repository);
    }
}

#[test]
fn what_is_truncated_while_it_is_read_is_kept_up_to_there() {
    for threads in [1, 3] {
        for end in [0usize, 1, 2999, 3000, 65_536, 100_000, 299_999] {
            let repository = repository();
            let mut nodes = three("cut", &Manner::TruncatedAt(end as u64));
            // Holes behind the end are no content either, and what is read behind it does not count.
            let mut sparse = noise(300_000, 300_000);
            sparse[65_536..131_072].fill(0);
            sparse[196_608..262_144].fill(0);
            nodes.push(
                Node::file("cut-sparse", sparse.clone())
                    .image()
                    .with_hole(65_536, 65_536)
                    .with_hole(196_608, 65_536)
                    .with_manner(Manner::TruncatedAt(end as u64)),
            );
            let backup = back_up(&repository, nodes, threads);
            let made = restore(&repository, &backup, threads);
            // Content ends where its file ends by now.
            let small = &noise(3000, 3000)[..end.min(3000)];
            assert_eq!(bytes(&made, "cut-small"), small);
            assert_eq!(bytes(&made, "cut-large"), &noise(300_000, 300_000)[..end]);
            assert!(bytes(&made, "cut-image") == &noise(300_000, 300_000)[..end], "{end}");
            // Nobody sees an end that lies in a hole before he reads behind it.
            let seen = if (65_536..131_072).contains(&end) { 131_072 } else { end };
            assert!(bytes(&made, "cut-sparse") == &sparse[..seen], "{end}");
            let entries = entries(&repository, &backup);
            assert_eq!(entries[&path("cut-small")].inconsistent, end < 3000, "{end}");
            for name in ["cut-large", "cut-image", "cut-sparse"] {
                assert!(entries[&path(name)].inconsistent, "{name} {end}");
            }
            assert_eq!(entries[&path("cut-small")].digest.unwrap().as_bytes(), blake3::hash(small).as_bytes());
            assert_eq!(backup.problem_count, 4 - u64::from(end >= 3000));
            assert_sound(&repository);
        }
    }
}

#[test]
fn a_listed_length_is_not_believed() {
    for threads in [1, 3] {
        for listed in [0, 100, 4096, 4097, 1 << 40] {
            let repository = repository();
            let nodes = three("file", &Manner::ListedAs(listed));
            let backup = back_up(&repository, nodes.clone(), threads);
            let made = restore(&repository, &backup, threads);
            for (name, entry) in entries(&repository, &backup) {
                let whole = nodes.iter().find(|node| node.path == name).unwrap().content.clone().unwrap();
                let made = bytes(&made, &name.to_string());
                if entry.inconsistent {
                    assert!(whole.starts_with(made) && made.len() < whole.len(), "{name} listed as {listed}");
                } else {
                    assert!(made == whole.as_slice(), "{name} listed as {listed}");
                }
            }
            assert_sound(&repository);
        }
    }
}

#[test]
fn problems_of_the_walk_are_listed() {
    let repository = repository();
    let mut session = repository.begin(options(1)).unwrap();
    session
        .add_tree(&mut Tree::in_given_order(vec![
            Ok(Node::file("a", b"a")),
            Err(("b/locked".into(), io::ErrorKind::PermissionDenied)),
            Ok(Node::file("c", b"c")),
        ]))
        .unwrap();
    let backup = session.commit().unwrap();
    assert_eq!(problems(&backup), ["b/locked"]);
    assert!(backup.problems[0].message.contains("permission denied"));
    assert_eq!(restore(&repository, &backup, 1).len(), 2);
    // They are kept with the backup.
    let found = repository.find_backup("latest").unwrap();
    assert_eq!((found.problems, found.problem_count), (backup.problems.clone(), 1));
}

#[test]
fn hard_links_share_the_content_of_the_first_name() {
    for threads in [1, 3] {
        for length in [0, 10, 300_000] {
            let repository = repository();
            let name = |name: &str| Node::file(name, noise(1, length));
            let nodes = vec![
                name("a/first"),
                name("a/second").link_to("a/first"),
                name("b/third").link_to("a/first"),
                Node::symlink("c", "target"),
                Node::symlink("d", "target").link_to("c"),
            ];
            let mut session = repository.begin(options(threads)).unwrap();
            let mut tree = Tree::new(nodes);
            let opened = Arc::clone(&tree.opened);
            session.add_tree(&mut tree).unwrap();
            let backup = session.commit().unwrap();
            assert!(backup.is_complete());
            assert_eq!(opened.load(Ordering::SeqCst), 1, "the content is read once");
            assert_eq!(backup.statistics.bytes_logical, length as u64);
            let entries = entries(&repository, &backup);
            assert_eq!(entries[&path("b/third")].hard_link, Some(path("a/first")));
            assert_eq!(entries[&path("d")].hard_link, Some(path("c")));
            let target = Target::default();
            let selection = Selection::within(vec![path("a"), path("b")]);
            repository.restore_tree(&backup, &selection, &target, &control(threads)).unwrap();
            let made = target.into_map();
            assert_eq!(bytes(&made, "a/first"), noise(1, length));
            assert_eq!(made[&path("a/second")], Made::Link(path("a/first")));
            assert_eq!(made[&path("b/third")], Made::Link(path("a/first")));

            // A link whose first name is not selected is restored with the content.
            let target = Target::default();
            let selection = Selection::within(vec![path("b")]);
            repository.restore_tree(&backup, &selection, &target, &control(threads)).unwrap();
            assert_eq!(bytes(&target.into_map(), "b/third"), noise(1, length));
            assert_sound(&repository);
        }
    }
}

#[test]
fn a_hard_link_alone_is_never_an_empty_file() {
    for threads in [1, 3] {
        for length in [10, 300_000] {
            let (repository, bytes) = (repository(), noise(1, length));
            let file = |name: &str| Node::file(name, bytes.clone());
            let mut nodes = vec![file("a"), file("z/link").link_to("a")];
            nodes.extend([Node::symlink("b", "target"), Node::symlink("z/soft", "target").link_to("b")]);
            let backup = back_up(&repository, nodes, threads);

            // Alone in a tree, without the name that has the content.
            let target = Target::default();
            let selection = Selection::within(vec![path("z")]);
            let report = repository.restore_tree(&backup, &selection, &target, &control(threads)).unwrap();
            assert!(report.is_complete(), "{:?}", report.problems);
            let made = target.into_map();
            assert_eq!(made[&path("z/link")], content(&bytes));
            assert_eq!(made[&path("z/soft")], Made::Other(EntryKind::Symlink { target: b"target".to_vec() }));

            // The entry as it stands is refused by everything that gives its content.
            let link = repository.entry(&backup, &path("z/link")).unwrap();
            assert_eq!(link.hard_link, Some(path("a")));
            let control = control(threads);
            let image = File(bytes.clone());
            let refused = [
                repository.restore_stream(&link, &mut Vec::new(), &control).map(drop),
                repository.restore_range(&link, 0..5, &mut Vec::new(), &control).map(drop),
                repository.restore_blocks(&link, &Nowhere, &control),
                repository.open_entry(&link).map(drop),
                repository.compare_stream(&link, &mut bytes.as_slice(), &control).map(drop),
                repository.compare_blocks(&link, &image, &control).map(drop),
            ];
            for (number, result) in refused.into_iter().enumerate() {
                let error = result.expect_err(&format!("way {number}"));
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{number}: {error}");
                assert!(error.to_string().contains("z/link") && error.to_string().contains("link to a,"), "{error}");
            }

            // With its content it is as good as the first name.
            let entry = repository.content_entry(&backup, &path("z/link")).unwrap();
            assert_eq!((&entry.path, &entry.hard_link, entry.size()), (&path("z/link"), &None, length as u64));
            assert_eq!(entry.digest.unwrap().as_bytes(), blake3::hash(&bytes).as_bytes());
            let mut out = Vec::new();
            repository.restore_stream(&entry, &mut out, &control).unwrap();
            assert_eq!(out, bytes);
            assert_eq!(repository.compare_blocks(&entry, &image, &control).unwrap(), None);
            let mut read = Vec::new();
            io::Read::read_to_end(&mut repository.open_entry(&entry).unwrap(), &mut read).unwrap();
            assert_eq!(read, bytes);
            let first = repository.entry(&backup, &path("a")).unwrap();
            assert_eq!(repository.content_entry(&backup, &path("a")).unwrap(), first);
        }
    }
}

#[test]
fn verification_finds_hard_links_that_lead_nowhere() {
    let repository = repository();
    // Many files, so that the pages of links are shared by backups with and without their first names.
    let backup = |first: Option<Node>| {
        let mut nodes: Vec<Node> = (0..5000).map(|number| Node::file(&format!("d/{number:04}"), b"x")).collect();
        nodes.extend((0..70).map(|number| Node::file(&format!("z/{number:02}"), b"a").link_to("a")));
        nodes.push(Node::file("zz", b"x").link_to("d/4000"));
        nodes.extend(first);
        back_up(&repository, nodes, 1)
    };
    let good = backup(Some(Node::file("a", b"a")));
    assert_sound(&repository);
    for (first, reason) in [(None, "not there"), (Some(Node::directory("a")), "something else")] {
        let bad = backup(first);
        let error = repository.content_entry(&bad, &path("z/07")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        let options = VerifyOptions::new(VerifyLevel::Structure).with_backups(vec![good.id, bad.id]);
        let report = repository.verify(&options, None, &control(1)).unwrap();
        assert_eq!(report.findings.len(), 70, "{:#?}", report.findings);
        for finding in &report.findings {
            assert!(finding.object.starts_with("z/") && finding.message.contains(reason), "{finding:?}");
            let entries: Vec<_> = finding.entries.iter().map(|entry| entry.backup).collect();
            assert_eq!(entries, [bad.id], "{finding:?}");
        }
        let locked = VerifyOptions::new(VerifyLevel::Bytes);
        assert!(repository.verify(&locked, None, &control(1)).unwrap().ok);
    }
}

/// A target in which files were before the restore: links to them work, as they do in a directory.
struct Older {
    target: Target,
    older: Vec<EntryPath>,
    refused: Vec<EntryPath>,
}

impl TreeSink for Older {
    fn create(&self, entry: &Entry, hard_link: Option<&EntryPath>) -> io::Result<Option<Box<dyn BlockSink>>> {
        if self.refused.contains(&entry.path) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        match hard_link {
            Some(earlier) if self.older.contains(earlier) => panic!("{} was linked to an older {earlier}", entry.path),
            _ => self.target.create(entry, hard_link),
        }
    }
    fn finish(&self, entry: &Entry, sink: Box<dyn BlockSink>) -> io::Result<()> {
        self.target.finish(entry, sink)
    }
    fn abandon(&self, entry: &Entry, sink: Box<dyn BlockSink>) {
        self.target.abandon(entry, sink);
    }
    fn complete(&self) -> Vec<(EntryPath, io::Error)> {
        self.target.complete()
    }
}

#[test]
fn hard_links_lead_only_to_what_was_restored_with_them() {
    for threads in [1, 3] {
        for length in [0, 10, 300_000] {
            let (repository, whole) = (repository(), noise(1, length));
            let file = |name: &str| Node::file(name, whole.clone());
            let nodes =
                vec![file("a"), file("b").link_to("a"), file("c").link_to("a"), file("d"), file("e").link_to("d")];
            let backup = back_up(&repository, nodes, threads);
            let restore = |selection: &Selection, refused: &str| {
                let sink = Older { target: Target::default(), older: vec![path("a")], refused: vec![path(refused)] };
                let report = repository.restore_tree(&backup, selection, &sink, &control(threads)).unwrap();
                (report, sink.target.into_map())
            };
            // The first name cannot be restored; an older file stands in its place.
            let (report, made) = restore(&Selection::all(), "a");
            assert_eq!((report.problem_count, report.problems[0].name.as_str()), (1, "a"));
            assert_eq!((bytes(&made, "b"), bytes(&made, "c")), (&whole[..], &whole[..]));
            assert_eq!(made[&path("e")], Made::Link(path("d")));
            // It is not selected.
            let (report, made) = restore(&Selection::within(vec![path("b"), path("e")]), "x");
            assert!(report.is_complete());
            assert_eq!((bytes(&made, "b"), bytes(&made, "e")), (&whole[..], &whole[..]));
        }
    }
}

#[test]
fn paths_that_select_nothing_are_named_and_nothing_is_restored() {
    let repository = repository();
    let nodes = vec![Node::directory("home"), Node::file("home/a", b"a"), Node::file("implied/b", b"b")];
    let backup = back_up(&repository, nodes, 1);
    let restore = |paths: &[&str]| {
        let target = Target::default();
        let selection = Selection::within(paths.iter().map(|name| path(name)).collect());
        let result = repository.restore_tree(&backup, &selection, &target, &control(1));
        (result, target)
    };
    for wrong in [&["home/nosuch"][..], &["nosuch", "home/a"], &["home/a/b"], &["home", "hom", "zz"]] {
        let (result, target) = restore(wrong);
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{wrong:?}: {error}");
        for name in wrong {
            let is_there = ["home", "home/a"].contains(name);
            assert_ne!(error.to_string().split([' ', ',']).any(|word| word == *name), is_there, "{wrong:?}: {error}");
        }
        assert!(target.is_untouched(), "{wrong:?}");
    }
    // A directory that has no entry of its own is there where something is in it.
    let (result, target) = restore(&["implied", "home/a"]);
    assert!(result.unwrap().is_complete());
    let made = target.into_map();
    assert_eq!((made.len(), bytes(&made, "implied/b"), bytes(&made, "home/a")), (3, &b"b"[..], &b"a"[..]));
    assert_eq!(restore(&[]).0.unwrap_err().kind(), ErrorKind::InvalidArgument);
}

/// A file to compare with.
struct File(Vec<u8>);

impl BlockSource for File {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }
    fn extents(&self, _: u64, _: &mut dyn FnMut(Extent) -> bool) -> io::Result<()> {
        Ok(())
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.copy_from_slice(&self.0[offset as usize..][..buffer.len()]);
        Ok(())
    }
}

/// A target that must not be touched.
struct Nowhere;

impl BlockSink for Nowhere {
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        panic!("something was written");
    }
    fn hole(&self, _: u64, _: u64) -> io::Result<()> {
        panic!("a hole was made");
    }
    fn finish(&self, _: u64) -> io::Result<()> {
        panic!("it was finished");
    }
}

#[test]
fn a_later_name_stands_in_for_a_first_one_that_cannot_be_read() {
    for threads in [1, 3] {
        for (length, image) in [(10, false), (300_000, false), (300_000, true)] {
            for manner in [Manner::Vanished, Manner::BrokenAt(5)] {
                let repository = repository();
                let file = |name: &str| Node { is_image: image, ..Node::file(name, noise(1, length)) };
                let mut nodes = vec![
                    file("a").with_manner(manner.clone()),
                    file("b").link_to("a").with_manner(manner.clone()),
                    file("c").link_to("a"),
                    file("d").link_to("a"),
                    Node::file("e", b"another"),
                    Node::file("f", b"another").link_to("e"),
                    file("g").link_to("a"),
                    file("z").with_manner(manner.clone()),
                    file("zz").link_to("z").with_manner(manner.clone()),
                ];
                // Many files between, so that some names are decided while others are read.
                nodes.extend((0..100).map(|number| Node::file(&format!("ee/{number}"), noise(number, 2000))));
                let backup = back_up(&repository, nodes, threads);
                assert_eq!(problems(&backup), ["a", "b", "z", "zz"]);
                let made = restore(&repository, &backup, threads);
                assert_eq!(bytes(&made, "c"), noise(1, length), "{threads} {length} {manner:?}");
                assert_eq!(made[&path("d")], Made::Link(path("c")));
                assert_eq!(made[&path("f")], Made::Link(path("e")));
                assert_eq!(made[&path("g")], Made::Link(path("c")));
                assert_eq!(made.len(), 5 + 100);
                assert_sound(&repository);
            }
        }
    }
}

#[test]
fn thousands_of_names_of_unreadable_files_are_all_backed_up() {
    let repository = repository();
    let mut nodes = Vec::new();
    for number in 0..700 {
        let file = |name: &str| Node::file(&format!("{name}/{number:04}"), format!("file {number}"));
        nodes.push(file("a").with_manner(Manner::Vanished));
        nodes.extend(["b", "c"].map(|name| file(name).link_to(&format!("a/{number:04}"))));
    }
    let backup = back_up(&repository, nodes, 3);
    assert_eq!((backup.problem_count, backup.statistics.entries), (700, 1400));
    let made = restore(&repository, &backup, 1);
    for number in 0..700 {
        assert_eq!(bytes(&made, &format!("b/{number:04}")), format!("file {number}").as_bytes());
        assert_eq!(made[&path(&format!("c/{number:04}"))], Made::Link(path(&format!("b/{number:04}"))));
    }
}

#[test]
fn unchanged_files_are_not_read_again() {
    for threads in [1, 3] {
        let repository = repository();
        let nodes = |time: i64| {
            vec![
                Node::directory("d"),
                Node::file("d/a", noise(1, 3000)).stamped(1000, 1),
                Node::file("d/b", noise(2, 300_000)).stamped(1000, 2),
                Node::file("d/c", noise(3, 400_000)).image().with_hole(65_536, 131_072).stamped(1000, 3),
                Node::file("d/d", if time == 0 { noise(4, 5000) } else { noise(5, 5000) }).stamped(1000 + time, 4),
                Node::file("d/e", noise(6, 100)),
                Node::file("d/empty", b"").stamped(1000, 5),
            ]
        };
        let mut holes = nodes(0);
        Arc::make_mut(holes[3].content.as_mut().unwrap())[65_536..196_608].fill(0);
        back_up(&repository, holes, threads);
        let mut session = repository.begin(options(threads)).unwrap();
        let mut tree = Tree::new(nodes(1));
        let (read, opened) = (Arc::clone(&tree.read), Arc::clone(&tree.opened));
        session.add_tree(&mut tree).unwrap();
        let backup = session.commit().unwrap();
        // The changed one, and the one without times.
        assert_eq!((opened.load(Ordering::SeqCst), read.load(Ordering::SeqCst)), (2, 5100));
        assert_eq!(backup.statistics.bytes_read, 5100);
        assert_eq!(backup.statistics.bytes_unchanged, 3000 + 300_000 + 400_000);
        let made = restore(&repository, &backup, threads);
        assert_eq!(bytes(&made, "d/d"), noise(5, 5000));
        assert_eq!(bytes(&made, "d/b"), noise(2, 300_000));
        let Made::Content(image, in_holes) = &made[&path("d/c")] else { panic!() };
        assert_eq!(*in_holes, 131_072);
        assert!(image[65_536..196_608].iter().all(|byte| *byte == 0));
        assert_sound(&repository);

        // Another inode, size or time: it is read.
        for changed in [
            Node::file("d/a", noise(7, 3000)).stamped(1000, 9),
            Node::file("d/a", noise(7, 3001)).stamped(1000, 1),
            Node::file("d/a", noise(7, 3000)).stamped(999, 1),
        ] {
            let bytes_of = changed.content.clone().unwrap();
            let backup = back_up(&repository, vec![changed], threads);
            assert_eq!(bytes(&restore(&repository, &backup, threads), "d/a"), bytes_of.as_slice());
        }
    }
}

/// What a backup of `names` takes over and names as its parent; each is a directory with a file of 5000 bytes.
fn taken_over(repository: &Repository, names: &[&str], says_roots: bool) -> (Backup, u64) {
    let nodes = names.iter().enumerate().flat_map(|(seed, name)| {
        let file = Node::file(&format!("{name}/f"), noise(seed as u64, 5000)).stamped(1000, 1);
        [Node::directory(name), file]
    });
    let tree = Tree::new(nodes.collect());
    let mut tree = if says_roots { tree.with_roots(names) } else { tree };
    let mut session = repository.begin(options(1)).unwrap();
    session.add_tree(&mut tree).unwrap();
    let expected = session.parent().map(|parent| parent.id);
    let backup = session.commit().unwrap();
    assert_eq!(backup.parent, expected);
    let unchanged = backup.statistics.bytes_unchanged;
    assert_eq!(unchanged + backup.statistics.bytes_read, 5000 * names.len() as u64);
    (backup, unchanged)
}

fn dump(repository: &Repository) -> Backup {
    let mut session = repository.begin(options(1)).unwrap();
    session.add_stream(path("dump"), &mut &b"rows"[..]).unwrap();
    session.commit().unwrap()
}

/// Backups of different sources of one host alternate, and each finds its own.
#[test]
fn every_root_has_the_newest_parent_that_has_it() {
    let repository = repository();
    let first_dump = dump(&repository);
    let (etc, unchanged) = taken_over(&repository, &["etc"], true);
    // Nothing has it: the newest stands in.
    assert_eq!((etc.parent, unchanged), (Some(first_dump.id), 0));
    let (home, _) = taken_over(&repository, &["home"], true);
    dump(&repository);
    let (second, unchanged) = taken_over(&repository, &["etc"], true);
    assert_eq!((second.parent, unchanged), (Some(etc.id), 5000));
    dump(&repository);
    // A tree that does not say where it begins is found by its first node.
    let (third, unchanged) = taken_over(&repository, &["etc"], false);
    assert_eq!((third.parent, unchanged), (Some(second.id), 5000));
    dump(&repository);
    // Each root has its own; the backup names the newest of them. One that is new has none.
    let (all, unchanged) = taken_over(&repository, &["etc", "new"], true);
    assert_eq!((all.parent, unchanged), (Some(third.id), 5000));
    let etc_home = [Node::directory("etc"), Node::file("etc/f", noise(0, 5000)).stamped(1000, 1)];
    let home_nodes = [Node::directory("home"), Node::file("home/f", noise(0, 5000)).stamped(1000, 1)];
    let mut session = repository.begin(options(1)).unwrap();
    let nodes = etc_home.into_iter().chain(home_nodes).collect();
    session.add_tree(&mut Tree::new(nodes).with_roots(&["home", "etc"])).unwrap();
    let both = session.commit().unwrap();
    assert_eq!((both.parent, both.statistics.bytes_unchanged), (Some(all.id), 10_000), "home is of {}", home.id);
    // Another host's backups are none of ours.
    let mut session = repository.begin(options(1).with_host("other")).unwrap();
    session.add_tree(&mut Tree::new(vec![Node::directory("etc")]).with_roots(&["etc"])).unwrap();
    assert_eq!(session.commit().unwrap().parent, None);
    assert_sound(&repository);
}

#[test]
fn a_parent_is_looked_for_in_a_bounded_number_of_backups() {
    let repository = repository();
    taken_over(&repository, &["etc"], true);
    (0..63).for_each(|_| drop(dump(&repository)));
    assert_eq!(taken_over(&repository, &["etc"], true).1, 5000, "the 64th");
    let mut newest = dump(&repository);
    (1..64).for_each(|_| newest = dump(&repository));
    let (backup, unchanged) = taken_over(&repository, &["etc"], true);
    assert_eq!((backup.parent, unchanged), (Some(newest.id), 0), "the 65th");
}

/// A file system's clock has ticks: a write within the tick of the reading, that keeps the length, changes no time.
#[test]
fn a_file_that_changed_just_before_it_was_read_is_read_again() {
    // The clock of these tests stands at 1 790 000 000.
    for (age, is_trusted) in [(-10, false), (0, false), (1, false), (2, false), (3, true)] {
        let repository = repository();
        let file = |seed| Node::file("f", noise(seed, 3000)).stamped(1_790_000_000 - age, 1);
        back_up(&repository, vec![file(1)], 1);
        let backup = back_up(&repository, vec![file(2)], 1);
        let expected = if is_trusted { 1 } else { 2 };
        assert_eq!(bytes(&restore(&repository, &backup, 1), "f"), noise(expected, 3000), "{age} seconds");
    }
}

/// What a file system lets a user attach to his file must not end the backup of everybody.
#[test]
fn an_entry_that_cannot_be_kept_is_a_problem_of_its_own() {
    for threads in [1, 3] {
        let repository = repository();
        let large = |node: Node| {
            let mut attributes = Attributes::default();
            attributes.extended = (1..=80).map(|name| (vec![b'u', name], vec![name; 60_000])).collect();
            Node { attributes: Some(attributes), ..node }
        };
        let strange = |node: Node| Node { mode: Some(0o10_0644), ..node };
        let nodes = vec![
            large(Node::directory("d")),
            large(Node::file("d/large", noise(1, 300_000))),
            large(Node::file("d/small", b"first")),
            Node::file("d/small-second", b"first").link_to("d/small"),
            Node::file("d/small-third", b"first").link_to("d/small"),
            large(Node::file("d/image", noise(2, 300_000)).image()),
            strange(Node::symlink("l", "target")),
            Node::file("z", b"last"),
        ];
        let backup = back_up(&repository, nodes, threads);
        assert_eq!(problems(&backup), ["d", "d/image", "d/large", "d/small", "l"]);
        let about = |name: &str| &backup.problems.iter().find(|problem| problem.name == name).unwrap().message;
        assert!(about("d/small").contains("4194304"), "{}", about("d/small"));
        assert!(about("l").contains("mode"), "{}", about("l"));
        let made = restore(&repository, &backup, threads);
        assert_eq!(made.len(), 3);
        assert_eq!(made[&path("d/small-second")], content(b"first"));
        assert_eq!(made[&path("d/small-third")], Made::Link(path("d/small-second")));
        assert_eq!(made[&path("z")], content(b"last"));
        assert_eq!(backup.statistics.entries, 3);
        assert_sound(&repository);
    }
}

/// Where a part of the parent's catalogue is lost, the files in it are read again, and no others.
#[test]
fn a_hole_in_the_parent_is_walked_around() {
    const FILES: u64 = 3000;
    let storage = memory();
    let nodes = || (0..FILES).map(|n| Node::file(&format!("d/{n:04}"), n.to_string()).stamped(1000, n)).collect();
    let first = {
        let repository = init_with(storage.clone(), &small_options(), 1).unwrap();
        back_up(&repository, nodes(), 1)
    };
    let state = storage.snapshot();
    let catalogue: Vec<&Key> = state
        .iter()
        .filter(|(key, bytes)| key.as_str().starts_with("packs/") && bytes[9] == 3)
        .map(|(key, _)| key)
        .collect();
    assert!(catalogue.len() > 2);
    let mut reads = Vec::new();
    for key in catalogue {
        storage.restore(state.clone());
        let mut bytes = state[key].to_vec();
        bytes[128..].iter_mut().for_each(|byte| *byte ^= 1);
        overwrite(&storage, key, bytes);
        let repository = open(storage.clone(), 5).unwrap();
        let told = Arc::new(Told::default());
        let watched = options(1).with_control(control(1).with_observer(told.clone()));
        let mut session = repository.begin(watched).unwrap();
        let mut tree = Tree::new(nodes());
        let opened = Arc::clone(&tree.opened);
        session.add_tree(&mut tree).unwrap();
        let opened = opened.load(Ordering::SeqCst);
        assert!(opened > 0, "{key} held nothing");
        assert!(told.0.lock().unwrap().iter().any(|name| name.contains(&first.id.to_string())), "{key}");
        reads.push(opened);
    }
    // The root's pack hides everything; each of the others what is in it.
    assert_eq!(reads.iter().filter(|opened| **opened == FILES).count(), 1, "{reads:?}");
    let in_others: u64 = reads.iter().filter(|opened| **opened < FILES).sum();
    assert!((FILES / 2..=FILES).contains(&in_others), "{reads:?}");
}

/// The names that problems were told of.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn event(&self, event: &Event<'_>) {
        if let Event::Problem { name, .. } = event {
            self.0.lock().unwrap().push((*name).to_owned());
        }
    }
}

#[test]
fn a_path_twice_is_refused_by_name() {
    for threads in [1, 3] {
        let repository = repository();
        let mut session = repository.begin(options(threads)).unwrap();
        let tree = || Tree::new(vec![Node::directory("d"), Node::file("d/twice", b"1")]);
        session.add_tree(&mut tree()).unwrap();
        session.add_tree(&mut Tree::new(vec![Node::file("d/twice", b"2")])).unwrap();
        let error = session.commit().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("d/twice"), "{error}");

        let mut session = repository.begin(options(threads)).unwrap();
        session.add_stream(path("d/twice"), &mut &b"stream"[..]).unwrap();
        session.add_tree(&mut tree()).unwrap();
        assert_eq!(session.commit().unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert!(repository.backups().unwrap().is_empty());

        // A second stream of the same name is refused at once, and the first one is kept.
        let mut session = repository.begin(options(threads)).unwrap();
        session.add_stream(path("s"), &mut &b"first"[..]).unwrap();
        let error = session.add_stream(path("s"), &mut &b"second"[..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        session.commit().unwrap();
    }
}

#[test]
fn a_hundred_thousand_entries() {
    let repository = repository();
    let nodes = |changed: usize| -> Vec<Node> {
        let mut nodes: Vec<Node> = (0..1000).map(|directory| Node::directory(&format!("d{directory:03}"))).collect();
        nodes.extend((0..99_000).map(|number| {
            let name = format!("d{:03}/file-{number}", number % 1000);
            let content = if number == changed { "changed".into() } else { format!("{}", number % 500) };
            Node::file(&name, content).stamped(if number == changed { 2 } else { 1 }, number as u64)
        }));
        nodes
    };
    let backup = back_up(&repository, nodes(usize::MAX), 3);
    assert!(backup.is_complete());
    assert_eq!(backup.statistics.entries, 100_000);
    assert_eq!(backup.statistics.chunks_new, 500, "equal files are stored once");
    let made = restore(&repository, &backup, 3);
    assert_eq!(made.len(), 100_000);
    assert_eq!(bytes(&made, "d777/file-98777"), (98_777 % 500).to_string().as_bytes());

    let second = back_up(&repository, nodes(4711), 3);
    assert_eq!(second.statistics.bytes_read, 7);
    assert!(second.statistics.bytes_stored < backup.statistics.bytes_stored / 10, "{:?}", second.statistics);
    assert_eq!(entries(&repository, &second).len(), 100_000);
    let changed: Vec<String> = repository
        .differences(&backup, &second)
        .unwrap()
        .iter()
        .map(|difference| difference.path.to_string())
        .collect();
    assert_eq!(changed, ["d711/file-4711"]);
}

/// One of the nodes of a random tree; paths are made unique and their directories are added.
fn node() -> impl Strategy<Value = Node> {
    let length = prop_oneof![Just(0usize), 1usize..5000, 4090usize..4100, 60_000usize..200_000];
    let name = prop::collection::vec("[abA.~-]{1,3}|é", 1..4).prop_map(|parts| parts.join("/"));
    (name, 0..8u8, length, any::<u64>(), any::<bool>()).prop_filter_map(
        "a path that is not allowed",
        |(name, kind, length, seed, holes)| {
            name.parse::<EntryPath>().ok()?;
            Some(match kind {
                0 => Node::directory(&name),
                1 => Node::symlink(&name, "../somewhere"),
                2 => Node::new(&name, EntryKind::Fifo),
                3 => Node::new(&name, EntryKind::BlockDevice { major: 8, minor: seed as u32 }),
                4 | 5 => {
                    let mut content = noise(seed % 5, length);
                    let mut node = Node::file(&name, Vec::new()).image();
                    if holes && length > 150_000 {
                        content[65_536..131_072].fill(0);
                        node = node.with_hole(65_536, 65_536);
                    }
                    node.content = Some(Arc::new(content));
                    node
                }
                _ => Node::file(&name, noise(seed % 5, length)),
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn random_trees_round_trip(first in prop::collection::vec(node(), 0..40), changes in prop::collection::vec(node(), 0..10)) {
        let unique = |nodes: Vec<Node>| -> BTreeMap<EntryPath, Node> {
            nodes.into_iter().map(|node| (node.path.clone(), node)).collect()
        };
        let mut tree = unique(first);
        for threads in [1, 3] {
            let repository = repository();
            for round in 0..2 {
                if round == 1 {
                    tree.extend(unique(changes.clone()));
                }
                let backup = back_up(&repository, tree.values().cloned().collect(), threads);
                prop_assert!(backup.is_complete());
                let made = restore(&repository, &backup, threads);
                prop_assert_eq!(made.len(), tree.len());
                for (path, node) in &tree {
                    match (&made[path], &node.content) {
                        (Made::Content(bytes, in_holes), Some(content)) => {
                            prop_assert!(bytes == content, "{}", path);
                            let holes: u64 = node.holes.iter().map(|hole| hole.1).sum();
                            prop_assert!(*in_holes >= holes, "{}: a hole was written", path);
                        }
                        (Made::Other(kind), None) => prop_assert_eq!(kind, &node.kind),
                        (made, _) => prop_assert!(false, "{}: {:?}", path, made),
                    }
                }
                assert_sound(&repository);
            }
        }
    }
}
