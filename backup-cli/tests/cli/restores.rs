//! `backup restore` and `backup cat`

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::harness::{Outcome, World, noise, outcome};

/// The path of an entry of the backed-up tree.
fn entry(world: &World, end: &str) -> String {
    let shown = world.json(["show", "latest"]);
    let entries = shown["entries"].as_array().unwrap();
    let mut paths = entries.iter().map(|entry| entry["path"].as_str().unwrap());
    paths.find(|path| path.ends_with(end)).unwrap().to_owned()
}

#[test]
fn a_tree_comes_back_identical() {
    let (world, backup) = World::with_backup();
    let result = world.json(["restore", &backup, "--to", "out"]);
    assert_eq!(result["complete"], true);
    let restored: PathBuf = world.path("out").join(entry(&world, "tree"));
    let status = Command::new("diff").args(["-r", "--no-dereference"]).arg(world.path("tree")).arg(&restored).status();
    assert!(status.unwrap().success());
    let original = fs::metadata(world.path("tree/hello.txt")).unwrap();
    let copy = fs::metadata(restored.join("hello.txt")).unwrap();
    assert_eq!(
        (original.mode(), original.mtime(), original.mtime_nsec()),
        (copy.mode(), copy.mtime(), copy.mtime_nsec())
    );
}

#[test]
fn a_restore_into_the_repository_is_refused() {
    let (world, _) = World::with_backup();
    std::os::unix::fs::symlink(world.repository(), world.path("link")).unwrap();
    for target in [world.repository(), world.repository().join("packs/new"), world.path("link/x")] {
        world.run(["restore", "latest", "--overwrite", "--to", target.to_str().unwrap()]).code(2).says("repository");
    }
    world.run(["verify", "--level", "bytes"]).success();
}

#[test]
fn existing_files_are_replaced_only_on_demand() {
    let (world, _) = World::with_backup();
    let hello = entry(&world, "hello.txt");
    world.run(["restore", "latest", "--to", "out"]).success();
    let target = world.path("out").join(&hello);
    fs::write(&target, "mine").unwrap();
    let outcome = world.run(["restore", "latest", "--to", "out"]);
    assert!(matches!(outcome.code, Some(1 | 3)), "{outcome:?}");
    // Every file and link of the tree: three of them by name, then their number, once, with what to do.
    let lines = |text: &str| outcome.stderr.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("it exists already in the target"), 3, "{}", outcome.stderr);
    assert_eq!((lines("5 entries exist already"), lines("--overwrite")), (1, 1), "{}", outcome.stderr);
    for line in outcome.stderr.lines().filter(|line| line.contains("hello.txt")) {
        assert_eq!(line.matches("hello.txt").count(), 1, "{line}");
    }
    assert_eq!(fs::read(&target).unwrap(), b"mine");
    world.run(["restore", "latest", "--to", "out", "--overwrite"]).success();
    assert_eq!(fs::read(&target).unwrap(), b"hello\n");

    world.file("single", "mine");
    world.run(["restore", "latest", "--entry", &hello, "--to", "single"]).code(1).says(": --overwrite replaces it");
    assert_eq!(fs::read(world.path("single")).unwrap(), b"mine");
    world.run(["restore", "latest", "--entry", &hello, "--to", "single", "--overwrite"]).success();
    assert_eq!(fs::read(world.path("single")).unwrap(), b"hello\n");
}

#[test]
fn one_entry_goes_to_a_file_a_directory_standard_output_or_a_command() {
    let (world, _) = World::with_backup();
    let large = entry(&world, "sub/large");
    let content = fs::read(world.path("tree/sub/large")).unwrap();
    world.run(["restore", "latest", "--entry", &large, "--to", "file"]).success();
    assert!(fs::read(world.path("file")).unwrap() == content);
    fs::create_dir(world.path("directory")).unwrap();
    world.run(["restore", "latest", "--entry", &large, "--to", "directory"]).success();
    assert!(fs::read(world.path("directory").join(&large)).unwrap() == content);
    assert!(world.run(["restore", "latest", "--entry", &large, "--to", "-"]).success().stdout == content);
    assert!(world.run(["cat", "latest", &large]).success().stdout == content);
    world.run(["restore", "latest", "--entry", &large, "--command", "--", "sh", "-c", "cat > copied"]).success();
    assert!(fs::read(world.path("copied")).unwrap() == content);
}

