//! `backup key`

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::World;

const CHEAP: [&str; 4] = ["--kdf-memory", "64M", "--kdf-iterations", "1"];

fn slots(world: &World) -> Vec<(String, String)> {
    let list = world.json(["key", "list"]);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    list["slots"].as_array().unwrap().iter().map(|slot| (text(&slot["id"]), text(&slot["label"]))).collect()
}

#[test]
fn passwords_are_added_changed_and_removed() {
    let (world, backup) = World::with_backup();
    world.secret("second", "second");
    let add = ["key", "add", "--label", "laptop", "--new-password-file", "second"];
    let added = world.json(add.iter().chain(&CHEAP));
    assert_eq!(slots(&world).len(), 2);
    assert!(slots(&world).contains(&(added["slot"].as_str().unwrap().to_owned(), "laptop".to_owned())));
    world.run(["list", "--password-file", "second"]).success();

    world.secret("third", "third");
    let change = ["key", "change", "--password-file", "second", "--new-password-command", "cat third"];
    world.run(change.iter().chain(&CHEAP)).success();
    assert_eq!(slots(&world).len(), 2);
    world.run(["list", "--password-file", "second"]).code(4);
    world.run(["list", "--password-file", "third"]).success();

    let first = slots(&world).into_iter().find(|(_, label)| label == "initial").unwrap().0;
    world.run(["key", "remove", &first[..10], "--password-file", "third"]).success();
    world.run(["list"]).code(4);
    world.run(["show", &backup, "--password-file", "third"]).success();
}

#[test]
fn slots_are_listed_without_a_password() {
    let world = World::new();
    world.secret("password", "wrong");
    let outcome = world.run(["key", "list"]).success().says("no slot is marked: no key slot opens");
    let text = outcome.text();
    assert!(text.contains("initial") && text.contains("password"), "{text}");
    let bare = crate::harness::outcome(world.bare(["key", "list"]).env("BACKUP_REPO", world.repository()));
    assert_eq!((bare.text(), bare.stderr.as_str()), (text, ""));
}

#[test]
fn the_slot_that_opened_is_marked_and_not_removed_by_itself() {
    let world = World::new();
    world.secret("second", "second");
    let add = ["key", "add", "--label", "laptop", "--new-password-file", "second"];
    let added = world.json(add.iter().chain(&CHEAP));
    let added = added["slot"].as_str().unwrap();
    world.run(["key", "recovery", "--to", "recovery"]).success();
    let marked = |arguments: &[&str]| world.json(["key", "list"].iter().chain(arguments))["opened_by"].clone();
    assert_eq!(marked(&["--password-file", "second"]), added);
    let first = marked(&[]);
    let initial = slots(&world).into_iter().find(|(_, label)| label == "initial").unwrap().0;
    assert_eq!(first, initial.as_str());
    let recovery = slots(&world).into_iter().find(|(_, label)| label == "recovery").unwrap().0;
    assert_eq!(marked(&["--recovery-key-file", "recovery"]), recovery.as_str());
    let text = world.run(["key", "list"]).success().text();
    let line = text.lines().find(|line| line.contains(&initial)).unwrap();
    assert!(line.starts_with('*') && text.matches('*').count() == 2, "{text}");

    for source in [["--password-file", "second"], ["--recovery-key-file", "recovery"]] {
        let own = if source[1] == "second" { added } else { &recovery };
        let refused = world.run(["key", "remove", own].iter().chain(&source)).code(2);
        refused.says("key change").says("--force").says(own);
    }
    assert_eq!(slots(&world).len(), 3);
    world.run(["key", "remove", added, "--password-file", "second", "--force"]).success();
    world.run(["list", "--password-file", "second"]).code(4);
    world.run(["key", "remove", &recovery]).success();
    // Not even by force.
    world.run(["key", "remove", &initial, "--force"]).code(1).says("it is the last one");
    world.run(["list"]).success();
}

#[test]
fn the_last_slot_and_unknown_slots_are_not_removed() {
    let world = World::new();
    let only = slots(&world).remove(0).0;
    let outcome = world.run(["key", "remove", &only]);
    assert!(matches!(outcome.code, Some(1 | 2)), "{outcome:?}");
    world.run(["list"]).success();
    let other = if only.starts_with('0') { "1" } else { "0" };
    world.run(["key", "remove", other]).code(1).says("key slot not found");
    world.run(["key", "remove", "nonsense"]).code(2);
}

#[test]
fn a_damaged_slot_is_listed_and_removed() {
    let world = World::new();
    let only = slots(&world).remove(0).0;
    let id = "0123456789abcdef0123456789abcdef";
    world.file(&format!("repository/keys/{id}"), "rubbish");
    let list = world.json(["key", "list"]);
    assert_eq!(list["damaged"], serde_json::json!([id]));
    assert!(world.run(["key", "list"]).success().text().contains("damaged"));
    world.run(["verify"]).code(3);
    // It does not stand in for the last one that opens.
    world.run(["key", "remove", &only]).code(1).says("it is the last one");
    world.run(["key", "remove", &id[..8]]).success();
    world.run(["verify"]).success();
    assert_eq!(world.json(["key", "list"])["damaged"], serde_json::json!([]));
}

#[test]
fn a_recovery_key_opens_the_repository() {
    let (world, _) = World::with_backup();
    let recovery = world.json(["key", "recovery", "--label", "safe"]);
    world.secret("recovery", recovery["recovery_key"].as_str().unwrap());
    world.run(["list", "--recovery-key-file", "recovery"]).success();

    world.run(["key", "recovery", "--to", "written"]).success();
    let mode = fs::metadata(world.path("written")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    world.run(["list", "--recovery-key-file", "written"]).success();
    // A file that exists is not replaced, and no slot is left behind for a key that nobody has.
    let before = slots(&world).len();
    world.run(["key", "recovery", "--to", "written"]).code(1).says("cannot write recovery key file");
    assert_eq!(slots(&world).len(), before);

    let text = fs::read_to_string(world.path("written")).unwrap();
    let changed = text.trim_end().char_indices().map(|(i, c)| match (i, c) {
        (20, 'q') => 'p',
        (20, _) => 'q',
        (_, c) => c,
    });
    world.secret("typo", &changed.collect::<String>());
    let outcome = world.run(["list", "--recovery-key-file", "typo"]);
    assert!(matches!(outcome.code, Some(2 | 4)), "{outcome:?}");
    assert!(!outcome.stderr.contains(&text.trim()[10..40]), "{}", outcome.stderr);
    world.secret("new", "new");
    world.run(["key", "change", "--recovery-key-file", "recovery", "--new-password-file", "new"]).code(2);
}

#[test]
fn the_root_key_is_rotated() {
    let (world, old) = World::with_backup();
    assert_eq!(world.json(["key", "rotate"])["root_key_generation"], 2);
    let new = world.create(["tree"]);
    for backup in [&old, &new] {
        world.run(["verify", "--level", "content", "--backup", backup]).success();
    }
}
