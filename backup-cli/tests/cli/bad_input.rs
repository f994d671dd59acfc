//! Wrong usage, foreign files, unreadable sources: a clear error, the right exit code, nothing lost.

use std::fs;

use crate::harness::{World, noise, outcome};

#[test]
fn usage_errors_have_exit_code_2() {
    let world = World::new();
    world.run(["frobnicate"]).code(2);
    world.run(["create"]).code(2);
    world.run(["list", "--no-such-option"]).code(2);
    world.run(["restore", "latest"]).code(2);
    let error = world.run(["create", "--json"]).code(2).error();
    assert_eq!(error["kind"], "usage");
    outcome(&mut world.bare(["list"])).code(2).says("backup: no repository given");
    outcome(&mut world.bare::<&str>([])).code(2);
}

#[test]
fn help_and_version_are_no_errors() {
    let world = World::empty();
    for arguments in [vec!["--help"], vec!["--version"], vec!["create", "--help"], vec!["key", "add", "-h"]] {
        let outcome = outcome(&mut world.bare(&arguments)).success();
        assert!(!outcome.stdout.is_empty() && outcome.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_repository_that_is_not_there() {
    let world = World::empty();
    for arguments in [vec!["list"], vec!["create", "."], vec!["verify", "--level", "presence"], vec!["key", "list"]] {
        let outcome = world.run(&arguments);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.starts_with("backup: repository not found: /"), "{outcome:?}");
    }
    assert!(!world.repository().exists(), "nothing is created by looking");
    fs::create_dir(world.repository()).unwrap();
    world.run(["list"]).code(1);
}

#[test]
fn names_that_are_not_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let world = World::empty();
    let odd = |bytes| OsStr::from_bytes(bytes);
    world.file("data", "x");
    let run = |arguments: &[&OsStr]| {
        let mut command = world.command(arguments);
        outcome(command.env("BACKUP_REPO", world.path("").join(odd(b"repos\xff")))).success()
    };
    run(&["init", "--kdf-memory", "64M", "--kdf-iterations", "1"].map(OsStr::new));
    run(&[OsStr::new("create"), OsStr::new("--image"), OsStr::new("data"), OsStr::new("--as"), odd(b"d\xe9")]);
    assert_eq!(run(&[OsStr::new("cat"), OsStr::new("latest"), odd(b"d\xe9")]).stdout, b"x");
    assert!(run(&["show", "latest"].map(OsStr::new)).text().contains("d\\xe9"));
    assert!(world.path("").join(odd(b"repos\xff")).is_dir());
}

#[test]
fn an_unknown_kind_of_url() {
    let world = World::empty();
    let outcome = world.run(["-r", "gopher://x/y", "list"]);
    assert!(matches!(outcome.code, Some(1 | 2)), "{outcome:?}");
    assert!(outcome.stderr.contains("gopher"), "{outcome:?}");
}

#[test]
fn a_repository_is_not_created_twice() {
    let (world, backup) = World::with_backup();
    world.run(["init", "--kdf-memory", "64M", "--kdf-iterations", "1"]).code(1).says("already exists");
    assert_eq!(world.backups(), [backup]);
}

#[test]
fn key_derivation_below_the_floor_is_refused() {
    let world = World::empty();
    let outcome = world.run(["init", "--kdf-memory", "1M"]);
    assert!(matches!(outcome.code, Some(1 | 2)), "{outcome:?}");
    world.run(["init", "--kdf-memory", "9999T"]).code(2);
    world.run(["init", "--kdf-iterations", "17"]).code(2);
}

#[test]
fn foreign_and_truncated_files_in_the_repository() {
    let (world, backup) = World::with_backup();
    world.file("repository/notes.txt", "who put this here");
    world.file("repository/packs/README", "nor this");
    assert_eq!(world.backups(), [backup]);
    world.run(["verify"]).success();
    let config = world.repository().join("config");
    let good = fs::read(&config).unwrap();
    for bad in [&b""[..], &good[..good.len() / 2], b"not a repository at all"] {
        let _ = fs::remove_file(&config);
        fs::write(&config, bad).unwrap();
        let outcome = world.run(["list"]);
        assert!(matches!(outcome.code, Some(1 | 3)), "{outcome:?}");
        assert!(outcome.stderr.contains("config"), "{outcome:?}");
    }
    fs::write(&config, good).unwrap();
    world.run(["list"]).success();
}

#[test]
fn unreadable_files_are_listed_and_make_the_backup_incomplete() {
    let world = World::new();
    let Some(created) = world.create_incomplete() else { return };
    let result = created.code(3).json();
    assert_eq!(result["complete"], false);
    assert_eq!(result["problem_count"], 1);
    assert!(result["problems"][0]["name"].as_str().unwrap().ends_with("tree/secret"), "{result}");
    let shown = world.run(["show", "latest"]).success().text();
    assert!(shown.contains("incomplete") && shown.contains("hello.txt"), "{shown}");
    world.run(["verify"]).success();
}

#[test]
fn sources_that_do_not_exist() {
    let world = World::new();
    world.tree();
    let outcome = world.run(["create", "tree", "no/such/path"]);
    assert!(matches!(outcome.code, Some(1 | 3)), "{outcome:?}");
    assert!(outcome.stderr.contains("no/such/path"), "{outcome:?}");
    world.run(["create", "--image", "missing"]).code(1).says("missing");
    world.run(["create", "--stdin", "../x"]).code(2).says("../x");
    world.run(["create", "--stdin", "/x"]).code(2).says("write x for /x");
    world.run(["create", "tree", "--parent", "ffffffff"]).code(1).says("backup not found");
    world.run(["create", "tree", "--kind", "No Such"]).code(2);
}

#[test]
fn the_same_name_twice() {
    let world = World::new();
    let outcome = world.run(["create", "--stdin", "x", "--command", "x", "--", "true"]);
    assert!(matches!(outcome.code, Some(1 | 2)), "{outcome:?}");
    assert!(world.backups().is_empty());
}

#[test]
fn a_repository_is_made_where_nothing_else_is() {
    let world = World::empty();
    let init = ["init", "--kdf-memory", "64M", "--kdf-iterations", "1"];
    world.file("repository/notes.txt", "mine");
    world.run(init).code(1).says("repository").says("something else in it: notes.txt");
    assert_eq!(world.repository_files().len(), 1, "nothing was written");
    fs::remove_file(world.path("repository/notes.txt")).unwrap();
    // An empty file system has this directory.
    fs::create_dir(world.path("repository/lost+found")).unwrap();
    world.run(init).success();
    // Whatever a repository has is its own: one that lost its config is no other thing.
    world.file("data", noise(1 << 20, 1));
    let id = world.create(["data"]);
    world.create(["data"]);
    world.run(["forget", "--yes", &id]).success();
    world.run(["collect", "--yes"]).success();
    world.run(["scrub", "--add-parity"]).success();
    world.run(init).code(1).says("repository already exists");
    fs::remove_file(world.path("repository/config")).unwrap();
    world.run(init).code(1).says("repository already exists");
}

#[test]
fn only_the_last_directory_of_a_repository_is_made() {
    let world = World::empty();
    for place in ["media/usb/backups".to_owned(), format!("file://{}", world.path("media/usb/backups").display())] {
        let init = ["init", "--repo", &place, "--kdf-memory", "64M", "--kdf-iterations", "1"];
        world.run(init).code(1).says("media/usb is no directory").says("not mounted");
        assert!(!world.path("media").exists(), "{place}");
    }
    let (source, _) = World::with_backup();
    source.run(["copy", "--to", "media/usb/copy"]).code(1).says("not mounted");
    assert!(!source.path("media").exists());
    fs::create_dir_all(world.path("media/usb")).unwrap();
    let init = ["init", "--repo", "media/usb/backups", "--kdf-memory", "64M", "--kdf-iterations", "1"];
    world.run(init).success();
}

#[test]
fn the_repository_is_no_part_of_a_backup_in_it() {
    let world = World::new();
    world.file("data", "x");
    let parent = world.path("").canonicalize().unwrap();
    let parent = parent.to_str().unwrap();
    let outcome = world.run(["create", parent, "--json"]).success().says("repository is left out");
    let left_out = format!("{}/repository", parent.trim_start_matches('/'));
    assert_eq!(outcome.json()["left_out"], serde_json::json!([left_out]));
    let shown = world.run(["show", "latest"]).success().text();
    assert!(shown.contains("/data\n") && !shown.contains("/repository"), "{shown}");
    // Also where it is called by another name, and for a comparison.
    std::os::unix::fs::symlink(world.repository(), world.path("link")).unwrap();
    world.run(["create", ".", "--repo", "link"]).success().says("repository is left out");
    world.run(["verify", "--compare", "."]).success();
    for inside in ["repository", "repository/packs", "link/"] {
        world.run(["create", inside]).code(2).says("lies in the repository");
    }
    assert_eq!(world.json(["create", "data"])["left_out"], serde_json::json!([]));
    // The link itself is not the repository.
    world.run(["create", "link"]).success();
}

#[test]
fn what_a_repository_cannot_do_without_is_damage_where_it_is_lost() {
    let (world, _) = World::with_backup();
    for name in ["config", "keyring", "keys"] {
        let (from, to) = (world.repository().join(name), world.path("kept"));
        fs::rename(&from, &to).unwrap();
        let outcome = world.run(["list", "--json"]).code(3);
        assert_eq!(outcome.error()["kind"], "damaged", "{name}: {}", outcome.stderr);
        outcome.says(name).says("the repository cannot be opened without");
        fs::rename(&to, &from).unwrap();
    }
    world.run(["verify"]).success();
    // Where nothing else of a repository is, there is none.
    for name in ["packs", "sessions", "collections", "config"] {
        let _ = fs::rename(world.repository().join(name), world.path(name));
    }
    world.run(["list"]).code(1).says("repository not found");
}

#[test]
fn an_address_that_leads_nowhere_says_so_in_one_sentence() {
    let world = World::new();
    world.file("file/x", "");
    let outcome = world.run(["list", "--repo", "file/x/y"]).code(1);
    assert_eq!(outcome.stderr, "backup: storage failed to open file/x/y: Not a directory (os error 20)\n");
    world.run(["list", "--repo", "me@host:/backups"]).code(1).says("unsupported storage address").says("host");
    world.run(["init", "--repo", "host:/backups"]).code(1).says("unsupported storage address");
    assert!(!world.path("host:").exists());
}

#[test]
fn a_read_only_storage_is_named() {
    let (world, _) = World::with_backup();
    world.run(["export", "--to", "archive"]).success();
    let outcome = world.run(["create", "tree", "--repo", "archive"]).code(1);
    outcome.says("read-only: the storage archive");
}

#[test]
fn a_cost_that_no_slot_may_have_is_wrong_usage_in_the_unit_that_was_given() {
    let world = World::empty();
    for (options, text) in [
        (vec!["--kdf-memory", "8G"], "--kdf-memory is 8.0 GiB, and must be from 64.0 MiB to 1.0 GiB"),
        (vec!["--kdf-memory", "1M"], "--kdf-memory is 1.0 MiB, and must be"),
        (vec!["--kdf-memory", "9000T"], "--kdf-memory is"),
        (vec!["--kdf-memory", "1G", "--kdf-iterations", "5"], "1.0 GiB times 5, and must be at most 4.0 GiB"),
    ] {
        world.run(["init"].iter().chain(&options)).code(2).says(text);
    }
    assert!(!world.repository().exists());
}
