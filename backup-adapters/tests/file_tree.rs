//! `FileTreeSource` and `FileTreeSink` on real files.

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use backup_adapters::tree::{EXISTS, FileTreeSink, FileTreeSource, OverwritePolicy, SinkOptions, SourceOptions};
use backup_core::content::{Entry, EntryKind, EntryPath};
use backup_core::extent::ExtentKind;
use backup_core::source::{FileContent, TreeNode, TreeSink, TreeSource};
use rustix::fs::{CWD, Mode, XattrFlags, lsetxattr, makedev, mknodat};
use support::{Tmpfs, is_root, run_as_nobody, skip};

/// What came of copying a tree.
#[derive(Default)]
struct Copied {
    paths: Vec<EntryPath>,
    problems: Vec<(String, io::Error)>,
}

fn source(root: &Path, options: SourceOptions) -> FileTreeSource {
    // The contents of the root stand at the top only for "." and "/": the entries of other roots
    // begin with the root's path, which `relative` takes away.
    FileTreeSource::new([root], options).unwrap()
}

/// The entry path without the path of `root`; `None` for the root itself.
fn relative(root: &Path, path: &EntryPath) -> Option<EntryPath> {
    let prefix = root.as_os_str().as_bytes().strip_prefix(b"/").unwrap();
    let rest = path.as_bytes().strip_prefix(prefix).unwrap();
    (!rest.is_empty()).then(|| EntryPath::new(rest.strip_prefix(b"/").unwrap()).unwrap())
}

fn nodes(root: &Path, options: SourceOptions) -> (Vec<(String, TreeNode)>, Vec<String>) {
    let mut source = source(root, options);
    let (mut nodes, mut problems) = (Vec::new(), Vec::new());
    while let Some(next) = source.next_node() {
        match next {
            Ok(node) => {
                if let Some(path) = relative(root, &node.path) {
                    nodes.push((path.to_string(), node));
                }
            }
            Err(problem) => problems.push(problem.name),
        }
    }
    (nodes, problems)
}

fn names(root: &Path, options: SourceOptions) -> Vec<String> {
    let (nodes, problems) = nodes(root, options);
    assert!(problems.is_empty(), "{problems:?}");
    nodes.into_iter().map(|(name, _)| name).collect()
}

/// What the engine does, without storing anything in between.
fn copy(root: &Path, source_options: SourceOptions, sink: &FileTreeSink) -> Copied {
    let mut copied = Copied::default();
    let mut source = source(root, source_options);
    while let Some(next) = source.next_node() {
        let node = match next {
            Ok(node) => node,
            Err(problem) => {
                copied.problems.push((problem.name, problem.error));
                continue;
            }
        };
        let Some(path) = relative(root, &node.path) else { continue };
        copied.paths.push(path.clone());
        let mut entry = Entry::new(path, node.kind);
        entry.attributes = node.attributes;
        entry.hard_link = node.hard_link.as_ref().and_then(|path| relative(root, path));
        let content = match node.content.map(backup_core::source::OpenContent::open).transpose() {
            Ok(content) => content,
            Err(error) => {
                copied.problems.push((entry.path.to_string(), error));
                continue;
            }
        };
        if let Err(error) = restore(sink, &mut entry, content.as_deref()) {
            copied.problems.push((entry.path.to_string(), error));
        }
    }
    copied.problems.extend(sink.complete().into_iter().map(|(path, error)| (path.to_string(), error)));
    copied
}

