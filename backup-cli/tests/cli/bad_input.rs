//! Wrong usage, foreign files, unreadable sources: a clear error, the right exit code, nothing lost.

use std::fs;

use crate::harness::{World, outcome, works};

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
    let drop_override = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
    let world = World::new();
    world.tree();
    let secret = world.secret("tree/secret", "x");
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let mut command = if fs::read(&secret).is_err() {
        world.command(["create", "tree", "--json"])
    } else {
        // The superuser reads everything; without this capability it does not.
        if !works("unreadable files", &[&drop_override[..], &["true"]].concat()) {
            return;
        }
        let inner = world.command(["create", "tree", "--json"]);
        let mut command = std::process::Command::new(drop_override[0]);
        command.args(&drop_override[1..]).arg(inner.get_program()).args(inner.get_args()).current_dir(world.path(""));
        command.env("BACKUP_REPO", world.repository()).env("BACKUP_PASSWORD_FILE", world.path("password"));
        command
    };
    let result = outcome(&mut command).code(3).json();
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
    world.run(["create", "--stdin", "/x"]).code(2).says("absolute");
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
