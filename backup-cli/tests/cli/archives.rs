//! Archives: exported, damaged, repaired and restored from, with no password but for the restore.

use std::fs;

use crate::harness::{World, noise, outcome};

#[test]
fn an_archive_is_repaired_and_restored_from() {
    let (world, first) = World::with_backup();
    world.file("tree/sub/more", noise(2 << 20, 9));
    let second = world.create(["tree"]);
    // No password is asked for, and none is there.
    let mut command = world.bare(["export", "--json", "-r", "repository", "--to", "archive"]);
    let report = outcome(&mut command).success().json();
    assert_eq!(report["backups"].as_array().unwrap().len(), 2);
    let bytes = fs::read(world.path("archive")).unwrap();
    assert_eq!(report["bytes"], bytes.len());
    world.run(["export", "--to", "archive"]).code(1).says("exists");

    let clean = outcome(&mut world.bare(["repair", "archive", "--json"])).success().json();
    assert_eq!((&clean["ok"], &clean["lost_blocks"]), (&true.into(), &0.into()));
    // Half a MiB of damage in one piece, and bytes cut out.
    let mut damaged = bytes.clone();
    damaged[700_000..1_200_000].fill(0);
    damaged.drain(100_000..100_100);
    fs::write(world.path("damaged"), &damaged).unwrap();
    let found = outcome(&mut world.bare(["repair", "damaged"])).code(3);
    assert!(found.text().contains("nothing is lost"), "{}", found.text());
    let report = outcome(&mut world.bare(["repair", "damaged", "--to", "repaired", "--json"])).success().json();
    assert_eq!((&report["exact"], &report["complete"]), (&true.into(), &true.into()));
    assert!(fs::read(world.path("repaired")).unwrap() == bytes);

    for archive in ["archive", "damaged"] {
        let read = |arguments: &[&str]| world.run(arguments.iter().copied().chain(["-r", archive]));
        assert_eq!(read(&["list", "--json"]).success().json()["backups"].as_array().unwrap().len(), 2);
        read(&["verify"]).success();
        read(&["verify", "--level", "bytes"]).success();
        let target = format!("restored-from-{archive}");
        read(&["restore", &second, "--to", &target]).success();
        for name in ["hello.txt", "sub/large", "sub/more"] {
            let restored = fs::read(world.path(&target).join("tree").join(name)).unwrap();
            assert!(restored == fs::read(world.path("tree").join(name)).unwrap(), "{name}");
        }
        read(&["create", "tree"]).code(1).says("read-only");
    }
    // One backup alone, to standard output.
    let mut command = world.bare(["export", "-r", "repository", &first[..8], "--to", "-", "--profile", "strong"]);
    let piped = command.output().unwrap();
    assert!(piped.status.success());
    fs::write(world.path("first"), &piped.stdout).unwrap();
    let listed = world.run(["list", "-r", "first", "--json"]).success().json();
    assert_eq!(listed["backups"][0]["id"], first.as_str());
    assert_eq!(listed["backups"].as_array().unwrap().len(), 1);
    world.run(["restore", "-r", "first", "latest", "--to", "first-restored"]).success();
    assert_eq!(fs::read(world.path("first-restored/tree/hello.txt")).unwrap(), b"hello\n");
}

#[test]
fn what_is_lost_is_named_and_the_rest_is_kept() {
    let (world, _) = World::with_backup();
    world.run(["export", "--to", "archive", "--profile", "light"]).success();
    let mut bytes = fs::read(world.path("archive")).unwrap();
    let end = bytes.len() - (64 << 10);
    bytes[1 << 20..end].fill(0);
    fs::write(world.path("damaged"), &bytes).unwrap();
    let found = outcome(&mut world.bare(["repair", "damaged", "--to", "rest"])).code(3);
    assert!(found.text().contains("lost: packs/"), "{}", found.text());
    assert!(found.stderr.contains("cannot be made anew"), "{}", found.stderr);
    assert_eq!(fs::read(world.path("rest")).unwrap().len(), bytes.len());
    world.run(["verify", "-r", "rest", "--level", "bytes"]).code(3);
    // What is no archive says so.
    world.file("other", noise(100_000, 3));
    outcome(&mut world.bare(["repair", "other"])).code(3).says("no block of an archive");
    world.run(["list", "-r", "other"]).code(3).says("no block of an archive");
    outcome(&mut world.bare(["repair", "absent"])).code(1).says("absent");
}