fn restore(sink: &FileTreeSink, entry: &mut Entry, content: Option<&dyn FileContent>) -> io::Result<()> {
    let hard_link = entry.hard_link.clone();
    let Some(target) = sink.create(entry, hard_link.as_ref())? else { return Ok(()) };
    let content = content.expect("content of an entry that has one");
    entry.content.length = content.length();
    let mut at = 0;
    let mut failure = None;
    content.extents(0, &mut |extent| {
        assert_eq!(extent.offset, at, "extents have no gaps");
        at = extent.end();
        let done = match extent.kind {
            ExtentKind::Data => {
                let mut data = vec![0; usize::try_from(extent.length).unwrap()];
                content.read_at(extent.offset, &mut data).and_then(|()| target.write_at(extent.offset, &data))
            }
            _ => target.hole(extent.offset, extent.length),
        };
        failure = done.err();
        failure.is_none()
    })?;
    if let Some(error) = failure {
        sink.abandon(entry, target);
        return Err(error);
    }
    assert_eq!(at, content.length());
    assert!(content.is_unchanged()?);
    target.finish(entry.size())?;
    sink.finish(entry, target)
}

/// Everything that must be the same after a restore, as text by path.
fn picture(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let kind = metadata.file_type();
            if kind.is_socket() {
                continue;
            }
            let content = if kind.is_file() {
                let content = fs::read(&path).unwrap();
                format!("{} bytes, sum {}", content.len(), content.iter().map(|byte| u64::from(*byte)).sum::<u64>())
            } else if kind.is_symlink() {
                format!("to {:?}", fs::read_link(&path).unwrap())
            } else {
                if kind.is_dir() {
                    directories.push(path.clone());
                }
                format!("device {}", metadata.rdev())
            };
            let (mode, links) = (metadata.mode(), if kind.is_dir() { 0 } else { metadata.nlink() });
            let owner = (metadata.uid(), metadata.gid());
            let time = (metadata.mtime(), metadata.mtime_nsec());
            let extended = extended(&path);
            let text = format!("{mode:o} {owner:?} {time:?} {links} links, {content} {extended:?}");
            all.insert(path.strip_prefix(root).unwrap().to_owned(), text);
        }
    }
    all
}

fn extended(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap_or(0);
    let mut all: Vec<_> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect();
    all.sort();
    all
}

