//! Verifications and restores in shards, whose reports are joined.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{Outcome, World, files, noise};

/// Verifies in `count` shards and joins the reports.
fn in_shards(world: &World, count: u32, level: &str) -> (i32, serde_json::Value) {
    let reports: Vec<PathBuf> = (1..=count)
        .map(|number| {
            let shard = format!("{number}/{count}");
            let report = world.run(["verify", "--json", "--level", level, "--shard", &shard]);
            world.file(&format!("report-{number}"), &report.stdout)
        })
        .collect();
    let arguments = ["verify", "--json", "--merge"].map(PathBuf::from);
    let merged = world.run(arguments.iter().chain(&reports));
    (merged.code.unwrap(), merged.json())
}

#[test]
fn shards_together_are_one_verification() {
    let (world, _) = World::with_backup();
    for level in ["presence", "bytes", "content"] {
        let whole = world.json(["verify", "--level", level]);
        let (code, merged) = in_shards(&world, 3, level);
        assert_eq!(code, 0);
        for key in ["ok", "level", "objects_checked", "bytes_checked", "chunks_checked", "entries_checked", "findings"]
        {
            assert_eq!(merged[key], whole[key], "{key} at {level}");
        }
    }
    let (_, pack) =
        files(&world.path("repository/packs")).into_iter().map(|(path, bytes)| (bytes.len(), path)).max().unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[500] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let (code, merged) = in_shards(&world, 4, "content");
    assert_eq!(code, 3);
    let findings = merged["findings"].as_array().unwrap();
    let name = pack.file_name().unwrap().to_str().unwrap();
    assert_eq!(findings.iter().filter(|finding| finding["object"].as_str().unwrap().ends_with(name)).count(), 1);
}

#[test]
fn reports_that_are_none_or_not_all_are_refused() {
    let (world, _) = World::with_backup();
    let report = world.run(["verify", "--json", "--level", "presence", "--shard", "1/2"]).success();
    world.file("one", &report.stdout);
    world.file("none", "{}");
    world.run(["verify", "--merge", "one"]).code(2).says("shard 2/2 is missing");
    world.run(["verify", "--merge", "none"]).code(1).says("cannot read report none");
    world.run(["verify", "--merge", "nowhere"]).code(1).says("nowhere");
    for shard in ["0/2", "3/2", "x", "1"] {
        world.run(["verify", "--shard", shard]).code(2);
    }
}

/// Everything below a directory as a user sees it: kinds, modes, times, links, contents.
fn seen(directory: &Path) -> BTreeMap<PathBuf, (String, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.to_path_buf()];
    let mut names: BTreeMap<u64, PathBuf> = BTreeMap::new();
    while let Some(path) = waiting.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(directory).unwrap().to_owned();
        let content = match metadata.file_type() {
            kind if kind.is_dir() => {
                waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                Vec::new()
            }
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            _ => fs::read(&path).unwrap(),
        };
        let first = names.entry(metadata.ino()).or_insert_with(|| name.clone()).clone();
        // Which name comes first depends on the order of the walk.
        let links = (metadata.is_file() && metadata.nlink() > 1).then(|| first.parent().map(Path::to_owned));
        // Directories above what was backed up are made by whoever needs them.
        let is_of_backup = name.components().any(|part| part.as_os_str() == "tree");
        let time = is_of_backup.then(|| (metadata.mtime(), metadata.mtime_nsec()));
        let attributes = format!("{:o} {time:?} {links:?} {}", metadata.mode(), metadata.nlink());
        found.insert(name, (attributes, content));
    }
    found
}

