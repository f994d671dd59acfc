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
fn a_verification_says_what_it_looked_at() {
    let (world, backup) = World::with_backup();
    world.create(["tree"]);
    let summary = |arguments: &[&str]| {
        let text = world.run(["verify"].iter().chain(arguments)).success().text();
        text.lines().find(|line| line.starts_with("level ")).map(str::to_owned).unwrap_or_else(|| panic!("{text}"))
    };
    let presence = summary(&["--level", "presence"]);
    assert!(presence.starts_with("level presence: looked for ") && presence.contains("of 2 backups"), "{presence}");
    assert!(presence.ends_with("what is in them was not read"), "{presence}");
    for level in ["bytes", "structure", "content"] {
        let line = summary(&["--level", level]);
        assert!(line.starts_with(&format!("level {level}: checked ")), "{line}");
        assert_eq!(line.contains("entries"), level != "bytes", "{line}");
        assert_eq!(line.contains("chunk"), level == "content", "{line}");
    }
    assert!(summary(&["--backup", &backup]).ends_with(": only what was named"));
    assert!(summary(&["--sample", "0.1"]).ends_with(": a share of the data"));
}

/// Objects of a kind.
fn objects(world: &World, kind: &str) -> Vec<PathBuf> {
    crate::harness::files(&world.repository().join(kind)).into_iter().map(|(path, _)| path).collect()
}

#[test]
fn without_the_password_a_lost_object_names_the_backups_that_need_it() {
    let world = World::new();
    let mut own = Vec::new();
    for number in 1..=2 {
        let before = [objects(&world, "packs"), objects(&world, "closures"), objects(&world, "bodies")].concat();
        let file = world.file(&format!("data{number}"), noise(2 << 20, number));
        let id = world.create([file.as_os_str()]);
        let after = [objects(&world, "packs"), objects(&world, "closures"), objects(&world, "bodies")].concat();
        own.push((id, after.into_iter().filter(|path| !before.contains(path)).collect::<Vec<_>>()));
    }
    for (id, objects) in &own {
        for path in objects.iter().filter(|path| !path.to_string_lossy().contains("/bodies/")) {
            let bytes = fs::read(path).unwrap();
            for level in ["presence", "bytes"] {
                fs::remove_file(path).unwrap();
                let report = world.run(["verify", "--level", level, "--json"]).code(3).json();
                assert_eq!(report["findings"][0]["backups"], json!([id]), "{level}: {}: {report}", path.display());
                let text = world.run(["verify", "--level", level]).code(3).text();
                assert!(text.contains(&format!("needed by backup {}", &id[..8])), "{text}");
                fs::write(path, &bytes).unwrap();
            }
            flip(path, 5);
            let report = world.run(["verify", "--level", "bytes", "--json"]).code(3).json();
            assert_eq!(report["findings"][0]["backups"], json!([id]), "{}: {report}", path.display());
            fs::write(path, &bytes).unwrap();
        }
    }
    world.run(["verify"]).success();
}

#[test]
fn a_lost_or_damaged_body_is_reported_once() {
    let (world, backup) = World::with_backup();
    let body = objects(&world, "bodies").remove(0);
    let bytes = fs::read(&body).unwrap();
    for lose in [true, false] {
        if lose {
            fs::remove_file(&body).unwrap();
        } else {
            flip(&body, 40);
        }
        for level in ["bytes", "structure", "content"] {
            let report = world.run(["verify", "--level", level, "--json"]).code(3).json();
            assert_eq!(report["findings"].as_array().unwrap().len(), 1, "{level}: {report}");
            assert_eq!(report["findings"][0]["backups"], json!([backup]), "{level}: {report}");
        }
        fs::write(&body, &bytes).unwrap();
    }
}

#[test]
fn an_incomplete_backup_is_warned_about_when_it_is_verified_or_restored() {
    let (world, whole) = World::with_backup();
    let Some(created) = world.create_incomplete() else { return };
    let id = created.code(3).json()["backup"].as_str().unwrap().to_owned();
    let warning = format!("backup {} was incomplete when it was made: 1 problem", &id[..8]);
    for level in ["structure", "content"] {
        let outcome = world.run(["verify", "--level", level, "--json"]).success().says(&warning);
        assert_eq!(outcome.json()["incomplete"], json!([{"backup": id, "problem_count": 1}]), "{level}");
        let text = world.run(["verify", "--level", level]).success().says(&warning);
        assert!(text.text().ends_with("ok\n"));
    }
    assert_eq!(world.json(["verify", "--backup", &whole])["incomplete"], json!([]));
    let outcome = world.run(["restore", &id, "--to", "out", "--json"]).success().says(&warning);
    assert_eq!((&outcome.json()["backup_problem_count"], &outcome.json()["complete"]), (&json!(1), &json!(true)));
    let whole = world.run(["restore", &whole, "--to", "out-whole", "--json"]).success();
    assert_eq!((whole.json()["backup_problem_count"].as_u64(), whole.stderr.as_str()), (Some(0), ""));
    assert!(world.run(["show", &id, "--summary"]).success().text().contains("tree/secret"));
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
    for id in [&first, &second] {
        world.run(["verify", "--level", "presence", "--expect-head", &id[..8]]).success();
    }
    let other = if first.starts_with("abab") || second.starts_with("abab") { "cdcd" } else { "abab" };
    for level in ["presence", "structure"] {
        let outcome = world.run(["verify", "--level", level, "--expect-head", other]).code(3);
        outcome.says(other).says("the expected backup is not there");
    }
    world.run(["verify", "--expect-head", "abc"]).code(2);
    // What was forgotten is in the history.
    world.run(["forget", "--yes", &first]).success();
    world.run(["verify", "--level", "presence", "--expect-head", &first[..8]]).success();
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

/// What docs/cli.md says of a damaged pack of which the data still exists.
#[test]
fn what_still_exists_is_stored_again_while_a_damaged_pack_is_away() {
    let (world, old) = World::with_backup();
    let pack = packs(&world).remove(0);
    flip(&pack, fs::metadata(&pack).unwrap().len() / 2);
    world.run(["verify"]).code(3);
    fs::rename(&pack, world.path("away")).unwrap();
    let new = world.json(["create", "tree", "--parent", "none"]);
    assert!(new["bytes_new"].as_u64().unwrap() > 1 << 20, "{new}");
    fs::rename(world.path("away"), &pack).unwrap();
    world.run(["verify", "--backup", new["backup"].as_str().unwrap()]).success();
    world.run(["restore", "latest", "--to", "out"]).success();
    assert!(fs::read(world.path("out/tree/sub/large")).unwrap() == fs::read(world.path("tree/sub/large")).unwrap());
    world.run(["verify", "--backup", &old]).code(3);
    fs::remove_file(&pack).unwrap();
    world.run(["collect", "--yes"]).code(3);
    world.run(["forget", "--yes", &old]).success();
    world.run(["collect", "--yes"]).success();
    world.run(["verify"]).success();
}