fn set_old_time(path: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// A tree with one of everything.
fn varied(root: &Path) {
    let dir = root.join("dir");
    fs::create_dir_all(dir.join("empty")).unwrap();
    fs::write(root.join("hello"), "hello").unwrap();
    fs::write(root.join("zero"), "").unwrap();
    fs::write(dir.join(OsStr::from_bytes(b"latin1-\xe9\n\\ ")), "not UTF-8").unwrap();
    fs::write(dir.join("large"), (0..3_000_000_u32).map(|at| at.to_le_bytes()[1]).collect::<Vec<_>>()).unwrap();
    symlink("../hello", dir.join("link")).unwrap();
    symlink("/nonexistent/\u{e4}", root.join("dangling")).unwrap();
    symlink(".", root.join("loop")).unwrap();
    fs::hard_link(root.join("hello"), dir.join("hello again")).unwrap();
    fs::hard_link(root.join("hello"), root.join("zz hello")).unwrap();
    mknodat(CWD, root.join("pipe"), rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    if is_root() {
        let null = makedev(1, 3);
        mknodat(CWD, root.join("null"), rustix::fs::FileType::CharacterDevice, Mode::from_raw_mode(0o666), null)
            .unwrap();
        rustix::fs::chown(root.join("zero"), Some(rustix::fs::Uid::from_raw(1234)), None).unwrap();
    }
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(20 << 20).unwrap();
    sparse.write_all_at(&[7; 5000], 10 << 20).unwrap();
    for (name, mode) in
        [("hello", 0o4755), ("zero", 0o2000), ("dir/large", 0o444), ("dir/empty", 0o1777), ("pipe", 0o604)]
    {
        fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
    }
    let _listening = UnixListener::bind(root.join("socket")).unwrap();
    for name in ["user.a", "user.\u{e4}"] {
        for path in [root.join("hello"), dir.join("empty")] {
            if let Err(error) = lsetxattr(path, name, &[0, 255, 10], XattrFlags::empty()) {
                skip(&format!("this file system has no extended attributes: {error}"));
            }
        }
    }
    set_old_time(&dir.join("empty"));
    if is_root() {
        set_old_time(&dir.join("large"));
    }
    set_old_time(&dir);
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    varied(from.path());
    let sink = FileTreeSink::new(to.path(), SinkOptions::default()).unwrap();
    let copied = copy(from.path(), SourceOptions::default(), &sink);
    assert!(copied.problems.is_empty(), "{:?}", copied.problems);
    assert_eq!(picture(from.path()), picture(to.path()));
    let inode = |name: &str| fs::metadata(to.path().join(name)).unwrap().ino();
    assert_eq!(inode("hello"), inode("dir/hello again"));
    assert_eq!(inode("hello"), inode("zz hello"));
    assert!(fs::metadata(to.path().join("sparse")).unwrap().blocks() * 512 < 1 << 20, "holes were filled");

    // Again over itself: refused file by file, or replaced without a trace.
    let before = picture(to.path());
    let sink = FileTreeSink::new(to.path(), SinkOptions::default()).unwrap();
    let copied = copy(from.path(), SourceOptions::default(), &sink);
    let existing = before.iter().filter(|(_, text)| !text.starts_with('4')).count();
    assert_eq!(copied.problems.len(), existing);
    for (name, error) in &copied.problems {
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{name}");
        // The engine names the entry before it.
        assert_eq!(error.to_string(), EXISTS, "{name}");
    }
    assert_eq!(picture(to.path()), before);
    let options = SinkOptions::default().with_overwrite(OverwritePolicy::Overwrite).with_sync(true);
    let sink = FileTreeSink::new(to.path(), options).unwrap();
    let copied = copy(from.path(), SourceOptions::default(), &sink);
    assert!(copied.problems.is_empty(), "{:?}", copied.problems);
    assert_eq!(picture(to.path()), before);
}

#[test]
fn entries_come_in_the_order_of_the_catalogue() {
    let from = tempfile::tempdir().unwrap();
    for name in ["a/b", "a-b", "a.b", "a/b-", "a/b/c", "a0", "\u{e4}/x", "B", "a/\u{1}"] {
        fs::create_dir_all(from.path().join(name)).unwrap();
        fs::write(from.path().join(name).join("f"), "").unwrap();
    }
    let sink = FileTreeSink::new(tempfile::tempdir().unwrap().path(), SinkOptions::default()).unwrap();
    let paths = copy(from.path(), SourceOptions::default(), &sink).paths;
    assert!(paths.is_sorted() && paths.len() == 20, "{paths:?}");
}

#[test]
fn deep_trees_are_walked_with_few_descriptors() {
    const DEPTH: usize = 300;
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut path = from.path().to_owned();
    for level in 0..DEPTH {
        path.push("d");
        fs::create_dir(&path).unwrap();
        // One before and one behind the deeper directory.
        fs::write(path.join("a"), level.to_string()).unwrap();
        fs::write(path.join("z"), level.to_string()).unwrap();
    }
    let mut walk = source(from.path(), SourceOptions::default());
    let mut most = 0;
    while let Some(node) = walk.next_node() {
        node.unwrap();
        most = most.max(fs::read_dir("/proc/self/fd").map_or(0, Iterator::count));
    }
    // Other tests of this program have files open, too.
    assert!(most < 200, "{most} descriptors");
    let sink = FileTreeSink::new(to.path(), SinkOptions::default()).unwrap();
    let copied = copy(from.path(), SourceOptions::default(), &sink);
    assert!(copied.problems.is_empty() && copied.paths.len() == 3 * DEPTH);
    assert_eq!(picture(from.path()), picture(to.path()));
}

#[test]
fn a_directory_exchanged_during_the_walk_is_a_problem() {
    let from = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("z"), "outside").unwrap();
    let deep = from.path().join("d/".repeat(100));
    fs::create_dir_all(&deep).unwrap();
    fs::write(from.path().join("d/d/z"), "inside").unwrap();
    let mut walk = source(from.path(), SourceOptions::default());
    while let Some(node) = walk.next_node() {
        if node.unwrap().path.as_bytes().ends_with("/d".repeat(100).as_bytes()) {
            break;
        }
    }
    fs::rename(from.path().join("d/d"), from.path().join("moved")).unwrap();
    symlink(outside.path(), from.path().join("d/d")).unwrap();
    let mut problems = 0;
    while let Some(node) = walk.next_node() {
        match node {
            Ok(node) => assert!(!node.path.as_bytes().ends_with(b"d/d/z"), "the walk left the tree"),
            Err(problem) => {
                assert!(problem.name.ends_with("d/d/z"), "{}", problem.name);
                problems += 1;
            }
        }
    }
    assert_eq!(problems, 1);
}

#[test]
fn a_file_that_moves_shrinks_or_changes_is_noticed() {
    let from = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    for base in [from.path().join("dir"), outside.path().to_owned()] {
        fs::create_dir_all(&base).unwrap();
        for name in ["changed", "gone", "planted", "replaced", "shrunk", "with link"] {
            fs::write(base.join(name), vec![1; 10_000]).unwrap();
        }
    }
    fs::create_dir(from.path().join("other")).unwrap();
    fs::write(from.path().join("other/f"), "inside").unwrap();
    fs::write(outside.path().join("f"), "outside").unwrap();
    let (nodes, problems) = nodes(from.path(), SourceOptions::default());
    assert!(problems.is_empty());
    let dir = from.path().join("dir");
    fs::remove_file(dir.join("gone")).unwrap();
    fs::remove_file(dir.join("planted")).unwrap();
    symlink(outside.path().join("planted"), dir.join("planted")).unwrap();
    fs::write(dir.join("new"), "other").unwrap();
    fs::rename(dir.join("new"), dir.join("replaced")).unwrap();
    fs::rename(from.path().join("other"), from.path().join("moved")).unwrap();
    symlink(outside.path(), from.path().join("other")).unwrap();
    let mut seen = 0;
    for (name, node) in nodes {
        let Some(content) = node.content else { continue };
        let opened = content.open();
        match name.as_str() {
            "dir/gone" => assert_eq!(opened.err().unwrap().kind(), io::ErrorKind::NotFound),
            // The directory that was seen is still open, wherever it is now.
            "other/f" => {
                let content = opened.unwrap();
                let mut inside = [0; 6];
                content.read_at(0, &mut inside).unwrap();
                assert_eq!(&inside, b"inside");
                assert!(content.is_unchanged().unwrap());
            }
            "dir/planted" => {
                assert_eq!(opened.err().unwrap().raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()));
            }
            "dir/replaced" => assert!(!opened.unwrap().is_unchanged().unwrap()),
            "dir/shrunk" => {
                let content = opened.unwrap();
                assert!(content.is_unchanged().unwrap());
                File::options().write(true).open(dir.join("shrunk")).unwrap().set_len(5_000).unwrap();
                let error = content.read_at(0, &mut [0; 10_000]).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                assert!(!content.is_unchanged().unwrap());
            }
            "dir/changed" => {
                let content = opened.unwrap();
                set_old_time(&dir.join("changed"));
                assert!(!content.is_unchanged().unwrap());
            }
            _ => assert!(opened.unwrap().is_unchanged().unwrap(), "{name}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 7);
}

#[test]
fn options_leave_out_what_they_say() {
    let from = tempfile::tempdir().unwrap();
    for name in [
        "a/cache/x",
        "a/keep.tmp",
        "a/keep",
        "b/cache",
        "node/deep/file",
        "c/CACHEDIR.TAG",
        "c/d/e",
        "f/CACHEDIR.TAG",
        "f/g",
    ] {
        let path = from.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "Signature: 8a477f597d28d172789f06886806bc55\n").unwrap();
    }
    fs::write(from.path().join("f/CACHEDIR.TAG"), "not the signature").unwrap();
    let prefix = from.path().display();
    let exclude = vec!["*.tmp".to_owned(), "cache".to_owned(), format!("{prefix}/node/**")];
    let options = SourceOptions::default().with_exclude(exclude).with_exclude_caches(true);
    let expected = ["a", "a/keep", "b", "c", "c/CACHEDIR.TAG", "f", "f/CACHEDIR.TAG", "f/g", "node"];
    assert_eq!(names(from.path(), options), expected);
    assert_eq!(names(from.path(), SourceOptions::default()).len(), 17);
}

#[test]
fn other_file_systems_are_left_out_on_demand() {
    let Some(tmpfs) = Tmpfs::mount("size=1m") else { return };
    let from = tempfile::tempdir().unwrap();
    fs::create_dir(from.path().join("mounted")).unwrap();
    fs::write(tmpfs.path().join("file"), "").unwrap();
    fs::write(from.path().join("z"), "").unwrap();
    let point = from.path().join("mounted");
    let status = std::process::Command::new("mount").arg("--bind").arg(tmpfs.path()).arg(&point).status();
    if !status.is_ok_and(|status| status.success()) {
        return skip("bind mounts need root");
    }
    let all = names(from.path(), SourceOptions::default());
    let one = names(from.path(), SourceOptions::default().with_one_file_system(true));
    let _ = std::process::Command::new("umount").arg(&point).status();
    assert_eq!(all, ["mounted", "mounted/file", "z"]);
    assert_eq!(one, ["mounted", "z"]);
}

#[test]
fn images_are_told_from_other_files() {
    let from = tempfile::tempdir().unwrap();
    let file = |name: &str, length: u64, data: u64| {
        let file = File::create(from.path().join(name)).unwrap();
        file.write_all_at(&vec![1; usize::try_from(data).unwrap()], 0).unwrap();
        file.set_len(length).unwrap();
    };
    file("a.IMG", 100, 100);
    file("b.sparse", 17 << 20, 5000);
    file("c.full", 17 << 20, 17 << 20);
    file("d.small", 1 << 20, 5000);
    file("e.dump", 10, 10);
    let images = |options| -> Vec<String> {
        let (nodes, _) = nodes(from.path(), options);
        nodes.into_iter().filter_map(|(name, node)| node.content?.open().unwrap().is_image().then_some(name)).collect()
    };
    assert_eq!(images(SourceOptions::default()), ["a.IMG", "b.sparse"]);
    assert_eq!(images(SourceOptions::default().with_image_extensions(["dump"])), ["b.sparse", "e.dump"]);
}

#[test]
fn roots_are_entries_of_their_own() {
    let from = tempfile::tempdir().unwrap();
    fs::create_dir(from.path().join("d")).unwrap();
    fs::write(from.path().join("d/f"), "").unwrap();
    fs::write(from.path().join("f"), "content").unwrap();
    symlink("d", from.path().join("link")).unwrap();
    let roots = ["link", "f", "d"].map(|name| from.path().join(name));
    let mut walk = FileTreeSource::new(roots, SourceOptions::default()).unwrap();
    let mut seen = Vec::new();
    while let Some(node) = walk.next_node() {
        let node = node.unwrap();
        seen.push((relative(from.path(), &node.path).unwrap().to_string(), node.kind.name(), node.content.is_some()));
    }
    let expected = [("d", "directory", false), ("d/f", "file", true), ("f", "file", true), ("link", "symlink", false)];
    assert_eq!(seen, expected.map(|(path, kind, content)| (path.to_owned(), kind, content)));
    assert!(FileTreeSource::new([from.path().join("missing")], SourceOptions::default()).is_err());
}

#[test]
fn what_cannot_be_read_is_a_problem_of_its_own() {
    if is_root() {
        return run_as_nobody("what_cannot_be_read_is_a_problem_of_its_own");
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["a/f", "b/f", "c/f"] {
        fs::create_dir(from.path().join(name).parent().unwrap()).unwrap();
        fs::write(from.path().join(name), name).unwrap();
    }
    fs::set_permissions(from.path().join("a/f"), Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(from.path().join("b"), Permissions::from_mode(0o000)).unwrap();
    for options in [SourceOptions::default(), SourceOptions::default().with_extended_attributes(false)] {
        let sink = FileTreeSink::new(to.path().join(options.extended_attributes.to_string()), SinkOptions::default());
        let copied = copy(from.path(), options, &sink.unwrap());
        let problems: Vec<_> =
            copied.problems.iter().map(|(name, error)| (&name[name.len() - 2..], error.kind())).collect();
        assert!(problems.iter().all(|(_, kind)| *kind == io::ErrorKind::PermissionDenied), "{problems:?}");
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
    assert_eq!(fs::read(to.path().join("true/c/f")).unwrap(), b"c/f");
    fs::set_permissions(from.path().join("b"), Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn directories_without_write_permission_are_restored_with_their_contents() {
    if is_root() {
        return run_as_nobody("directories_without_write_permission_are_restored_with_their_contents");
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(from.path().join("a/b")).unwrap();
    fs::write(from.path().join("a/b/f"), "f").unwrap();
    let modes = |mode| {
        for name in ["a/b/f", "a/b", "a"] {
            fs::set_permissions(from.path().join(name), Permissions::from_mode(mode)).unwrap();
        }
    };
    modes(0o555);
    let sink = FileTreeSink::new(to.path(), SinkOptions::default()).unwrap();
    let copied = copy(from.path(), SourceOptions::default(), &sink);
    assert!(copied.problems.is_empty(), "{:?}", copied.problems);
    assert_eq!(picture(from.path()), picture(to.path()));
    // A target that cannot be written is an error, not a loss.
    let sink = FileTreeSink::new(to.path().join("a"), SinkOptions::default()).unwrap();
    let copied = copy(from.path(), SourceOptions::default(), &sink);
    assert!(copied.problems.iter().all(|(_, error)| error.kind() == io::ErrorKind::PermissionDenied));
    assert_eq!(copied.problems.len(), 3);
    for base in [from.path(), to.path()] {
        for name in ["a", "a/b"] {
            fs::set_permissions(base.join(name), Permissions::from_mode(0o755)).unwrap();
        }
    }
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry::new(path.parse().unwrap(), kind)
}

fn link_to(path: &str, target: &Path) -> Entry {
    entry(path, EntryKind::Symlink { target: target.as_os_str().as_bytes().to_vec() })
}

fn write_file(sink: &FileTreeSink, path: &str, content: &[u8]) -> io::Result<()> {
    let mut entry = entry(path, EntryKind::File);
    let target = sink.create(&entry, None)?.expect("a file has content");
    target.write_at(0, content)?;
    entry.content.length = content.len() as u64;
    target.finish(entry.size())?;
    sink.finish(&entry, target)
}

#[test]
fn nothing_outside_the_target_is_written() {
    for policy in [OverwritePolicy::Refuse, OverwritePolicy::Overwrite] {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("victim"), "victim").unwrap();
        let before = picture(outside.path());
        let mode = fs::metadata(outside.path()).unwrap().mode();
        let target = tempfile::tempdir().unwrap();
        for name in ["planted", "planted2", "planted3"] {
            symlink(outside.path(), target.path().join(name)).unwrap();
        }
        for name in ["file", "file2"] {
            symlink(outside.path().join("victim"), target.path().join(name)).unwrap();
        }
        let sink = FileTreeSink::new(target.path(), SinkOptions::default().with_overwrite(policy)).unwrap();
        let eloop = Some(rustix::io::Errno::LOOP.raw_os_error());

        // Links that the backup itself brings.
        sink.create(&link_to("a", outside.path()), None).unwrap();
        sink.create(&link_to("up", Path::new("..")), None).unwrap();
        for path in ["a/new", "a/victim", "a/deep/er", "up/new", "planted/new", "planted/victim"] {
            assert_eq!(write_file(&sink, path, b"x").unwrap_err().raw_os_error(), eloop, "{path}");
            let error = sink.create(&entry(path, EntryKind::Directory), None).err().unwrap();
            assert_eq!(error.raw_os_error(), eloop, "{path}");
            assert!(sink.create(&entry(path, EntryKind::Fifo), None).is_err());
            assert!(sink.create(&link_to(path, Path::new("x")), None).is_err());
        }
        // Hard links to something outside.
        for earlier in ["a/victim", "planted/victim"] {
            let error = sink.create(&entry("hard", EntryKind::File), Some(&earlier.parse().unwrap())).err().unwrap();
            assert_eq!(error.raw_os_error(), eloop);
        }
        // A hard link to a link is that link, not what it points to.
        sink.create(&entry("hard2", EntryKind::File), Some(&"a".parse().unwrap())).unwrap();
        assert!(target.path().join("hard2").is_symlink());

        // Links that exist under the name of an entry.
        let replaces = policy == OverwritePolicy::Overwrite;
        assert_eq!(write_file(&sink, "file", b"new").is_ok(), replaces);
        assert_eq!(sink.create(&link_to("file2", Path::new("x")), None).is_ok(), replaces);
        let mut directory = entry("planted2", EntryKind::Directory);
        directory.attributes.mode = Some(0o777);
        assert_eq!(sink.create(&directory, None).is_ok(), replaces);
        assert_eq!(write_file(&sink, "planted2/new", b"new").is_ok(), replaces);

        // A directory that is exchanged for a link before its attributes are applied.
        let mut directory = entry("exchanged", EntryKind::Directory);
        directory.attributes.mode = Some(0o777);
        sink.create(&directory, None).unwrap();
        fs::remove_dir(target.path().join("exchanged")).unwrap();
        symlink(outside.path(), target.path().join("exchanged")).unwrap();
        let problems = sink.complete();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].1.raw_os_error(), eloop);

        assert_eq!(picture(outside.path()), before);
        assert_eq!(fs::metadata(outside.path()).unwrap().mode(), mode);
        assert!(
            fs::read_dir(target.path())
                .unwrap()
                .all(|entry| { !entry.unwrap().file_name().as_bytes().starts_with(b".restore-") })
        );
    }
}

#[test]
fn attributes_of_links_are_not_those_of_their_targets() {
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("victim"), "").unwrap();
    let before = picture(target.path());
    let mut link = link_to("link", Path::new("victim"));
    link.attributes.mode = Some(0o777);
    link.attributes.uid = Some(12);
    link.attributes.modified = Some("2001-01-01T00:00:00Z".parse().unwrap());
    let sink = FileTreeSink::new(target.path(), SinkOptions::default()).unwrap();
    sink.create(&link, None).unwrap();
    assert!(sink.complete().is_empty());
    assert_eq!(fs::symlink_metadata(target.path().join("link")).unwrap().mtime(), 978_307_200);
    fs::remove_file(target.path().join("link")).unwrap();
    assert_eq!(picture(target.path()), before);
}

#[test]
fn set_id_bits_follow_the_owner() {
    if !is_root() {
        return skip("changing owners needs root");
    }
    for (ownership, uid, expected) in [(true, 1234, 0o6755), (false, 1234, 0o755), (false, 0, 0o6755)] {
        let target = tempfile::tempdir().unwrap();
        let sink = FileTreeSink::new(target.path(), SinkOptions::default().with_ownership(ownership)).unwrap();
        let mut file = entry("f", EntryKind::File);
        file.attributes.mode = Some(0o6755);
        (file.attributes.uid, file.attributes.gid) = (Some(uid), Some(0));
        let content = sink.create(&file, None).unwrap().unwrap();
        sink.finish(&file, content).unwrap();
        let metadata = fs::metadata(target.path().join("f")).unwrap();
        assert_eq!(metadata.mode() & 0o7777, expected, "{ownership} {uid}");
        assert_eq!(metadata.uid() == uid, ownership || uid == 0);
        assert!(sink.complete().is_empty());
    }
}

#[test]
fn devices_and_attributes_that_are_refused_are_told() {
    let target = tempfile::tempdir().unwrap();
    let sink = FileTreeSink::new(target.path(), SinkOptions::default().with_devices(false)).unwrap();
    let error = sink.create(&entry("null", EntryKind::CharacterDevice { major: 1, minor: 3 }), None).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    let mut file = entry("f", EntryKind::File);
    file.attributes.extended = vec![(b"nonsense.x".to_vec(), b"1".to_vec()), (b"user.ok".to_vec(), b"2".to_vec())];
    let content = sink.create(&file, None).unwrap().unwrap();
    sink.finish(&file, content).unwrap();
    let problems = sink.complete();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].0.to_string(), "f");
    assert!(problems[0].1.to_string().contains("nonsense.x"));
    assert_eq!(extended(&target.path().join("f")), [(b"user.ok".to_vec(), b"2".to_vec())]);
}

#[test]
fn an_unfinished_file_is_never_seen() {
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("old"), "old").unwrap();
    let options = SinkOptions::default().with_overwrite(OverwritePolicy::Overwrite);
    let sink = FileTreeSink::new(target.path(), options).unwrap();
    for name in ["old", "new"] {
        let file = entry(name, EntryKind::File);
        let content = sink.create(&file, None).unwrap().unwrap();
        content.write_at(0, b"part").unwrap();
        assert!(!target.path().join("new").exists());
        sink.abandon(&file, content);
    }
    // Nor one that a restore left without a word.
    let dropped = sink.create(&entry("new", EntryKind::File), None).unwrap();
    drop(dropped);
    drop(sink);
    assert_eq!(fs::read(target.path().join("old")).unwrap(), b"old");
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 1);
}

