//! The shape of the crate as `docs/design.md` ("Shape") draws it: arrows go down, and what it stands on is known.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer, lowest first. A module uses those below it, and of its own layer only what [`NEIGHBOURS`] names.
const LAYERS: &[&[&str]] = &[
    &["error", "extent", "length", "limits", "storage", "sync"],
    &["entropy", "id", "secret", "time"],
    &["chunk", "compress", "crypto", "erasure", "format"],
    &["object"],
    &["content", "keys", "pack"],
    &["index", "progress", "session", "source"],
    &["repository"],
    &["copy"],
    &["archive", "maintenance", "parity"],
    &["testing"],
];

/// Arrows within a layer, with their reasons.
const NEIGHBOURS: &[(&str, &str)] = &[
    // The error of an operation holds the storage's own; a storage says how it fails in the words of the crate.
    ("error", "storage"),
    ("storage", "error"),
    // Lengths that do not fit are errors.
    ("length", "error"),
    ("storage", "length"),
    // Randomness is born in the box of a secret.
    ("secret", "entropy"),
];

/// What the crate stands on. Another one is a decision, not an accident: see "Rules" in `CONTRIBUTING.md`.
const DEPENDENCIES: &[&str] = &[
    "aes-gcm",
    "argon2",
    "aws-lc-rs",
    "bech32",
    "blake3",
    "bytes",
    "crossbeam-channel",
    "ed25519-dalek",
    "getrandom",
    "hashbrown",
    "hkdf",
    "jiff",
    "minicbor",
    "serde",
    "sha2",
    "subtle",
    "thiserror",
    "unicode-normalization",
    "zeroize",
    "zstd",
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Every source file and the module at the top that it belongs to.
fn files() -> Vec<(String, PathBuf)> {
    fn walk(directory: &Path, module: Option<&str>, found: &mut Vec<(String, PathBuf)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let module = module.unwrap_or(&name);
            if path.is_dir() {
                walk(&path, Some(module), found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((module.to_owned(), path));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), None, &mut found);
    found
}

/// The modules that a line of code names, in words that begin with `crate::`.
fn used(line: &str) -> Vec<&str> {
    let code = line.split("//").next().unwrap_or_default();
    let names = code.split("crate::").skip(1);
    names.map(|rest| rest.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_').next().unwrap()).collect()
}

#[test]
fn arrows_go_down() {
    let files = files();
    assert!(files.len() > 100, "{} files", files.len());
    let mut wrong = BTreeSet::new();
    for (module, path) in &files {
        if module == "lib" {
            continue;
        }
        let own = layer(module).unwrap_or_else(|| panic!("{module} stands in no layer"));
        let text = fs::read_to_string(path).unwrap();
        // Tests stand at the end of a file and may look up; files of tests are named so, and of properties, which tests
        // and fuzzers call.
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        if path.file_stem().is_some_and(|name| name == "tests" || name == "properties") {
            continue;
        }
        for name in code.lines().flat_map(used) {
            let Some(other) = layer(name) else { continue };
            let is_down = other < own || name == module || NEIGHBOURS.contains(&(module.as_str(), name));
            if !is_down {
                wrong.insert(format!("{module} uses {name} ({})", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn dependencies_are_the_known_ones() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let table = manifest.split("[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let lines = table.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let names: Vec<_> = lines.map(|line| line.split([' ', '.', '=']).next().unwrap()).collect();
    assert_eq!(names, DEPENDENCIES);
}
