//! The command itself on small generated inputs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    // In memory where that can be: commands are run when nothing is left to be written to the disk.
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_backup-bench"))
        .args(arguments)
        .env("TMPDIR", scratch.path())
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let left = std::fs::read_dir(scratch.path()).unwrap().count();
    assert_eq!(left, 0, "{arguments:?} left files behind");
    output
}

fn json(arguments: &[&str]) -> Value {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names(list: &Value, field: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item[field].as_str().unwrap().to_owned()).collect()
}

#[test]
fn primitives_are_measured_on_both_kinds() {
    let reports = json(&["primitives", "--size", "16M", "--sample", "2M", "--json"]);
    assert_eq!(
        names(&Value::from_iter([reports[0]["input"].clone(), reports[1]["input"].clone()]), "kind"),
        ["image", "dump"]
    );
    for report in reports.as_array().unwrap() {
        let primitives = report["primitives"].as_array().unwrap();
        assert_eq!(primitives.len(), 15, "{report}");
        for primitive in primitives {
            for number in ["one", "all", "each_cpu_second"] {
                assert!(primitive[number].as_f64().unwrap() > 0.0, "{primitive}");
            }
        }
    }
}

#[test]
fn an_engine_run_has_every_operation_and_its_cost() {
    let reports =
        json(&["engine", "--size", "24M", "--sample", "2M", "--json", "--threads", "2", "--aead", "aws-lc-rs"]);
    let image = [
        "create repository",
        "first backup",
        "next day",
        "next day, change map",
        "restore of it",
        "again, nothing changed",
        "open",
        "restore",
        "verify content",
        "verify bytes",
    ];
    let dump: Vec<&str> =
        image.into_iter().filter(|name| !["next day, change map", "restore of it"].contains(name)).collect();
    assert_eq!(names(&reports[0]["steps"], "name"), image);
    assert_eq!(names(&reports[1]["steps"], "name"), dump);
    for report in reports.as_array().unwrap() {
        for step in report["steps"].as_array().unwrap() {
            assert!(step["cost"]["wall"].as_f64().unwrap() > 0.0, "{step}");
            assert!(step["cost"]["peak"].as_u64().unwrap() > 1 << 20, "{step}");
            assert!(step["repository"].as_u64().unwrap() > 1000, "{step}");
        }
        let data = report["input"]["data"].as_u64().unwrap();
        let steps = report["steps"].as_array().unwrap();
        let amounts = |name: &str| {
            steps.iter().find(|step| step["name"] == name).map(|step| step["outcome"]["amounts"].clone()).unwrap()
        };
        let (read, new) = (amounts("first backup")["read"].as_u64(), amounts("first backup")["new"].as_u64());
        assert!(read.unwrap() >= data && new.unwrap() > data * 9 / 10 && new <= read, "{read:?} {new:?} of {data}");
        assert!(amounts("next day")["new"].as_u64().unwrap() > 0);
        assert_eq!(amounts("again, nothing changed")["new"], 0);
        assert!(amounts("restore")["fetched"].as_u64().unwrap() > 0);
        assert!(steps.iter().any(|step| step["name"] == "restore" && step["efficiency"].as_f64().unwrap() > 0.0));
    }
}

#[test]
fn the_backup_command_is_compared() {
    let backup = PathBuf::from(env!("CARGO_BIN_EXE_backup-bench")).with_file_name("backup");
    if !backup.is_file() {
        assert!(
            std::env::var_os("CI").is_none(),
            "the backup command is not built, and with CI set a skip is a failure"
        );
        eprintln!("SKIPPED: the_backup_command_is_compared: the backup command is not built");
        return;
    }
    let backup = backup.display().to_string();
    for kind in ["image", "dump"] {
        let arguments = ["compare", "--kind", kind, "--size", "16M", "--runs", "2", "--tools", "backup", "--json"];
        let report = json(&[arguments.as_slice(), &["--backup", &backup]].concat());
        let tool = &report[0]["tools"][0];
        assert_eq!(
            (tool["tool"].as_str(), tool["runs"].as_array().map(Vec::len)),
            (Some("backup"), Some(2)),
            "{report}"
        );
        assert!(tool["version"].as_str().unwrap().starts_with("backup "), "{tool}");
        assert_eq!(tool["median"]["next_with_map"].is_null(), kind == "dump", "{tool}");
        assert!(tool["median"]["repository"].as_u64().unwrap() > 100_000, "{tool}");
        assert!(report[0]["changed"].as_u64().unwrap() > 0);
    }
}

#[test]
fn an_index_is_generated_and_loaded() {
    let report = json(&["index", "70000", "--json"]);
    assert_eq!((report["index"]["chunks"].as_u64(), report["objects"].as_u64()), (Some(70_000), Some(2)));
    assert_eq!(report["index"]["packs"], 70_000 / 16);
    assert!(report["index"]["bytes"].as_u64().unwrap() <= 70_000 * 40, "{report}");
}

#[test]
fn requests_are_counted() {
    let report = json(&["requests", "--size", "40M", "--days", "1", "--json"]);
    let steps = report["steps"].as_array().unwrap();
    let step = |name: &str| steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    let number = |name: &str, field: &str| step(name)[field].as_u64().unwrap();
    // 40 MiB are three packs of data at least, and each is read once by whoever reads everything.
    let packs = number("first backup", "put");
    assert!((3 + 6..=5 + 8).contains(&packs), "{report}");
    assert!((40 << 20..42 << 20).contains(&number("first backup", "uploaded")), "{report}");
    for name in ["verify bytes", "verify content"] {
        assert!(number(name, "downloaded") >= 40 << 20, "{name}: {report}");
    }
    // The closures, and no pack.
    assert!(number("verify presence", "downloaded") < 4096, "{report}");
    assert_eq!(number("restore", "put"), 0, "{report}");
    assert!(number("restore", "get_range") >= 3, "{report}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    for (arguments, message) in [
        (&["engine", "/missing"][..], "cannot find /missing"),
        (&["primitives", "/dev/null"], "is empty"),
        (&["compare", "/dev/null"], "next day"),
        (&["compare", "--tools", "tar"], "tar"),
        (&["primitives", "--size", "0"], "0"),
        (&["operation", "open", "--repository", "/missing"], "/missing"),
        (&["measured", "/dev/null", "--", "false"], "false"),
    ] {
        let output = run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(message), "{arguments:?}: {errors}");
    }
}

/// A command whose process is small: what is measured is not the memory of whoever measures.
#[test]
fn peak_memory_is_that_of_the_command() {
    let scratch = tempfile::tempdir().unwrap();
    let result = scratch.path().join("cost");
    let status = Command::new(env!("CARGO_BIN_EXE_backup-bench"))
        .arg("measured")
        .arg(&result)
        .args(["--", "sh", "-c", "head -c 64M /dev/zero | tail -n 1 | wc -c"])
        .output()
        .unwrap();
    assert!(status.status.success());
    let cost: Value = serde_json::from_slice(&std::fs::read(result).unwrap()).unwrap();
    let peak = cost["peak"].as_u64().unwrap();
    // `tail` keeps its last line, which is everything.
    assert!((64 << 20..160 << 20).contains(&peak), "{peak}");
}
