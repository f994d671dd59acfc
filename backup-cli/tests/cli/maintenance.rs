//! `backup forget` and `backup collect`

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{World, noise};

fn packs(world: &World) -> usize {
    let directories = fs::read_dir(world.repository().join("packs")).unwrap();
    directories.map(|directory| fs::read_dir(directory.unwrap().path()).unwrap().count()).sum()
}

/// Three backups of different data.
fn three_backups() -> (World, Vec<String>) {
    let world = World::new();
    let ids = (1..=3).map(|number| {
        let file = world.file("data", noise(3 << 20, number));
        world.create([file.as_os_str()])
    });
    let ids = ids.collect();
    (world, ids)
}

#[test]
fn forgetting_and_collecting_show_a_plan_and_then_do_it() {
    let (world, ids) = three_backups();
    let plan = world.json(["forget", &ids[0][..8], &ids[1]]);
    assert_eq!((plan["done"].as_bool(), plan["forgotten"].as_array().unwrap().len()), (Some(false), 2));
    assert_eq!(world.backups(), ids, "nothing was changed");
    let text = world.run(["forget", &ids[0]]).success().text();
    assert!(text.contains("would forget") && text.contains("--yes"), "{text}");
    let done = world.json(["forget", "--yes", &ids[0][..8], &ids[1]]);
    assert_eq!(done["done"], true);
    assert_eq!(world.backups(), ids[2..]);
    // Once more, as after an interrupt.
    let again = world.json(["forget", "--yes", &ids[0][..8], &ids[1]]);
    assert_eq!(again["already_forgotten"].as_array().unwrap().len(), 2);

    let before = packs(&world);
    let plan = world.json(["collect"]);
    assert_eq!(plan["done"], false);
    assert!(plan["plan"]["dead"]["packs"].as_u64().unwrap() > 0, "{plan}");
    assert_eq!(packs(&world), before, "nothing was changed");
    assert!(world.run(["collect"]).success().text().contains("--yes"));
    let done = world.json(["collect", "--yes"]);
    assert_eq!((done["done"].as_bool(), done["complete"].as_bool()), (Some(true), Some(true)));
    assert_eq!(done["report"]["deleted"], plan["plan"]["dead"]);
    assert_eq!(packs(&world) as u64, plan["plan"]["live"]["packs"].as_u64().unwrap());
    world.run(["verify"]).success();
    let entry = world.path("data").to_string_lossy().trim_start_matches('/').to_owned();
    world.run(["restore", "latest", "--entry", &entry, "--to", "out"]).success();
    assert!(fs::read(world.path("out")).unwrap() == noise(3 << 20, 3));
}

#[test]
fn what_tags_tell_apart_is_kept_apart() {
    let world = World::new();
    let make = |tag: &str, number: u64| {
        world.file("data", noise(1000, number));
        world.create(["--tag".into(), tag.into(), world.path("data").into_os_string()])
    };
    let ids = [make("files", 1), make("files", 2), make("db", 3)];
    world.run(["forget", "--keep-last", "1", "--yes"]).success();
    assert_eq!(world.backups(), ids[1..]);
    world.run(["forget", "--keep-last", "1", "--group-by", "host,kind", "--yes"]).success();
    assert_eq!(world.backups(), ids[2..]);
}

#[test]
fn a_copy_of_what_forgot_is_whole() {
    let (world, ids) = three_backups();
    world.run(["forget", "--yes", &ids[1]]).success();
    world.run(["collect", "--yes", "--revoke-after", "0s"]).success();
    world.run(["copy", "--to", "site"]).success();
    world.run(["verify", "-r", "site", "--level", "content"]).success();
    world.run(["forget", "-r", "site", "--yes", &ids[0]]).success();
    world.run(["collect", "-r", "site", "--yes", "--revoke-after", "0s"]).success();
    world.run(["verify", "-r", "site"]).success();
    world.run(["copy", "--to", "repository"]).code(2).says("the repository itself");
}

#[test]
fn repacking_shows_a_plan_and_then_makes_packs_smaller() {
    let world = World::new();
    let (shared, own) = (noise(2 << 20, 0), |number| noise(4 << 20, number));
    let ids: Vec<String> = (1..=3)
        .map(|number| {
            fs::create_dir_all(world.path("tree")).unwrap();
            let parts = [("tree/shared", shared.clone()), ("tree/own", own(number))];
            parts.into_iter().for_each(|(name, bytes)| drop(world.file(name, bytes)));
            world.create(["tree"])
        })
        .collect();
    world.run(["forget", "--yes", &ids[0]]).success();
    world.run(["collect", "--yes"]).success();
    let before = packs(&world);
    let plan = world.json(["collect", "--repack"]);
    assert_eq!((plan["done"].as_bool(), plan["repack"]["backups"].as_u64()), (Some(false), Some(2)), "{plan}");
    assert!(plan["repack"]["replaced"]["packs"].as_u64().unwrap() > 0, "{plan}");
    assert_eq!((packs(&world), world.backups()), (before, ids[1..].to_vec()), "nothing was changed");
    let text = world.run(["collect", "--repack=100"]).success().text();
    assert!(text.contains("replaces") && text.contains("--yes"), "{text}");
    world.run(["collect", "--repack=0"]).code(2);
    world.run(["collect", "--repack=101"]).code(2);
    world.run(["collect", "--repack", "--maintenance-key-file", "key"]).code(2);

    let done = world.json(["collect", "--yes", "--repack"]);
    assert_eq!((done["done"].as_bool(), done["complete"].as_bool()), (Some(true), Some(true)), "{done}");
    assert_eq!(done["report"]["deleted"]["packs"], done["repack"]["replaced"]["packs"], "{done}");
    assert!(done["repack"]["written"]["bytes"].as_u64() < done["repack"]["replaced"]["bytes"].as_u64(), "{done}");
    let listed = world.json(["list"]);
    for (backup, id) in listed["backups"].as_array().unwrap().iter().zip(&ids[1..]) {
        assert_eq!(backup["replaces"], serde_json::json!([id]));
    }
    // The id that was written down still names the backup.
    world.run(["verify"]).success();
    world.run(["verify", "--backup", &ids[1]]).success();
    world.run(["restore", &ids[1][..8], "--to", "out"]).success();
    world.run(["forget", "--yes", &ids[1]]).success();
    assert_eq!(world.backups().len(), 1);
    let text = world.run(["collect", "--yes", "--repack"]).success().text();
    assert!(text.contains("replaced") || text.contains("deleted"), "{text}");
    world.run(["verify"]).success();
}

