//! `backup verify`

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::harness::{World, noise, outcome};

/// Packs of the repository, the largest first.
fn packs(world: &World) -> Vec<PathBuf> {
    let mut packs: Vec<PathBuf> = world
        .repository_files()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.to_string_lossy().contains("/packs/"))
        .collect();
    packs.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    packs
}

fn flip(path: &PathBuf, offset: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[usize::try_from(offset).unwrap()] ^= 1;
    let mut permissions = fs::metadata(path).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false, reason = "a file of this test")]
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn every_level_is_fine_with_a_good_repository() {
    let (world, backup) = World::with_backup();
    for level in ["presence", "bytes", "structure", "content"] {
        let report = world.json(["verify", "--level", level]);
        assert_eq!((&report["ok"], &report["findings"]), (&json!(true), &json!([])), "{level}: {report}");
        let report = world.json(["verify", "--level", level, "--backup", &backup[..8], "--backup", "latest"]);
        assert_eq!(report["ok"], true, "{level}");
        let text = world.run(["verify", "--level", level]).success().text();
        assert!(text.ends_with("ok\n"), "{text}");
        world.run(["verify", "--level", level, "--backup", "ffffffffff"]).code(1).says("backup not found");
    }
    assert_eq!(world.json(["verify"])["level"], "content");
    assert_eq!(world.json(["verify", "--sample", "0.000001"])["partial"], true);
}

#[test]
fn presence_and_bytes_need_no_password() {
    let (world, backup) = World::with_backup();
    for level in ["presence", "bytes"] {
        let mut command = world.bare(["verify", "--level", level, "--backup", &backup[..8]]);
        outcome(command.env("BACKUP_REPO", world.repository())).success();
    }
    outcome(world.bare(["verify", "--level", "structure"]).env("BACKUP_REPO", world.repository())).code(2);
}

#[test]
fn a_missing_pack_is_found_at_every_level() {
    let (world, _) = World::with_backup();
    fs::remove_file(&packs(&world)[0]).unwrap();
    for level in ["presence", "bytes", "structure", "content"] {
        let outcome = world.run(["verify", "--level", level, "--json"]);
        // Some levels cannot go on; none says that all is well.
        let outcome = outcome.code(3);
        if !outcome.stdout.is_empty() {
            let report = outcome.json();
            assert_eq!(report["ok"], false, "{level}");
            assert!(!report["findings"].as_array().unwrap().is_empty(), "{level}");
        }
    }
}

#[test]
fn a_changed_byte_is_found_and_named() {
    let (world, _) = World::with_backup();
    let pack = packs(&world).remove(0);
    flip(&pack, fs::metadata(&pack).unwrap().len() / 2);
    let name = pack.file_name().unwrap().to_str().unwrap();
    let report = world.run(["verify", "--level", "bytes", "--json"]).code(3).json();
    assert!(report["findings"][0]["object"].as_str().unwrap().contains(name), "{report}");
    let report = world.run(["verify", "--level", "content", "--json"]).code(3).json();
    assert_eq!(report["ok"], false);
    let hurt = report["findings"].to_string();
    assert!(hurt.contains("sub/large"), "{hurt}");
    let text = world.run(["verify"]).code(3).text();
    assert!(text.contains("damaged:") && text.contains("sub/large") && text.ends_with("not ok\n"), "{text}");

    // What is undamaged can still be restored, what is damaged is not passed off as whole.
    let report = world.run(["restore", "latest", "--to", "out", "--json"]).code(3).json();
    assert_eq!(report["complete"], false);
    assert!(report["problems"].to_string().contains("sub/large"), "{report}");
}

#[test]
fn a_damaged_entry_gives_exit_code_3() {
    let world = World::new();
    world.run_with_input(["create", "--stdin", "dump"], &noise(2 << 20, 7)).success();
    let pack = packs(&world).remove(0);
    flip(&pack, fs::metadata(&pack).unwrap().len() / 2);
    world.run(["cat", "latest", "dump"]).code(3).says("damaged");
    world.run(["restore", "latest", "--entry", "dump", "--to", "out"]).code(3).says("damaged");
    let error = world.run(["cat", "latest", "dump", "--json"]).code(3).error();
    assert_eq!(error["kind"], "damaged");
    // A command is ended before it can take half of the data for all of it.
    let script = "cat >/dev/null && touch committed";
    world.run(["restore", "latest", "--command", "--", "sh", "-c", script]).code(3);
    assert!(!world.path("committed").exists());
}

#[test]
fn shares_cover_everything_in_time() {
    let (world, _) = World::with_backup();
    for _ in 0..3 {
        let report = world.json(["verify", "--level", "content", "--rotate-days", "2", "--ledger", "ledger"]);
        assert_eq!(report["ok"], true);
    }
    assert!(world.path("ledger").exists());
    world.file("ledger", "nonsense");
    world.run(["verify", "--rotate-days", "2", "--ledger", "ledger"]).code(1).says("cannot read ledger ledger");
    world.run(["verify", "--level", "bytes", "--rotate-days", "2", "--ledger", "ledger"]).code(2);
}

#[test]
fn a_repository_that_was_set_back_is_noticed() {
    let (world, first) = World::with_backup();
    let second = world.create(["tree"]);
    for level in ["presence", "structure"] {
        world.run(["verify", "--level", level, "--expect-head", &second]).success();
        let report =
            world.run(["verify", "--level", level, "--expect-head", &"ab".repeat(32), "--json"]).code(3).json();
        assert_eq!(report["ok"], false, "{level}");
    }
    world.run(["verify", "--expect-head", "abc"]).code(2);
    let _ = first;
}

#[test]
fn live_data_is_compared() {
    let (world, _) = World::with_backup();
    let tree = world.path("tree");
    let tree = tree.to_str().unwrap();
    let result = world.json(["verify", "--compare", tree]);
    assert_eq!((&result["ok"], &result["level"]), (&json!(true), &json!(null)), "{result}");
    world.file("tree/hello.txt", "changed");
    world.file("tree/more", "x");
    let result = world.run(["verify", "--compare", tree, "--json"]).code(3).json();
    assert_eq!(result["ok"], false);
    assert!(result["comparison"]["differences"].as_array().unwrap().len() >= 2, "{result}");
    let text = world.run(["verify", "--compare", tree]).code(3).text();
    assert!(text.contains("hello.txt") && text.contains("more") && text.ends_with("not ok\n"), "{text}");
}

#[test]
fn a_stream_is_compared_with_a_file() {
    let world = World::new();
    let mut content = noise(1 << 20, 1);
    world.run_with_input(["create", "--stdin", "dump"], &content).success();
    world.file("dump", &content);
    world.run(["verify", "--compare", "dump", "--entry", "dump"]).success();
    content[123_456] ^= 1;
    world.file("dump", &content);
    let result = world.run(["verify", "--compare", "dump", "--entry", "dump", "--json"]).code(3).json();
    assert_eq!(result["comparison"]["differs_at"], 123_456);
    world.run(["verify", "--compare", "missing", "--entry", "dump"]).code(1).says("missing");
}
