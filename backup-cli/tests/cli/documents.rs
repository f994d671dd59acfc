//! The examples of the documents, run as they stand there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::harness::{World, noise, outcome};

/// Directories of the examples; below the world they are harmless.
const PLACES: [&str; 9] = ["/srv", "/root", "/etc", "/home", "/dev/vg", "/tmp", "/media", "/mnt", "/var/log"];

/// The first block of shell behind `heading` of a document.
fn example(document: &str, heading: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = fs::read_to_string(&path).unwrap();
    let (_, rest) = text.split_once(heading).unwrap_or_else(|| panic!("{document} has no {heading:?}"));
    let (_, block) = rest.split_once("```sh\n").unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

/// The same commands in places of the world, with a cheap derivation of the key and without building.
fn adapted(world: &World, script: &str) -> String {
    let in_world = |word: &str| {
        let begins = word.find('/').filter(|at| *at == 0 || word[..*at].ends_with('=')).unwrap_or(word.len());
        let (front, path) = word.split_at(begins);
        match PLACES.iter().find(|place| path.starts_with(*place)) {
            Some(_) => format!("{front}{}{path}", world.path("machine").display()),
            None => word.to_owned(),
        }
    };
    let line = |line: &str| line.split(' ').map(in_world).collect::<Vec<_>>().join(" ");
    let lines = script.lines().filter(|line| !line.starts_with("cargo ")).map(line);
    lines.collect::<Vec<_>>().join("\n").replace("backup init", "backup init --kdf-memory 64M --kdf-iterations 1")
}

/// Runs an example on a machine with files, a database and a disk, and looks at what it restored.
fn run_and_compare(document: &str, heading: &str) -> World {
    let world = World::empty();
    let machine = |path: &str| format!("machine{path}");
    for place in PLACES.iter().chain(&["/media/usb", "/mnt/second-site"]) {
        fs::create_dir_all(world.path(&machine(place))).unwrap();
    }
    world.file("machine/etc/hosts", "127.0.0.1 localhost\n");
    world.file("machine/home/ada/notes", noise(200_000, 3));
    world.file("machine/home/ada/left-out.tmp", "scratch");
    world.file("machine/dev/vg/root-snapshot", noise(3 << 20, 4));
    world.secret("machine/root/backup.password", "of the example that makes none\n");
    let directory = world.path("checkout/target/release");
    fs::create_dir_all(&directory).unwrap();
    symlink(env!("CARGO_BIN_EXE_backup"), directory.join("backup")).unwrap();
    for (name, script) in [("pg_dump", "echo \"a dump of $1\""), ("psql", "cat > \"$PSQL_GOT\"")] {
        let path = world.file(&format!("checkout/target/release/{name}"), format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = adapted(&world, &example(document, heading));
    let mut command = Command::new("sh");
    command.arg("-euc").arg(&script).current_dir(world.path("checkout")).env("PSQL_GOT", world.path("psql-got"));
    command.env("PATH", format!("{}:{}", directory.display(), std::env::var("PATH").unwrap()));
    let done = outcome(&mut command).success();
    assert!(!done.stderr.contains("warning"), "{}", done.stderr);

    let restored = |at: &str, path: &str| {
        let below = world.path(&machine(path));
        let below = below.strip_prefix("/").unwrap();
        world.path(&machine(at)).join(below)
    };
    let same = |at: &str| {
        for path in ["/etc/hosts", "/home/ada/notes"] {
            let original = fs::read(world.path(&machine(path))).unwrap();
            assert!(fs::read(restored(at, path)).unwrap() == original, "{document}: {at}: {path}");
        }
        assert!(!restored(at, "/home/ada/left-out.tmp").exists());
    };
    same("/tmp/restored");
    assert_eq!(fs::read_to_string(world.path("psql-got")).unwrap(), "a dump of app\n", "{document}");
    assert!(
        fs::read(world.path("machine/tmp/root.image")).unwrap() == noise(3 << 20, 4),
        "{document}: the image differs"
    );
    if document == "README.md" {
        same("/tmp/restored-from-archive");
    }
    world
}

#[test]
fn the_readme_restores_each_backup_that_it_made() {
    let world = run_and_compare("README.md", "## In a shell");
    let mode = fs::metadata(world.path("machine/root/backup.password")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_description_of_the_command_restores_each_backup_that_it_made() {
    let world = run_and_compare("docs/cli.md", "# The `backup` command");
    let receipt = fs::read(world.path("machine/var/log/backup-receipt.json")).unwrap();
    let receipt: serde_json::Value = serde_json::from_slice(&receipt).unwrap();
    assert_eq!((receipt["ok"].as_bool(), receipt["backups"].as_array().unwrap().len()), (Some(true), 3));
}