#[test]
fn one_entry_that_goes_to_a_file_keeps_its_mode_and_time() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    for (number, mode) in [0o640, 0o755, 0o600, 0o444].into_iter().enumerate() {
        let file = world.file(&format!("data{number}"), format!("{number}"));
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_007 + number as u64, 123_456_789);
        fs::File::open(&file).unwrap().set_modified(time).unwrap();
        world.create([file.as_os_str()]);
        let entry = entry(&world, &format!("data{number}"));
        for target in ["new", "new"] {
            // A file that is replaced has the attributes of the entry, too.
            world.run(["restore", "latest", "--entry", &entry, "--to", target, "--overwrite"]).success();
            let metadata = fs::metadata(world.path(target)).unwrap();
            assert_eq!((metadata.mode() & 0o7777, metadata.modified().unwrap()), (mode, time), "{target}");
            assert_eq!(fs::read_to_string(world.path(target)).unwrap(), number.to_string());
        }
        // A part of a file is not the file, and a stream has no attributes.
        let part = ["restore", "latest", "--entry", &entry, "--to", "part", "--range", "0:1", "--overwrite"];
        world.run(part).success();
        assert_eq!(fs::metadata(world.path("part")).unwrap().mode() & 0o7777, 0o600);
    }
    world.run_with_input(["create", "--stdin", "dump"], b"data").success();
    world.run(["restore", "latest", "--entry", "dump", "--to", "dump"]).success();
    assert_eq!(fs::metadata(world.path("dump")).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn a_hard_link_alone_has_its_content() {
    let world = World::new();
    let content = noise(700_000, 5);
    fs::create_dir(world.path("a")).unwrap();
    let first = world.file("a/first", &content);
    fs::create_dir(world.path("b")).unwrap();
    fs::hard_link(&first, world.path("b/second")).unwrap();
    world.create(["a", "b"]);
    let second = entry(&world, "b/second");
    assert!(world.run(["cat", "latest", &second]).success().stdout == content);
    assert!(world.run(["restore", "latest", "--entry", &second, "--to", "-"]).success().stdout == content);
    let part = world.run(["restore", "latest", "--entry", &second, "--to", "-", "--range", "600000:10"]).success();
    assert_eq!(part.stdout, &content[600_000..600_010]);
    world.run(["restore", "latest", "--entry", &second, "--to", "file"]).success();
    assert!(fs::read(world.path("file")).unwrap() == content);
    world.run(["restore", "latest", "--entry", &second, "--command", "--", "sh", "-c", "cat > copied"]).success();
    assert!(fs::read(world.path("copied")).unwrap() == content);
    fs::create_dir(world.path("directory")).unwrap();
    world.run(["restore", "latest", "--entry", &second, "--to", "directory"]).success();
    assert!(fs::read(world.path("directory").join(&second)).unwrap() == content);
    let outcome = world.run(["verify", "--compare", "b/second", "--entry", &second]);
    outcome.success();
    world.file("b/other", "other");
    world.run(["verify", "--compare", "b/other", "--entry", &second]).code(3);
}

#[test]
fn a_range_is_restored() {
    let (world, _) = World::with_backup();
    let large = entry(&world, "sub/large");
    let content = fs::read(world.path("tree/sub/large")).unwrap();
    let outcome = world.run(["restore", "latest", "--entry", &large, "--to", "-", "--range", "1M:1000"]).success();
    assert_eq!(outcome.stdout, &content[1 << 20..(1 << 20) + 1000]);
    world.run(["restore", "latest", "--entry", &large, "--to", "part", "--range", "5:7"]).success();
    assert_eq!(fs::read(world.path("part")).unwrap(), &content[5..12]);
    let outcome = world.run(["restore", "latest", "--entry", &large, "--to", "-", "--range", "3M:1"]).code(2);
    assert!(outcome.stdout.is_empty());
}

#[test]
fn a_directory_is_restored_alone() {
    let (world, _) = World::with_backup();
    let sub = entry(&world, "tree/sub");
    let result = world.json(["restore", "latest", "--entry", &sub, "--to", "out"]);
    assert_eq!(result["complete"], true);
    assert!(world.path("out").join(&sub).join("large").exists());
    assert!(!world.path("out").join(entry(&world, "hello.txt")).exists());
}

#[test]
fn the_only_stream_needs_no_name() {
    let world = World::new();
    world.run_with_input(["create", "--stdin", "dump"], b"data").success();
    assert_eq!(world.run(["restore", "latest", "--to", "-"]).success().stdout, b"data");
    world.run(["restore", "latest", "--command", "--", "sh", "-c", "cat > copied"]).success();
    assert_eq!(fs::read(world.path("copied")).unwrap(), b"data");
    let (world, _) = World::with_backup();
    world.run(["restore", "latest", "--to", "-"]).code(2).says("--entry");
}

#[test]
fn a_failing_command_fails_the_restore() {
    let world = World::new();
    world.run_with_input(["create", "--stdin", "dump"], &noise(1 << 20, 1)).success();
    let outcome =
        world.run(["restore", "latest", "--command", "--", "sh", "-c", "cat >/dev/null; echo why >&2; exit 9"]);
    outcome.code(1).says("why");
    // One that does not read all of it.
    world.run(["restore", "latest", "--command", "--", "sh", "-c", "exec <&-; exit 1"]).code(1);
}

#[test]
fn holes_stay_holes() {
    let world = World::new();
    let file = fs::File::create(world.path("image")).unwrap();
    file.set_len(256 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &noise(1 << 20, 1), 100 << 20).unwrap();
    world.create(["--image", "image"]);
    world.run(["restore", "latest", "--entry", "image", "--to", "copy"]).success();
    let copy = fs::metadata(world.path("copy")).unwrap();
    assert_eq!(copy.len(), 256 << 20);
    assert!(copy.blocks() * 512 < 16 << 20, "{} blocks", copy.blocks());
    assert!(fs::read(world.path("copy")).unwrap() == fs::read(world.path("image")).unwrap());
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let (world, _) = World::with_backup();
    let large = entry(&world, "sub/large");
    for arguments in [vec!["cat", "latest", &large], vec!["restore", "latest", "--entry", &large, "--to", "-"]] {
        let mut child = world.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let outcome = Outcome::of(child.wait_with_output().unwrap()).code(141);
        assert_eq!(outcome.stderr, "", "{arguments:?}");
    }
}

#[test]
fn a_full_standard_output_is_a_failure() {
    let (world, _) = World::with_backup();
    let large = entry(&world, "sub/large");
    for arguments in [vec!["cat", "latest", &large], vec!["list"], vec!["list", "--json"], vec!["show", "latest"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        outcome(world.command(&arguments).stdout(full)).code(1).says("No space left");
    }
}

#[test]
fn names_that_are_not_there_or_have_no_content() {
    let (world, _) = World::with_backup();
    let sub = entry(&world, "tree/sub");
    world.run(["cat", "latest", &sub]).code(2).says("directory");
    world.run(["cat", "latest", "no/such"]).code(1).says("entry not found: no/such");
    world.run(["cat", "latest", "../etc/passwd"]).code(2).says("../etc/passwd");
    world.run(["restore", "ffffffff", "--to", "out"]).code(1).says("backup not found");
    assert!(!world.path("out").exists());
}

#[test]
fn the_latest_of_a_kind_a_host_or_a_tag() {
    let world = World::new();
    world.run(["restore", "latest", "--to", "out"]).code(1).says("there are no backups");
    let shown = world.run(["list"]).success().says("there are no backups");
    assert_eq!(shown.text(), "");
    assert_eq!(world.run(["list", "--quiet"]).success().stderr, "");
    let ids: Vec<String> = [
        ["--kind", "data", "--host", "one", "--tag", "a", "--tag", "b"],
        ["--kind", "virtual-machine", "--host", "one", "--tag", "a", "--tag", "c"],
        ["--kind", "data", "--host", "two", "--tag", "c", "--tag", "d"],
    ]
    .iter()
    .enumerate()
    .map(|(number, options)| {
        let file = world.file("data", format!("{number}"));
        world.create([file.to_str().unwrap()].iter().chain(options))
    })
    .collect();
    let data = entry(&world, "data");
    for (filter, expected) in [
        (vec![], 2),
        (vec!["--kind", "virtual-machine"], 1),
        (vec!["--kind", "data"], 2),
        (vec!["--host", "one"], 1),
        (vec!["--host", "one", "--kind", "data"], 0),
        (vec!["--tag", "a"], 1),
        (vec!["--tag", "a", "--tag", "b"], 0),
    ] {
        let shown = world.json(["show", "latest", "--summary"].iter().chain(&filter));
        assert_eq!(shown["backup"]["id"], ids[expected].as_str(), "{filter:?}");
        let content = world.run(["cat", "latest", &data].iter().chain(&filter)).success().stdout;
        assert_eq!(content, expected.to_string().as_bytes(), "{filter:?}");
        let restore = ["restore", "latest", "--entry", &data, "--to", "-"];
        assert_eq!(world.run(restore.iter().chain(&filter)).success().stdout, content, "{filter:?}");
    }
    world.run(["cat", "latest", &data, "--host", "three"]).code(1).says("backup not found: latest with --host three");
    world.run(["list", "--host", "three"]).success().says("there are no backups in the repository with --host three");
    // Found before anybody is asked for a password.
    world.secret("password", "wrong");
    for command in [vec!["restore", &ids[0], "--to", "x"], vec!["show", &ids[0]], vec!["cat", &ids[0], &data]] {
        world.run(command.iter().copied().chain(["--host", "one"])).code(2).says("--kind, --host and --tag");
    }
}

#[test]
fn a_newer_backup_that_cannot_be_opened_is_warned_about() {
    let (world, older) = World::with_backup();
    let bodies = || crate::harness::files(&world.repository().join("bodies"));
    let before = bodies();
    world.create(["tree"]);
    for (path, _) in bodies().into_iter().filter(|file| !before.contains(file)) {
        fs::write(path, "rubbish").unwrap();
    }
    let outcome = world.run(["show", "latest", "--kind", "data", "--summary", "--json"]).success();
    assert_eq!(outcome.json()["backup"]["id"], older.as_str());
    outcome.says("it may be the newest");
    world.run(["show", "latest", "--summary"]).code(3);
}