#[test]
fn entries_are_restored_from_several_threads() {
    let target = tempfile::tempdir().unwrap();
    let sink = FileTreeSink::new(target.path(), SinkOptions::default()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let sink = &sink;
            scope.spawn(move || {
                for number in 0..50 {
                    // All threads make the same directories.
                    write_file(sink, &format!("a/{}/{thread}-{number}", number % 7), &[thread; 1000]).unwrap();
                }
            });
        }
    });
    // One file from several threads.
    let mut file = entry("shared", EntryKind::File);
    let content = sink.create(&file, None).unwrap().unwrap();
    std::thread::scope(|scope| {
        for part in 0..4_u8 {
            let content = &content;
            scope.spawn(move || content.write_at(u64::from(part) * 1000, &[part; 1000]).unwrap());
        }
    });
    file.content.length = 4000;
    sink.finish(&file, content).unwrap();
    assert!(sink.complete().is_empty());
    let shared = fs::read(target.path().join("shared")).unwrap();
    assert!(shared.len() == 4000 && (0..4_u8).all(|part| shared[usize::from(part) * 1000..][..1000] == [part; 1000]));
    assert_eq!(picture(target.path()).len(), 1 + 7 + 200 + 1);
}

#[test]
fn a_full_target_fails_the_file_and_keeps_the_rest() {
    let Some(tmpfs) = Tmpfs::mount("size=1m") else { return };
    let sink = FileTreeSink::new(tmpfs.path(), SinkOptions::default()).unwrap();
    write_file(&sink, "before", &[1; 1000]).unwrap();
    let file = entry("large", EntryKind::File);
    let content = sink.create(&file, None).unwrap().unwrap();
    let error = content.write_at(0, &vec![1; 2 << 20]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    sink.abandon(&file, content);
    write_file(&sink, "after", &[1; 100_000]).unwrap();
    let names: Vec<_> = picture(tmpfs.path()).into_keys().collect();
    assert_eq!(names, [Path::new("after"), Path::new("before")]);
}