#[test]
fn unknown_backups_and_empty_policies_are_refused() {
    let (world, ids) = three_backups();
    world.run(["forget", "--yes", &ids[0], "00000000"]).code(1).says("backup not found");
    world.run(["forget", "--yes", "abc"]).code(2);
    world.run(["forget", "--yes"]).code(2);
    world.run(["forget", "--yes", "--keep-last", "0"]).code(2);
    world.run(["forget", "--yes", "--host", "h"]).code(2);
    world.run(["forget", "--yes", &ids[0], "--host", "h"]).code(2).says("what a policy is applied to");
    world.run(["forget", "--yes", "--keep-last", "1", "--time-zone", "Nowhere/Never"]).code(1);
    assert_eq!(world.backups(), ids);
}

#[test]
fn a_policy_forgets_what_no_rule_keeps() {
    let (world, ids) = three_backups();
    let other = world.create(["data", "--host", "elsewhere"]);
    let text = world.run(["forget", "--keep-last", "1"]).success().text();
    assert!(text.contains("would forget 2 backups") && text.contains("newest,last"), "{text}");
    let plan = world.json(["forget", "--keep-last", "1", "--group-by", "none"]);
    assert_eq!(plan["forgotten"].as_array().unwrap().len(), 3);
    assert_eq!(plan["plan"]["groups"].as_array().unwrap().len(), 1);
    world.run(["forget", "--keep-last", "1", "--yes", "--host", "nobody"]).success();
    assert_eq!(world.backups().len(), 4);
    world.run(["forget", "--keep-last", "1", "--yes"]).success();
    assert_eq!(world.backups(), [ids[2].clone(), other]);
}

#[test]
fn the_maintenance_key_does_without_the_password() {
    let (world, ids) = three_backups();
    let printed = world.run(["key", "export-maintenance"]).success().text();
    world.run(["key", "export-maintenance", "--to", "key"]).success();
    let mode = fs::metadata(world.path("key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_to_string(world.path("key")).unwrap(), printed);
    assert!(printed.starts_with("bkmnt1"), "{}", printed.len());
    world.run(["key", "export-maintenance", "--to", "key"]).code(1).says("cannot write maintenance key file");
    // Nobody is asked for a password, and a wrong one does not matter.
    world.secret("password", "wrong");
    world.run(["forget", "--yes", "--maintenance-key-file", "key", &ids[0]]).success();
    world.run(["collect", "--yes", "--maintenance-key-file", "key"]).success();
    world.run(["verify", "--level", "bytes"]).success();
    world.run(["forget", "--yes", "--maintenance-key-file", "key", "--keep-last", "1"]).code(2);
    world.run(["forget", "--yes", &ids[1]]).code(4);
    world.secret("broken", &printed.replace('q', "p"));
    let outcome = world.run(["collect", "--yes", "--maintenance-key-file", "broken"]).code(2);
    assert!(!format!("{outcome:?}").contains(&printed[10..30]), "the key is not repeated");
    world.secret("password", crate::harness::PASSWORD);
    assert_eq!(world.backups(), ids[1..]);
    world.run(["verify"]).success();
}

#[test]
fn a_session_that_has_not_ended_is_waited_for() {
    let (world, ids) = three_backups();
    world.run(["forget", "--yes", &ids[0]]).success();
    // What a process that was killed a moment ago leaves; nobody can read when it began.
    let session = world.repository().join("sessions/00000001").join("ab".repeat(16));
    fs::create_dir_all(&session).unwrap();
    fs::write(session.join("open"), "").unwrap();
    let outcome = world.run(["collect", "--yes"]).code(3);
    outcome.says("waits for session abab");
    let plan = world.json(["collect"]);
    assert_eq!(plan["plan"]["continues"], true);
    let done = world.json(["collect", "--yes", "--revoke-after", "0s"]);
    assert_eq!(done["report"]["revoked"].as_array().unwrap().len(), 1);
    assert!(done["report"]["deleted"]["packs"].as_u64().unwrap() > 0, "{done}");
    world.run(["verify"]).success();
}
