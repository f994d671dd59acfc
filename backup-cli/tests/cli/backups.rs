//! `backup create`, `list`, `show`, `diff`, `status` and `stats`

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::harness::{World, files, noise};

#[test]
fn files_are_backed_up_and_listed() {
    let world = World::new();
    let tree = world.tree();
    let arguments = ["--tag", "nightly", "--label", "a=b", "--host", "node1", "--kind", "wiki"];
    let backup = world.create(arguments.iter().map(AsRef::as_ref).chain([tree.as_os_str()]));
    assert_eq!(world.backups(), [backup.as_str()]);
    let list = world.json(["list"]);
    let shown = &list["backups"][0];
    assert_eq!(shown["kind"], "wiki");
    assert_eq!(shown["host"], "node1");
    assert_eq!(shown["tags"], json!(["nightly"]));
    assert_eq!(shown["labels"], json!({"a": "b"}));
    let text = world.run(["list"]).success().text();
    assert!(text.contains(&backup[..8]) && text.contains("nightly"), "{text}");

    for (filter, count) in [
        (["--kind", "wiki"], 1),
        (["--kind", "data"], 0),
        (["--host", "node1"], 1),
        (["--host", "x"], 0),
        (["--tag", "nightly"], 1),
        (["--tag", "x"], 0),
    ] {
        let list = world.json(["list"].iter().chain(&filter));
        assert_eq!(list["backups"].as_array().unwrap().len(), count, "{filter:?}");
    }
}

#[test]
fn a_second_backup_stores_little_and_names_its_parent() {
    let world = World::new();
    world.tree();
    let first = world.json(["create", "tree"]);
    let second = world.json(["create", "tree"]);
    assert!(first["bytes_new"].as_u64().unwrap() > 3 << 20, "{first}");
    assert_eq!(second["parent"], first["backup"]);
    assert!(second["bytes_new"].as_u64().unwrap() < 64 << 10, "{second}");
    // That the files changed seconds before the first backup makes their times no proof: they are read again.
    assert!(second["bytes_read"].as_u64().unwrap() > 3 << 20, "{second}");
    let third = world.json(["create", "--parent", "none", "tree"]);
    assert_eq!(third["parent"], json!(null));
    assert!(third["bytes_read"].as_u64().unwrap() > 3 << 20, "{third}");
    let fourth = world.json(["create", "--parent", first["backup"].as_str().unwrap(), "tree"]);
    assert_eq!(fourth["parent"], first["backup"]);
}

#[test]
fn show_names_every_entry() {
    let (world, backup) = World::with_backup();
    for name in ["latest", &backup, &backup[..6]] {
        let shown = world.json(["show", name]);
        assert_eq!(shown["backup"]["id"], backup.as_str());
        let entries = shown["entries"].as_array().unwrap();
        let find = |end: &str| {
            entries
                .iter()
                .find(|entry| entry["path"].as_str().unwrap().ends_with(end))
                .unwrap_or_else(|| panic!("{end}: {shown}"))
        };
        assert_eq!(find("tree/hello.txt")["size"], 6);
        assert_eq!(find("tree/link")["target"], "hello.txt");
        assert!(find("caf\\xe9")["path_hex"].as_str().unwrap().ends_with("636166e9"));
        assert_eq!(find("tree/sub")["kind"], "directory");
    }
    let long = world.run(["show", "latest", "--long"]).success().text();
    assert!(long.contains("hello.txt") && long.contains("-rw"), "{long}");
    let summary = world.run(["show", "latest", "--summary"]).success().text();
    assert!(summary.contains(&backup) && !summary.contains("hello.txt"), "{summary}");
    let quiet = world.run(["show", "latest", "--quiet"]).success().text();
    assert!(!quiet.contains(&backup) && quiet.contains("hello.txt"), "{quiet}");
}

#[test]
fn show_narrows_to_a_directory() {
    let (world, _) = World::with_backup();
    let all = world.json(["show", "latest"]);
    let entries = all["entries"].as_array().unwrap();
    let sub = entries.iter().map(|entry| entry["path"].as_str().unwrap()).find(|path| path.ends_with("tree/sub"));
    let within = world.json(["show", "latest", &format!("{}/", sub.unwrap())]);
    assert_eq!(within["entries"].as_array().unwrap().len(), 3);
    world.run(["show", "latest", "no/such"]).code(1).says("entry not found: no/such");
}

