//! Storage that cannot be written: read-only and full.
//!
//! Real mounts, in a mount namespace of their own where the system allows that.

use std::process::Command;

use crate::harness::{Outcome, World, noise, outcome, works};

const NAMESPACE: [&str; 4] = ["unshare", "--user", "--map-root-user", "--mount"];

/// Runs a shell script in a namespace; `$BACKUP` is the binary.
fn in_namespace(world: &World, script: &str) -> Outcome {
    let mut command = Command::new(NAMESPACE[0]);
    command.args(&NAMESPACE[1..]).args(["sh", "-ec", script]).current_dir(world.path(""));
    command.env("BACKUP", env!("CARGO_BIN_EXE_backup"));
    command.env("BACKUP_REPO", world.repository()).env("BACKUP_PASSWORD_FILE", world.path("password"));
    outcome(&mut command)
}

fn can_mount(test: &str) -> bool {
    works(test, &[&NAMESPACE[..], &["mount", "-t", "tmpfs", "none", "/mnt"]].concat())
}

#[test]
fn a_read_only_repository_is_verified_and_restored() {
    if !can_mount("read-only repository") {
        return;
    }
    let (world, backup) = World::with_backup();
    let read_only = "mount --bind repository repository; mount -o remount,ro,bind repository;";
    let run = |command: &str| in_namespace(&world, &format!("{read_only} $BACKUP {command}"));
    for level in ["presence", "bytes", "structure", "content"] {
        run(&format!("verify --level {level}")).success();
    }
    run(&format!("restore {backup} --to out")).success();
    run("list").success();
    run("key list").success();
    assert_eq!(run("status --json").success().json()["read_only"], true);
    run("create tree").code(1).says("read-only");
    run("key rotate").code(1).says("read-only");
}

#[test]
fn a_full_disk_fails_the_backup_and_harms_nothing() {
    if !can_mount("full disk") {
        return;
    }
    let world = World::empty();
    world.file("small", "small");
    world.file("large", noise(32 << 20, 1));
    let script = "
        mkdir repository; mount -t tmpfs -o size=16m none repository
        $BACKUP init --kdf-memory 64M --kdf-iterations 1 --quiet
        $BACKUP create small --quiet
        code=0; $BACKUP create large || code=$?
        test $code = 1
        $BACKUP verify --quiet
        $BACKUP create small --quiet
        $BACKUP list --json
    ";
    let outcome = in_namespace(&world, script).success().says("no space left");
    assert_eq!(outcome.json()["backups"].as_array().unwrap().len(), 2);
}

#[test]
fn a_full_target_fails_the_restore() {
    if !can_mount("full target") {
        return;
    }
    let world = World::new();
    world.file("data/large", noise(8 << 20, 1));
    world.create(["data"]);
    world.run_with_input(["create", "--stdin", "dump"], &noise(8 << 20, 2)).success();
    let mount = "mkdir -p target; mount -t tmpfs -o size=4m none target;";
    let outcome = in_namespace(&world, &format!("{mount} $BACKUP restore latest --entry dump --to target/dump"));
    outcome.code(1).says("target/dump");
    let backup = world.backups().remove(0);
    let outcome = in_namespace(&world, &format!("{mount} $BACKUP restore {backup} --to target --json"));
    assert!(matches!(outcome.code, Some(1 | 3)), "{outcome:?}");
    world.run(["verify"]).success();
}
