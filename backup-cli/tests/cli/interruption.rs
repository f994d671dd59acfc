//! SIGINT, SIGTERM and SIGKILL in the middle of a backup.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Outcome, PASSWORD, World, files, noise};

/// A backup whose source has delivered some data and delivers no more.
struct Stuck {
    child: Child,
    /// Keeps the command of the source waiting; it ends when this is dropped.
    _gate: File,
}

impl Stuck {
    /// `source` is a script that has written its data when it ends.
    fn command(world: &World, source: &str) -> Self {
        let gate = fifo(world, "gate");
        let started = fifo(world, "started");
        let script = format!("{source}; echo > started; exec cat gate");
        let child = spawn(world.command(["create", "--threads", "1", "--command", "dump", "--", "sh", "-c", &script]));
        wait_for(started);
        Self { child, _gate: gate }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn outcome(self) -> Outcome {
        Outcome::of(self.child.wait_with_output().unwrap())
    }
}

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A named pipe, opened for both directions so that opening does not wait.
fn fifo(world: &World, name: &str) -> File {
    let path = world.path(name);
    let _ = fs::remove_file(&path);
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    File::options().read(true).write(true).open(path).unwrap()
}

fn wait_for(mut started: File) {
    std::io::Read::read_exact(&mut started, &mut [0]).unwrap();
}

#[test]
fn an_interrupted_backup_does_not_exist() {
    let (world, first) = World::with_backup();
    for signal in [Signal::INT, Signal::TERM] {
        let stuck = Stuck::command(&world, "head -c 3000000 /dev/zero");
        stuck.signal(signal);
        stuck.outcome().code(130).says("backup: interrupted");
        assert_eq!(world.backups(), [first.as_str()]);
    }
    world.run(["verify"]).success();
    world.create(["tree"]);
}

#[test]
fn a_silent_standard_input_can_be_interrupted() {
    let world = World::new();
    let mut command = world.command(["create", "--stdin", "dump", "--json"]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let child = spawn({
        command.stdin(reader);
        command
    });
    fill(&mut writer);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let outcome = Outcome::of(child.wait_with_output().unwrap()).code(130);
    assert_eq!(outcome.error()["kind"], "cancelled");
    assert!(world.backups().is_empty());
}

fn packs(world: &World) -> usize {
    files(&world.repository().join("packs")).len()
}

/// Fills the pipe beyond its capacity: when that returns, somebody has begun to read.
fn fill(writer: &mut std::io::PipeWriter) {
    std::io::Write::write_all(writer, &vec![0; 1 << 20]).unwrap();
}

#[test]
fn a_killed_backup_does_not_exist_and_the_next_one_works() {
    let (world, first) = World::with_backup();
    world.file("noise", noise(40 << 20, 9));
    let before = packs(&world);
    let stuck = Stuck::command(&world, "cat noise");
    while packs(&world) == before {
        std::thread::yield_now();
    }
    stuck.signal(Signal::KILL);
    assert_eq!(stuck.outcome().code, None);
    assert_eq!(world.backups(), [first.as_str()]);
    world.run(["verify"]).success();
    assert!(world.json(["status"])["unfinished_sessions"].is_array());

    let result = world.json(["create", "--command", "dump", "--", "cat", "noise"]);
    // What the killed one had stored was found again.
    assert!(result["bytes_new"].as_u64().unwrap() < 40 << 20, "{result}");
    assert_eq!(world.backups(), [first, result["backup"].as_str().unwrap().to_owned()]);
    world.run(["verify"]).success();
    assert!(world.run(["cat", "latest", "dump"]).success().stdout == noise(40 << 20, 9));
}

#[test]
fn a_restore_into_a_command_that_does_not_read_can_be_interrupted() {
    let world = World::new();
    world.run_with_input(["create", "--stdin", "dump"], &noise(4 << 20, 3)).success();
    let (gate, started) = (fifo(&world, "gate"), fifo(&world, "started"));
    let script = "echo > started; exec cat gate";
    let child = spawn(world.command(["restore", "latest", "--entry", "dump", "--command", "--", "sh", "-c", script]));
    wait_for(started);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    Outcome::of(child.wait_with_output().unwrap()).code(130).says("backup: interrupted");
    drop(gate);
}

#[test]
fn the_password_is_in_no_command_line_and_no_environment() {
    let world = World::new();
    let stuck = Stuck::command(&world, "true");
    for file in ["cmdline", "environ"] {
        let bytes = fs::read(format!("/proc/{}/{file}", stuck.child.id())).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.is_empty() && !text.contains(PASSWORD), "{file}: {text}");
    }
    stuck.signal(Signal::INT);
    stuck.outcome().code(130);
}

#[test]
fn a_signal_while_the_key_is_derived_ends_the_command_at_once() {
    let world = World::empty();
    // As much as a slot may cost: the derivation fills this memory first, and then goes over it many times.
    world.run(["init", "--kdf-memory", "256M", "--kdf-iterations", "16"]).success();
    let files = world.repository_files();
    let child = spawn(world.command(["create", "password"]));
    let resident = || {
        let statm = fs::read_to_string(format!("/proc/{}/statm", child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    while resident() < 128 << 20 {
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let outcome = Outcome::of(child.wait_with_output().unwrap()).code(130);
    // An operation that was asked to stop would have said so, at its end.
    assert_eq!((outcome.text().as_str(), outcome.stderr.as_str()), ("", ""));
    assert_eq!(world.repository_files(), files, "nothing was written");
}
