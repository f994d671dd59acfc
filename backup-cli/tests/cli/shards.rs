//! Verification in shards, whose reports are joined.

use std::fs;
use std::path::PathBuf;

use crate::harness::{World, files};

/// Verifies in `count` shards and joins the reports.
fn in_shards(world: &World, count: u32, level: &str) -> (i32, serde_json::Value) {
    let reports: Vec<PathBuf> = (1..=count)
        .map(|number| {
            let shard = format!("{number}/{count}");
            let report = world.run(["verify", "--json", "--level", level, "--shard", &shard]);
            world.file(&format!("report-{number}"), &report.stdout)
        })
        .collect();
    let arguments = ["verify", "--json", "--merge"].map(PathBuf::from);
    let merged = world.run(arguments.iter().chain(&reports));
    (merged.code.unwrap(), merged.json())
}

#[test]
fn shards_together_are_one_verification() {
    let (world, _) = World::with_backup();
    for level in ["presence", "bytes", "content"] {
        let whole = world.json(["verify", "--level", level]);
        let (code, merged) = in_shards(&world, 3, level);
        assert_eq!(code, 0);
        for key in ["ok", "level", "objects_checked", "bytes_checked", "chunks_checked", "entries_checked", "findings"]
        {
            assert_eq!(merged[key], whole[key], "{key} at {level}");
        }
    }
    let (_, pack) =
        files(&world.path("repository/packs")).into_iter().map(|(path, bytes)| (bytes.len(), path)).max().unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[500] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let (code, merged) = in_shards(&world, 4, "content");
    assert_eq!(code, 3);
    let findings = merged["findings"].as_array().unwrap();
    let name = pack.file_name().unwrap().to_str().unwrap();
    assert_eq!(findings.iter().filter(|finding| finding["object"].as_str().unwrap().ends_with(name)).count(), 1);
}

#[test]
fn reports_that_are_none_or_not_all_are_refused() {
    let (world, _) = World::with_backup();
    let report = world.run(["verify", "--json", "--level", "presence", "--shard", "1/2"]).success();
    world.file("one", &report.stdout);
    world.file("none", "{}");
    world.run(["verify", "--merge", "one"]).code(2).says("shard 2/2 is missing");
    world.run(["verify", "--merge", "none"]).code(1).says("cannot read report none");
    world.run(["verify", "--merge", "nowhere"]).code(1).says("nowhere");
    for shard in ["0/2", "3/2", "x", "1"] {
        world.run(["verify", "--shard", shard]).code(2);
    }
}
