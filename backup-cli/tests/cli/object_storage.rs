//! A repository in a bucket of a real S3 server, its cache, and limits of load.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{Outcome, World, outcome};
use crate::s3::{ENVIRONMENT, S3Server};

/// A repository in a bucket, with a cache below the directory of the world.
struct Remote {
    world: World,
    server: &'static S3Server,
    prefix: String,
}

impl Remote {
    fn new() -> Option<Self> {
        let remote = Self { world: World::empty(), server: S3Server::get()?, prefix: S3Server::prefix() };
        remote.run(["init", "--kdf-memory", "64M", "--kdf-iterations", "1"]).success();
        Some(remote)
    }

    fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        let url = format!("s3://bucket/{}?endpoint={}", self.prefix, self.server.endpoint());
        let mut command = self.world.command(arguments);
        command.env("BACKUP_REPO", url).envs(ENVIRONMENT).env("BACKUP_CACHE_DIR", self.cache());
        outcome(&mut command)
    }

    fn json<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Value {
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
        self.run(["--json".into()].into_iter().chain(arguments)).success().json()
    }

    fn cache(&self) -> PathBuf {
        self.world.path("cache")
    }

    /// Names of the objects of which there are copies.
    fn copies(&self) -> Vec<String> {
        let mut names = Vec::new();
        for shard in fs::read_dir(self.cache().join("objects")).into_iter().flatten().flatten() {
            let files = fs::read_dir(shard.path()).unwrap().flatten();
            names.extend(files.map(|file| file.file_name().into_string().unwrap()));
        }
        names.retain(|name| name.len() == 64);
        names
    }
}

#[test]
fn a_bucket_is_a_repository() {
    let Some(remote) = Remote::new() else { return };
    let tree = remote.world.tree();
    let backup = remote.json([OsStr::new("create"), tree.as_os_str()])["backup"].as_str().unwrap().to_owned();
    let list = remote.json(["list"]);
    assert_eq!(list["backups"][0]["id"], backup.as_str());
    let target = remote.world.path("restored");
    remote.run([OsStr::new("restore"), "latest".as_ref(), "--to".as_ref(), target.as_os_str()]).success();
    let restored = target.join(tree.strip_prefix("/").unwrap());
    let restored = if restored.exists() { restored } else { target.join("tree") };
    for name in ["hello.txt", "empty", "sub/large"] {
        assert!(fs::read(restored.join(name)).unwrap() == fs::read(tree.join(name)).unwrap(), "{name}");
    }
    assert_eq!(remote.json(["verify"])["ok"], true);
    assert_eq!(remote.json(["verify", "--level", "bytes"])["ok"], true);
    // It is there once.
    let again = remote.run(["init", "--kdf-memory", "64M", "--kdf-iterations", "1"]);
    again.code(1).says("already exists");
}

/// To a bucket, and from there to a third place, without the password; what comes back is what was there.
#[test]
fn backups_are_copied_to_a_bucket_and_back() {
    let Some(server) = S3Server::get() else { return };
    let (world, backup) = World::with_backup();
    let bucket = format!("s3://bucket/{}?endpoint={}", S3Server::prefix(), server.endpoint());
    let back = world.path("back");
    let copy = |from: &OsStr, to: &OsStr| {
        let mut command = world.bare(["copy".as_ref(), "-r".as_ref(), from, "--to".as_ref(), to]);
        command.envs(ENVIRONMENT).env("BACKUP_CACHE_DIR", world.path("cache"));
        outcome(&mut command).success();
    };
    for _ in 0..2 {
        copy(world.repository().as_os_str(), bucket.as_ref());
    }
    copy(bucket.as_ref(), back.as_os_str());
    assert!(!world.path("cache").exists(), "copying keeps nothing here");
    let mut list = world.command(["--json", "list"]);
    let list = outcome(list.env("BACKUP_REPO", &back)).success().json();
    assert_eq!(list["backups"][0]["id"], backup.as_str());
    let mut verify = world.command(["verify"]);
    outcome(verify.env("BACKUP_REPO", &back)).success();
}