#[test]
fn diff_tells_what_changed() {
    let (world, first) = World::with_backup();
    world.file("tree/hello.txt", "hello again\n");
    world.file("tree/new", "new");
    fs::remove_file(world.path("tree/empty")).unwrap();
    let second = world.create(["tree".as_ref(), world.path("tree").as_os_str()].into_iter().skip(1));
    let text = world.run(["diff", &first, &second]).success().text();
    for (sign, name) in [("M", "hello.txt"), ("+", "new"), ("-", "empty")] {
        let found = text.lines().any(|line| line.starts_with(sign) && line.ends_with(name));
        assert!(found, "{sign} {name}: {text}");
    }
    let same = world.json(["diff", &second, "latest"]);
    assert_eq!(same["differences"], json!([]));
    assert_eq!(same["old"], same["new"]);
}

#[test]
fn streams_and_commands_are_backed_up_together_with_files() {
    let world = World::new();
    world.file("file", "content");
    let outcome = world.run_with_input(
        ["create", "--json", "file", "--stdin", "in", "--command", "dump/out", "--", "printf", "%s", "--json"],
        b"from stdin",
    );
    let result = outcome.success().json();
    assert_eq!(result["complete"], true);
    assert_eq!(world.run(["cat", "latest", "in"]).success().stdout, b"from stdin");
    assert_eq!(world.run(["cat", "latest", "dump/out"]).success().stdout, b"--json");
}

#[test]
fn a_failing_command_commits_nothing() {
    let world = World::new();
    let outcome = world.run(["create", "--command", "x", "--", "sh", "-c", "echo data; echo why >&2; exit 5"]);
    outcome.code(1).says("why");
    world.run(["create", "--command", "x", "--", "/no/such/program"]).code(1).says("/no/such/program");
    assert!(world.backups().is_empty());
}

#[test]
fn images_are_backed_up_with_holes_and_change_maps() {
    let world = World::new();
    let image = world.path("disk.img");
    let file = fs::File::create(&image).unwrap();
    file.set_len(64 << 20).unwrap();
    let write = |offset: u64, bytes: &[u8]| std::os::unix::fs::FileExt::write_all_at(&file, bytes, offset).unwrap();
    write(8 << 20, &noise(4 << 20, 1));
    let first = world.json(["create", "--image", "disk.img", "--as", "vm/root", "--kind", "virtual-machine"]);
    assert_eq!(first["bytes_logical"], 64 << 20);
    assert!(first["bytes_read"].as_u64().unwrap() < 16 << 20, "{first}");

    write(9 << 20, &noise(1 << 20, 2));
    // Not in the change map: must not be seen.
    write(32 << 20, &noise(1 << 20, 3));
    world.file("changes", format!("[[{}, {}]]", 9 << 20, 1 << 20));
    let arguments = ["create", "--image", "disk.img", "--as", "vm/root", "--kind", "virtual-machine"];
    let map = ["--parent", first["backup"].as_str().unwrap(), "--changed-ranges", "changes"];
    for parent in ["latest", "none"] {
        let vague = ["--parent", parent, "--changed-ranges", "changes"];
        world.run(arguments.iter().chain(&vague)).code(2).says("--changed-ranges needs --parent with the id");
    }
    let second = world.json(arguments.iter().chain(&map));
    assert_eq!(second["parent"], first["backup"]);
    assert!(second["bytes_read"].as_u64().unwrap() <= 4 << 20, "{second}");
    let restored = world.run(["cat", "latest", "vm/root"]).success().stdout;
    let mut expected = fs::read(&image).unwrap();
    expected[32 << 20..33 << 20].fill(0);
    assert!(restored == expected, "the restored image differs");

    world.file("changes", "[[1]]");
    world.run(arguments.iter().chain(&map)).code(1).says("cannot read change map changes");
}

#[test]
fn excluded_files_are_left_out() {
    let world = World::new();
    world.tree();
    world.file("tree/cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n");
    world.file("tree/cache/data", "x");
    world.file("tree/a.tmp", "x");
    world.create(["tree", "--exclude", "*.tmp", "--exclude-caches", "--one-file-system"]);
    let shown = world.run(["show", "latest", "--quiet"]).success().text();
    assert!(!shown.contains("a.tmp") && !shown.contains("cache/data"), "{shown}");
    assert!(shown.contains("hello.txt"), "{shown}");
}

