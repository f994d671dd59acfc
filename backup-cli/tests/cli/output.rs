//! Shapes of `--json`, `--quiet`, completions and man pages.

use std::fs;

use serde_json::Value;

use crate::harness::{World, outcome};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The keys are a promise of `docs/cli.md`: they may grow and are never renamed.
#[test]
fn the_shapes_of_json_are_stable() {
    let world = World::empty();
    let init = world.json(["init", "--kdf-memory", "64M", "--kdf-iterations", "1"]);
    assert_eq!(keys(&init), ["repository"]);
    world.tree();
    let create = world.json(["create", "tree"]);
    assert_eq!(
        keys(&create),
        [
            "backup",
            "bytes_logical",
            "bytes_new",
            "bytes_read",
            "bytes_stored",
            "bytes_unchanged",
            "chunks",
            "chunks_new",
            "complete",
            "entries",
            "finished",
            "host",
            "kind",
            "left_out",
            "parent",
            "parity",
            "problem_count",
            "problems",
            "repository",
            "seconds",
            "started"
        ]
    );
    let backup = [
        "finished",
        "host",
        "id",
        "kind",
        "labels",
        "origins",
        "parent",
        "problem_count",
        "problems",
        "replaces",
        "started",
        "statistics",
        "tags",
    ];
    let list = world.json(["list"]);
    assert_eq!(keys(&list), ["backups", "repository", "unreadable"]);
    assert_eq!(keys(&list["backups"][0]), backup);
    let show = world.json(["show", "latest"]);
    assert_eq!(keys(&show), ["backup", "entries"]);
    assert_eq!(keys(&show["backup"]), backup);
    let entry = show["entries"].as_array().unwrap().iter().find(|entry| entry["kind"] == "file").unwrap();
    assert_eq!(
        keys(entry),
        [
            "digest",
            "gid",
            "group",
            "hard_link",
            "inconsistent",
            "kind",
            "mode",
            "modified",
            "path",
            "size",
            "uid",
            "user"
        ]
    );
    assert_eq!(keys(&world.json(["show", "latest", "--summary"])), ["backup"]);
    assert_eq!(
        keys(&world.json(["verify"])),
        [
            "backups_checked",
            "bytes_checked",
            "chunks_checked",
            "comparison",
            "entries_checked",
            "findings",
            "findings_omitted",
            "finished",
            "history",
            "incomplete",
            "level",
            "objects_checked",
            "ok",
            "partial",
            "repository",
            "shard",
            "started"
        ]
    );
    let restore = [
        "backup",
        "backup_problem_count",
        "bytes",
        "complete",
        "entries",
        "problem_count",
        "problems",
        "seconds",
        "target",
    ];
    assert_eq!(keys(&world.json(["restore", "latest", "--to", "out"])), restore);
    let path = entry["path"].as_str().unwrap();
    assert_eq!(keys(&world.json(["restore", "latest", "--entry", path, "--to", "file"])), restore);
    let beside = world.run(["restore", "latest", "--entry", path, "--to", "-", "--json"]).success();
    assert_eq!(keys(&serde_json::from_str(&beside.stderr).unwrap()), restore);
    let beside = world.run(["cat", "latest", path, "--json"]).success();
    assert_eq!(keys(&serde_json::from_str(&beside.stderr).unwrap()), ["backup", "bytes", "entry"]);
    assert_eq!(keys(&world.json(["diff", "latest", "latest"])), ["differences", "new", "old"]);
    let slots = world.json(["key", "list"]);
    assert_eq!(keys(&slots), ["damaged", "opened_by", "slots"]);
    for key in ["id", "kind", "label"] {
        assert!(keys(&slots["slots"][0]).contains(&key), "{slots}");
    }
    assert_eq!(keys(&world.json(["key", "recovery"])), ["recovery_key", "slot"]);
    assert_eq!(keys(&world.json(["key", "rotate"])), ["root_key_generation"]);
    let status = world.json(["status"]);
    for key in ["id", "read_only", "free_bytes", "backups", "newest", "unfinished_sessions", "root_key_generation"] {
        assert!(keys(&status).contains(&key), "{key}: {status}");
    }
    let stats = world.json(["stats"]);
    for key in [
        "backups",
        "logical_bytes",
        "unique_bytes",
        "stored_bytes",
        "packs",
        "chunks",
        "dedup_ratio",
        "compression_ratio",
        "index_memory_bytes",
    ] {
        assert!(keys(&stats).contains(&key), "{key}: {stats}");
    }
    let error = world.run(["show", "ffffff", "--json"]).code(1);
    assert!(error.stdout.is_empty());
    assert_eq!(keys(&error.error()), ["causes", "kind", "message"]);
}

#[test]
fn json_and_quiet_leave_standard_error_alone() {
    let world = World::new();
    world.tree();
    for arguments in [vec!["create", "tree", "--json"], vec!["verify", "--json"]] {
        assert_eq!(world.run(&arguments).success().stderr, "", "{arguments:?}");
    }
    for arguments in
        [vec!["create", "tree", "--quiet"], vec!["verify", "-q"], vec!["restore", "latest", "--to", "o", "-q"]]
    {
        let outcome = world.run(&arguments).success();
        assert_eq!((outcome.stderr.as_str(), outcome.stdout.len()), ("", 0), "{arguments:?}");
    }
}

#[test]
fn lines_are_few_when_nobody_watches() {
    let world = World::new();
    world.tree();
    assert_eq!(world.run(["create", "tree"]).success().stderr, "");
}

#[test]
fn tags_cannot_command_the_terminal() {
    let world = World::new();
    world.tree();
    world.create(["tree", "--tag", "a\x1b[2Jb"]);
    let text = world.run(["list"]).success().text();
    assert!(!text.contains('\x1b'), "{text:?}");
}

#[test]
fn completions_and_man_pages_come_from_the_definition() {
    let world = World::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = outcome(&mut world.bare(["completions", shell])).success().text();
        assert!(script.contains("restore") && script.contains("password-file"), "{shell}");
    }
    // Values of the environment are no part of them: a URL can hold a password.
    outcome(world.bare(["man", "pages"]).env("BACKUP_REPO", "https://user:hunter2@host/")).success();
    let help = outcome(world.bare(["--help"]).env("BACKUP_REPO", "https://user:hunter2@host/")).success().text();
    assert!(help.contains("BACKUP_REPO") && !help.contains("hunter2"), "{help}");
    for page in ["backup.1", "backup-create.1", "backup-key-add.1", "backup-verify.1"] {
        let text = fs::read_to_string(world.path("pages").join(page)).unwrap();
        assert!(text.starts_with(".ie") || text.contains(".TH"), "{page}");
    }
    assert!(!fs::read_to_string(world.path("pages/backup.1")).unwrap().contains("hunter2"));
}