#[test]
fn what_is_wrong_with_a_bucket_is_said() {
    let Some(remote) = Remote::new() else { return };
    let mut command = remote.world.command(["list"]);
    let missing = format!("s3://missing-bucket/x?endpoint={}", remote.server.endpoint());
    command.env("BACKUP_REPO", missing).envs(ENVIRONMENT).arg("--no-cache");
    outcome(&mut command).code(1).says("the bucket does not exist");
    let mut command = remote.world.command(["list", "--no-cache"]);
    command
        .env("BACKUP_REPO", format!("s3://bucket/elsewhere?endpoint={}", remote.server.endpoint()))
        .envs(ENVIRONMENT);
    outcome(&mut command).code(1).says("repository not found: s3://bucket/elsewhere");
    let mut command = remote.world.command(["list", "--no-cache"]);
    command.env("BACKUP_REPO", "s3://id:hunter2@bucket/x");
    let said = outcome(&mut command).code(2).says("credentials do not belong into an address").stderr;
    assert!(!said.contains("hunter2"), "{said}");
    let mut command = remote.world.command(["list", "--no-cache"]);
    command.env("BACKUP_REPO", "s3://bucket/x?endpoint=http://192.0.2.1").env_remove("AWS_ALLOW_HTTP");
    outcome(&mut command).code(2).says("AWS_ALLOW_HTTP=true");
}

#[test]
fn copies_are_kept_shown_cleared_and_never_believed() {
    let Some(remote) = Remote::new() else { return };
    let tree = remote.world.tree();
    remote.run([OsStr::new("create"), tree.as_os_str()]).success();
    assert!(remote.copies().len() >= 3, "{:?}", remote.copies());
    let shown = remote.json(["cache", "show"]);
    assert_eq!(shown["objects"].as_u64().unwrap() as usize, remote.copies().len());
    assert_eq!(shown["directory"].as_str(), remote.cache().to_str());
    assert_eq!(shown["removed_objects"], Value::Null);

    let before = remote.copies().len() as u64;
    let cleared = remote.json(["cache", "clear"]);
    assert_eq!((&cleared["removed_objects"], &cleared["objects"]), (&Value::from(before), &Value::from(0)));
    remote.run(["list", "--no-cache"]).success();
    assert_eq!(remote.copies().len(), 0, "--no-cache keeps nothing");
    remote.run(["show", "latest"]).success();
    assert!(remote.copies().len() >= 3, "{:?}", remote.copies());

    // An object that is gone from the storage is missing, whatever there are copies of.
    let name =
        remote.copies().into_iter().find(|name| remote.server.delete_raw(&remote.prefix, "bodies", name)).unwrap();
    remote.run(["show", "latest"]).success();
    let report = remote.run(["--json", "verify", "--level", "bytes"]).code(3);
    assert!(report.text().contains(&name), "{name} is not in {}", report.text());
}

#[test]
fn local_repositories_have_no_cache() {
    let (world, _) = World::with_backup();
    let mut command = world.command(["show", "latest"]);
    command.env("BACKUP_CACHE_DIR", world.path("cache"));
    outcome(&mut command).success();
    assert!(!world.path("cache").exists());
    let mut command = world.command(["cache", "show"]);
    command.env_remove("HOME").env_remove("XDG_CACHE_HOME").env_remove("BACKUP_CACHE_DIR");
    outcome(&mut command).code(2).says("--cache-dir");
    let mut command = world.command(["--json", "cache", "show"]);
    command.env("XDG_CACHE_HOME", world.path("caches")).env_remove("BACKUP_CACHE_DIR");
    let shown = outcome(&mut command).success().json();
    assert_eq!(shown["directory"].as_str(), world.path("caches/backup").to_str());
}

/// That they change nothing but the time; the time itself is simulated in `backup-adapters`.
#[test]
fn limits_and_priority_change_no_result() {
    let world = World::new();
    let tree = world.tree();
    let limits = ["--limit-read", "1G", "--limit-upload", "1G", "--limit-download", "1G", "--nice", "5"];
    let create = ["create".as_ref(), tree.as_os_str()].into_iter().chain(limits.iter().map(OsStr::new));
    world.run(create).success();
    let mut cat = world.command(["cat", "latest", "--limit-download", "1G"]);
    let entry = world.json(["show", "latest"])["entries"].as_array().unwrap().iter().find_map(|entry| {
        let path = entry["path"].as_str().unwrap();
        path.ends_with("sub/large").then(|| path.to_owned())
    });
    cat.arg(entry.unwrap());
    assert!(outcome(&mut cat).success().stdout == fs::read(tree.join("sub/large")).unwrap());
    world.run(["verify", "--limit-download", "1G"]).success();
}
