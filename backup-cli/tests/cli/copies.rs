//! Copies between directories, by a process that has no password.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Outcome, World, files, noise, outcome};

/// Everything of a repository but marks of sessions, whose times differ.
fn lasting(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let relative = |path: &Path| path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
    let mut found: Vec<_> = files(directory).into_iter().map(|(path, bytes)| (relative(&path), bytes)).collect();
    found.retain(|(name, _)| !name.ends_with("/open") && !name.starts_with('.'));
    found
}

fn copy(world: &World, arguments: &[&str]) -> Outcome {
    let mut all = vec!["copy", "--repo", "repository", "--to", "away"];
    all.extend(arguments);
    outcome(&mut world.bare(all))
}

#[test]
fn backups_are_copied_verified_and_restored_without_a_password_in_the_process() {
    let (world, first) = World::with_backup();
    world.file("tree/more", noise(1 << 20, 5));
    let second = world.create([world.path("tree").as_os_str()]);
    let receipt = copy(&world, &["--json", "--receipt", "receipt.json"]).success().json();
    assert_eq!(receipt["ok"], true);
    assert_eq!(receipt["method"], "verbatim");
    let ids: Vec<&str> = receipt["backups"].as_array().unwrap().iter().map(|b| b["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [first.as_str(), second.as_str()]);
    assert!(receipt["backups"].as_array().unwrap().iter().all(|backup| backup["status"] == "copied"));
    let kept: Value = serde_json::from_slice(&fs::read(world.path("receipt.json")).unwrap()).unwrap();
    assert_eq!(kept, receipt);
    assert_eq!(lasting(&world.repository()), lasting(&world.path("away")));

    outcome(&mut world.bare(["verify", "--repo", "away", "--level", "bytes"])).success();
    world.run(["verify", "--repo", "away"]).success();
    world.run(["restore", &second, "--repo", "away", "--to", "restored"]).success();
    let restored: Vec<_> = files(&world.path("restored"));
    assert!(restored.iter().any(|(_, bytes)| *bytes == noise(1 << 20, 5)));

    let again = copy(&world, &["--quiet"]).success();
    assert!(again.stdout.is_empty());
    let again = copy(&world, &[]).success();
    assert!(again.text().contains("copied 0 backups, found 2"), "{}", again.text());
}

#[test]
fn one_backup_is_copied_by_name_and_the_rest_follows() {
    let (world, first) = World::with_backup();
    world.file("tree/more", noise(1 << 20, 5));
    let second = world.create([world.path("tree").as_os_str()]);
    let receipt = copy(&world, &["--json", "latest"]).success().json();
    assert_eq!(receipt["backups"][0]["id"], second.as_str());
    world.run(["verify", "--repo", "away", "--partial-history"]).success();
    world.run(["verify", "--repo", "away"]).code(3);
    world.run(["restore", "latest", "--repo", "away", "--to", "restored"]).success();
    let receipt = copy(&world, &["--json", &first[..8]]).success().json();
    assert_eq!(receipt["backups"].as_array().unwrap().len(), 1);
    world.run(["verify", "--repo", "away"]).success();
    copy(&world, &["ffffffff"]).code(1).says("backup not found: ffffffff");
    copy(&world, &["ff"]).code(2);
}

#[test]
fn what_cannot_be_copied_is_named() {
    let (world, backup) = World::with_backup();
    let (_, pack) =
        files(&world.path("repository/packs")).into_iter().map(|(path, bytes)| (bytes.len(), path)).max().unwrap();
    let whole = fs::read(&pack).unwrap();
    let mut bad = whole.clone();
    bad[1000] ^= 1;
    fs::write(&pack, bad).unwrap();
    let name = pack.file_name().unwrap().to_str().unwrap();
    let failed = copy(&world, &["--receipt", "receipt.json"]).code(3);
    assert!(failed.text().contains(name) && failed.text().contains(&backup[..8]), "{}", failed.text());
    let kept: Value = serde_json::from_slice(&fs::read(world.path("receipt.json")).unwrap()).unwrap();
    assert_eq!((&kept["ok"], &kept["backups"][0]["status"]), (&Value::Bool(false), &"failed".into()));
    assert!(kept["backups"][0]["copy"].is_null());
    fs::write(&pack, whole).unwrap();
    copy(&world, &[]).success();

    // Another repository, nothing to copy from, nowhere to write to, a receipt that cannot be written.
    let other = World::new();
    let to = other.repository();
    let arguments = ["copy", "--repo", "repository", "--to", to.to_str().unwrap()];
    outcome(&mut world.bare(arguments)).code(1).says("another repository");
    outcome(&mut world.bare(["copy", "--repo", "nowhere", "--to", "away"])).code(1).says("repository not found");
    outcome(&mut world.bare(["copy", "--repo", "repository", "--to", ""])).code(2);
    world.file("plain", "");
    outcome(&mut world.bare(["copy", "--repo", "repository", "--to", "plain/away"])).code(1);
    copy(&world, &["--receipt", "nowhere/receipt"]).code(1).says("cannot write receipt nowhere/receipt");
}

/// A second repository with a password of its own, beside the first.
fn with_another(world: &World) {
    world.secret("other-password", OTHER_PASSWORD);
    let mut init = world.bare(["init", "--repo", "other", "--password-file", "other-password"]);
    init.args(["--kdf-memory", "64M", "--kdf-iterations", "1"]);
    outcome(&mut init).success();
}

/// Must never be seen either.
const OTHER_PASSWORD: &str = "staple battery horse correct";

#[track_caller]
fn reencrypt(world: &World, arguments: &[&str]) -> Outcome {
    let mut all = vec!["copy", "--to", "other"];
    all.extend(arguments);
    let outcome = world.run(all);
    assert!(!format!("{} {}", outcome.text(), outcome.stderr).contains(OTHER_PASSWORD));
    outcome
}

#[test]
fn backups_travel_into_a_repository_with_another_password() {
    let (world, first) = World::with_backup();
    with_another(&world);
    world.file("tree/more", noise(1 << 20, 5));
    std::os::unix::fs::symlink("more", world.path("tree/link-to-more")).unwrap();
    fs::hard_link(world.path("tree/more"), world.path("tree/zz-same")).unwrap();
    let second = world.create([world.path("tree").as_os_str()]);
    let with = ["--to-password-file", "other-password"];
    let receipt =
        reencrypt(&world, &[&with[..], &["--json", "--verify", "content", "--receipt", "receipt.json"]].concat());
    let receipt = receipt.success().json();
    assert_eq!((&receipt["ok"], &receipt["method"]), (&Value::Bool(true), &"reencrypted".into()));
    let kept: Value = serde_json::from_slice(&fs::read(world.path("receipt.json")).unwrap()).unwrap();
    assert_eq!(kept, receipt);
    let ids: Vec<&str> = receipt["backups"].as_array().unwrap().iter().map(|b| b["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [first.as_str(), second.as_str()]);
    let copy = receipt["backups"][1]["copy"].as_str().unwrap();
    assert!(!ids.contains(&copy));

    // What is restored from there is what is restored from here.
    world.run(["restore", &second, "--to", "from-here"]).success();
    let there = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--repo", "other", "--password-file", "other-password"]);
        outcome(&mut world.bare(all))
    };
    there(&["restore", copy, "--to", "from-there"]).success();
    let listing = |directory: &str| {
        let directory = world.path(directory);
        let of =
            |(path, bytes): (std::path::PathBuf, Vec<u8>)| (path.strip_prefix(&directory).unwrap().to_owned(), bytes);
        files(&directory).into_iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(listing("from-here"), listing("from-there"));
    assert!(listing("from-there").iter().any(|(_, bytes)| *bytes == noise(1 << 20, 5)));
    let shown = there(&["show", copy, "--summary"]).success();
    let repository = receipt["repository"].as_str().unwrap();
    assert!(shown.text().contains(&format!("{second} in repository {repository}")), "{}", shown.text());
    let listed = there(&["list", "--json"]).success().json();
    assert_eq!(listed["backups"][1]["origins"][0]["backup"], second.as_str());
    there(&["verify", "--level", "content"]).success();
    // Either password opens its own repository only.
    outcome(&mut world.bare(["list", "--repo", "other", "--password-file", "password"])).code(4);

    let again = reencrypt(&world, &with).success();
    assert!(again.text().contains("copied 0 backups, found 2"), "{}", again.text());
}

#[test]
fn the_password_of_the_destination_comes_from_a_file_a_descriptor_or_a_command() {
    let (world, _) = World::with_backup();
    with_another(&world);
    reencrypt(&world, &["--to-password-command", "cat other-password"]).success();
    let mut command = world.command(["copy", "--to", "other", "--to-password-fd", "0", "--json"]);
    command.stdin(fs::File::open(world.path("other-password")).unwrap());
    assert_eq!(outcome(&mut command).success().json()["backups"][0]["status"], "found");

    // A wrong one, none and no terminal, two of them, one that is for nothing.
    let wrong = reencrypt(&world, &["--to-password-file", "password"]).code(4);
    assert!(wrong.stderr.contains("other") && wrong.stderr.contains("destination"), "{}", wrong.stderr);
    let none = reencrypt(&world, &[]).code(1);
    assert!(none.stderr.contains("--to-password-file") && none.stderr.contains("another repository"));
    reencrypt(&world, &["--to-password-file", "other-password", "--to-password-fd", "0"]).code(2);
    let nothing = world.run(["copy", "--to", "away", "--to-password-file", "other-password"]).code(2);
    assert!(nothing.stderr.contains("init"), "{}", nothing.stderr);
    world.run(["copy", "--to", "away", "--verify", "content"]).code(2);
    assert!(!world.path("away/config").exists());
}

#[test]
fn what_a_copy_cannot_take_any_more_is_signed_anew_with_the_password() {
    let (world, first) = World::with_backup();
    copy(&world, &[]).success();
    world.run(["collect", "--yes", "--repo", "away"]).success();
    world.file("tree/more", noise(1 << 20, 5));
    let second = world.create([world.path("tree").as_os_str()]);
    let refused = copy(&world, &[]).code(3);
    assert!(refused.text().contains("signed anew"), "{}", refused.text());
    let receipt = world.run(["copy", "--to", "away", "--json"]).success().json();
    assert_eq!((&receipt["ok"], &receipt["method"]), (&Value::Bool(true), &"signed-anew".into()));
    let backups = receipt["backups"].as_array().unwrap();
    assert_eq!((&backups[0]["copy"], &backups[0]["status"]), (&first.as_str().into(), &"found".into()));
    assert_eq!((&backups[1]["id"], &backups[1]["status"]), (&second.as_str().into(), &"copied".into()));
    let renamed = backups[1]["copy"].as_str().unwrap();
    assert_ne!(renamed, second);
    world.run(["restore", &second, "--repo", "away", "--to", "by-old-id"]).success();
    world.run(["restore", renamed, "--repo", "away", "--to", "by-new-id"]).success();
    for target in ["by-old-id", "by-new-id"] {
        assert!(files(&world.path(target)).iter().any(|(_, bytes)| *bytes == noise(1 << 20, 5)));
    }
    world.run(["verify", "--repo", "away"]).success();
    // Without the password it is found now, too.
    let again = copy(&world, &["--json"]).success().json();
    assert_eq!((&again["backups"][1]["status"], &again["bytes_copied"]), (&"found".into(), &0.into()));
    // A password that opens one place only brings nothing, and is said.
    world.run(["collect", "--yes", "--repo", "away"]).success();
    world.file("tree/third", "third");
    world.create([world.path("tree").as_os_str()]);
    world.secret("wrong", "wrong");
    let mut command = world.command(["copy", "--to", "away", "--password-file", "wrong"]);
    outcome(&mut command).code(3).says("nothing is signed anew");
}