/// Runs commands at the same time, each a process of its own.
fn at_once(commands: Vec<Command>) -> Vec<Outcome> {
    let children: Vec<_> = commands
        .into_iter()
        .map(|mut command| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    children.into_iter().map(|child| Outcome::of(child.wait_with_output().unwrap())).collect()
}

/// Restores in `count` shards at once and returns their reports.
fn restored_in_shards(world: &World, count: u32, arguments: &[&str]) -> Vec<PathBuf> {
    let commands = (1..=count).map(|number| {
        let shard = format!("{number}/{count}");
        world.command(["restore", "--json", "--shard", &shard].iter().chain(arguments))
    });
    let outcomes = at_once(commands.collect());
    let reports = outcomes.into_iter().enumerate().map(|(number, outcome)| {
        let outcome = outcome.success();
        assert_eq!(outcome.json()["complete"], true);
        world.file(&format!("report-{number}-of-{count}-{}", arguments.last().unwrap()), &outcome.stdout)
    });
    reports.collect()
}

fn merged(world: &World, arguments: &[&str], reports: &[PathBuf]) -> Outcome {
    let all = ["restore", "--json"].iter().chain(arguments).chain(&["--merge"]).map(PathBuf::from);
    world.run(all.chain(reports.iter().cloned()))
}

#[test]
fn a_tree_is_restored_by_several_processes() {
    let world = World::new();
    let tree = world.tree();
    for number in 0..40u8 {
        let file = world.file(&format!("tree/sub/deep/{number}"), noise(2000, u64::from(number)));
        fs::hard_link(file, world.path(&format!("tree/link-{number}"))).unwrap();
    }
    fs::create_dir(world.path("tree/sub/none")).unwrap();
    fs::set_permissions(world.path("tree/sub/deep"), Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(world.path("tree/sub/none"), Permissions::from_mode(0o700)).unwrap();
    let backup = world.create([tree.as_os_str()]);
    world.run(["restore", &backup, "--to", "whole"]).success();
    let expected = seen(&world.path("whole"));
    assert!(expected.len() > 80);
    for count in 1..=5 {
        let target = format!("in-{count}");
        let arguments = [backup.as_str(), "--to", &target];
        let reports = restored_in_shards(&world, count, &arguments);
        let end = merged(&world, &arguments, &reports).success().json();
        assert_eq!(end["complete"], true);
        assert_eq!(seen(&world.path(&target)), expected, "{count} shards");
    }
    let report = world.run(["restore", &backup, "--to", "a/whole/one", "--json"]).success().json();
    let in_two = restored_in_shards(&world, 2, &[&backup, "--to", "again"]);
    let end = merged(&world, &[&backup, "--to", "again"], &in_two).success().json();
    assert_eq!((&end["entries"], &end["bytes"]), (&report["entries"], &report["bytes"]));
}

#[test]
fn one_file_is_written_by_several_processes_and_seen_when_it_is_whole() {
    let world = World::new();
    let mut image = noise(9 << 20, 3);
    image[2 << 20..5 << 20].fill(0);
    let source = world.file("disk.raw", &image);
    let backup = world.create([OsStr::new("--image"), source.as_os_str(), OsStr::new("--as"), OsStr::new("disk")]);
    for count in 1..=5 {
        let target = format!("image-{count}");
        let arguments = [backup.as_str(), "--entry", "disk", "--to", &target];
        let reports = restored_in_shards(&world, count, &arguments);
        assert!(!world.path(&target).exists(), "a part must not look like the whole");
        if count > 1 {
            merged(&world, &arguments, &reports[1..]).code(2).says("shard 1/");
            assert!(!world.path(&target).exists());
        }
        let end = merged(&world, &arguments, &reports).success().json();
        assert_eq!((&end["bytes"], &end["entries"], &end["complete"]), (&(9 << 20).into(), &1.into(), &true.into()));
        assert!(fs::read(world.path(&target)).unwrap() == image, "{count} shards");
        let metadata = world.path(&target).metadata().unwrap();
        assert!(metadata.blocks() * 512 < 7 << 20, "it is not sparse");
        // What is there is kept, unless it may be replaced.
        world.run(["restore", "--shard", "1/1"].iter().chain(&arguments)).code(1).says("exists already");
    }
    let left: Vec<_> = fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_str().unwrap().starts_with(".restore-")), "{left:?}");

    // Reports of another restore end nothing.
    let arguments = [backup.as_str(), "--entry", "disk", "--to", "other"];
    let reports = restored_in_shards(&world, 2, &arguments);
    merged(&world, &[&backup, "--to", "elsewhere"], &reports).code(2).says("another restore");
    let next = world.create([source.as_os_str()]);
    merged(&world, &[&next, "--to", "elsewhere"], &reports).code(2).says("another restore");
    let mixed =
        [reports[0].clone(), restored_in_shards(&world, 3, &[&backup, "--entry", "disk", "--to", "third"])[1].clone()];
    merged(&world, &arguments, &mixed).code(2).says("another restore");
    world.run(["restore", &backup, "--shard", "1/2"]).code(2);
    world
        .run(["restore", &backup, "--shard", "1/2", "--to", "-"])
        .code(2)
        .says("a directory, a file or a block device");
}

#[test]
fn reports_are_not_taken_for_what_is_in_the_target() {
    let world = World::new();
    let tree = world.tree();
    let backup = world.create([tree.as_os_str()]);
    let arguments = [backup.as_str(), "--to", "here"];
    let reports = restored_in_shards(&world, 2, &arguments);
    let elsewhere = [backup.as_str(), "--to", "elsewhere"];
    assert_eq!(merged(&world, &elsewhere, &reports).code(3).json()["complete"], false);
    let end = merged(&world, &arguments, &reports).success().json();
    assert_eq!(end["problem_count"], 0);

    // Shards of a file of which the first one wrote to another file.
    world.file("big", noise(4 << 20, 3));
    let backup = world.create([world.path("big").as_os_str()]);
    let entry = world.path("big").to_string_lossy().trim_start_matches('/').to_owned();
    let shard = |number: &str| {
        let shard = format!("{number}/2");
        let done = world.run(["restore", "--json", &backup, "--entry", &entry, "--to", "one", "--shard", &shard]);
        world.file(&format!("part-{number}"), &done.success().stdout)
    };
    let first = shard("1");
    let unfinished = fs::read_dir(world.path(".")).unwrap().map(|file| file.unwrap().path());
    let unfinished = unfinished.into_iter().find(|path| path.to_string_lossy().contains("/.restore-")).unwrap();
    fs::remove_file(unfinished).unwrap();
    let second = shard("2");
    let end = ["restore", &backup, "--entry", &entry, "--to", "one", "--merge"].map(PathBuf::from);
    world.run(end.iter().chain([&first, &second])).code(1).says("not all shards wrote to this file");
    assert!(!world.path("one").exists());
    let first = shard("1");
    world.run(end.iter().chain([&first, &second])).success();
    assert!(fs::read(world.path("one")).unwrap() == noise(4 << 20, 3));
}