#[test]
fn status_and_statistics() {
    let world = World::new();
    assert_eq!(world.json(["status"])["newest"], json!(null));
    world.run(["status"]).success();
    world.run(["stats"]).success();
    world.tree();
    let backup = world.create(["tree"]);
    world.create(["tree"]);
    let status = world.json(["status"]);
    assert_eq!(status["backups"], 2);
    assert_ne!(status["newest"]["id"], backup.as_str());
    let stats = world.json(["stats"]);
    assert_eq!(stats["backups"], 2);
    assert!(stats["dedup_ratio"].as_f64().unwrap() > 1.5, "{stats}");
    assert!(world.run(["status"]).success().text().contains("backups"));
    assert!(world.run(["stats"]).success().text().contains("deduplication"));
}

#[test]
fn an_unreadable_backup_does_not_hide_the_others() {
    let (world, first) = World::with_backup();
    let bodies = || files(&world.repository().join("bodies"));
    let (body, _) = bodies().remove(0);
    let second = world.create(["tree"]);
    let newest = bodies().into_iter().find(|(path, _)| *path != body).unwrap().0;
    for (lost, lost_id, other) in [(&body, &first, &second), (&newest, &second, &first)] {
        let whole = fs::read(lost).unwrap();
        fs::set_permissions(lost, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(lost, &whole[..whole.len() - 1]).unwrap();
        let listing = world.run(["list"]).code(3).says(&lost_id[..8]);
        let line = |id: &str| listing.text().lines().find(|line| line.starts_with(&id[..8])).unwrap().to_owned();
        assert!(line(lost_id).ends_with("unreadable"), "{}", listing.text());
        assert!(line(other).ends_with("complete"), "{}", listing.text());
        let json = world.run(["--json", "list"]).code(3).json();
        assert_eq!(
            (json["backups"][0]["id"].as_str(), json["unreadable"][0]["id"].as_str()),
            (Some(&**other), Some(&**lost_id))
        );
        let is_newest = lost_id == &second;
        let status = world.run(["--json", "status"]).code(if is_newest { 3 } else { 0 }).json();
        assert_eq!((&status["backups"], status["newest"].is_null()), (&serde_json::json!(2), is_newest));
        world.run(["status"]).code(if is_newest { 3 } else { 0 });
        assert_eq!(world.run(["--json", "stats"]).code(3).json()["unreadable_backups"][0]["id"], **lost_id);
        world.run(["stats"]).code(3).says("cannot be opened");
        world.run(["show", "latest", "--summary"]).code(if is_newest { 3 } else { 0 });
        fs::write(lost, whole).unwrap();
    }
    world.run(["list"]).success();
}

#[test]
fn parity_of_what_was_written_brings_it_back() {
    let world = World::new();
    world.file("data", noise(2 << 20, 1));
    assert_eq!(world.json(["create", "data"])["parity"], serde_json::json!(null));
    // What was there before without parity gets it, too.
    let first = world.json(["create", "data", "--parity"])["parity"].clone();
    assert_eq!((&first["parity_added"], &first["damaged"]), (&serde_json::json!(1), &serde_json::json!([])));
    let before = files(&world.repository().join("packs"));
    world.file("data", noise(2 << 20, 2));
    let text = world.run(["create", "data", "--parity"]).success().text();
    assert!(text.lines().any(|line| line.starts_with("parity ")), "{text}");
    assert_eq!(world.json(["scrub"])["unprotected"], 0);
    let packs = files(&world.repository().join("packs"));
    let new: Vec<_> = packs.iter().filter(|pack| !before.contains(pack)).collect();
    assert!(!new.is_empty());
    for (path, bytes) in new {
        fs::remove_file(path).unwrap();
        assert_eq!(world.json(["scrub"])["repaired"], 1);
        assert!(fs::read(path).unwrap() == *bytes);
    }
    // The backup is there where something else is damaged, which is said.
    let mut bytes = packs[0].1.clone();
    bytes[100] ^= 1;
    for (path, _) in files(&world.repository().join("parity")) {
        fs::remove_file(path).unwrap();
    }
    fs::write(&packs[0].0, &bytes).unwrap();
    let outcome = world.run(["create", "password", "--parity", "--json"]).code(3).says("there is no parity of it");
    assert_eq!(outcome.json()["parity"]["damaged"].as_array().unwrap().len(), 1);
    assert!(world.backups().contains(&outcome.json()["backup"].as_str().unwrap().to_owned()));
}
