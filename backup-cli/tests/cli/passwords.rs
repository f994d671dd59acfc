//! Where passwords come from, and where they never are.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::harness::{Outcome, PASSWORD, World, outcome, works};

#[test]
fn every_source_opens_the_repository() {
    let world = World::new();
    let repository = world.repository();
    let repo = repository.to_str().unwrap();
    let file = world.path("password");
    let file = file.to_str().unwrap();
    outcome(&mut world.bare(["list", "-r", repo, "--password-file", file])).success();
    outcome(&mut world.bare(["list", "-r", repo, "--password-command", &format!("cat '{file}'")])).success();
    outcome(world.bare(["list", "-r", repo]).env("BACKUP_PASSWORD_FILE", file)).success();
    outcome(world.bare(["list", "-r", repo]).env("BACKUP_PASSWORD_COMMAND", format!("cat '{file}'"))).success();
    // Standard input is a descriptor like any other.
    let mut command = world.bare(["list", "-r", repo, "--password-fd", "0"]);
    outcome(command.stdin(fs::File::open(file).unwrap())).success();
    // A descriptor that a shell opened: a pipe and a file.
    let backup = env!("CARGO_BIN_EXE_backup");
    for script in [
        format!("'{backup}' list -r '{repo}' --password-fd 7 7<'{file}'"),
        format!("cat '{file}' | '{backup}' list -r '{repo}' --password-fd 7 7<&0 </dev/null"),
    ] {
        outcome(std::process::Command::new("sh").arg("-c").arg(&script)).success();
    }
}

#[test]
fn one_trailing_newline_does_not_belong_to_the_password() {
    let world = World::new();
    for (content, code) in [
        (format!("{PASSWORD}\n"), 0),
        (format!("{PASSWORD}\r\n"), 0),
        (format!("{PASSWORD}\n\n"), 4),
        (format!("{PASSWORD} "), 4),
    ] {
        world.secret("password", &content);
        world.run(["list"]).code(code);
    }
}

#[test]
fn a_wrong_password_has_its_own_exit_code() {
    let world = World::new();
    world.secret("password", "wrong");
    world.run(["list"]).code(4).says("backup: no key slot opens");
    let error = world.run(["list", "--json"]).code(4).error();
    assert_eq!(error["kind"], "wrong-password");
}

#[test]
fn no_password_and_no_terminal_is_an_error() {
    let world = World::new();
    outcome(world.bare(["list"]).env("BACKUP_REPO", world.repository()))
        .code(2)
        .says("no password given")
        .says("--password-file")
        .says("BACKUP_PASSWORD_COMMAND");
    world.run(["key", "add"]).code(2).says("no new password given").says("--new-password-file");
}

/// `script` gives a command a terminal and types its own standard input there.
fn at_a_terminal(world: &World, arguments: &[&str], typed: &str) -> Option<Outcome> {
    if !works("prompts", &["script", "-qec", "true", "/dev/null"]) {
        return None;
    }
    let mut command = std::process::Command::new("script");
    let line = format!("'{}' {}", env!("CARGO_BIN_EXE_backup"), arguments.join(" "));
    command.args(["-qec", &line, "/dev/null"]).current_dir(world.path("")).env("BACKUP_REPO", world.repository());
    command.env_remove("BACKUP_PASSWORD_FILE").env_remove("BACKUP_PASSWORD_COMMAND");
    let (reader, mut writer) = std::io::pipe().unwrap();
    let child = command.stdin(reader).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    writer.write_all(typed.as_bytes()).unwrap();
    // The terminal stays open until the command has ended.
    let output = child.wait_with_output().unwrap();
    drop(writer);
    Some(Outcome::of(output))
}

#[test]
fn a_terminal_is_asked() {
    let world = World::new();
    world.secret("password", "typed");
    let add = ["key", "add", "--new-password-file", "password", "--kdf-memory", "64M", "--kdf-iterations", "1"];
    world.secret("first", PASSWORD);
    world.run(add.iter().chain(&["--password-file", "first"])).success();
    let Some(outcome) = at_a_terminal(&world, &["list"], "typed\n") else { return };
    assert!(outcome.success().text().contains("Password: "));
    at_a_terminal(&world, &["list"], "mistyped\n").unwrap().code(4);
}

#[test]
fn a_signal_while_a_password_is_typed_leaves_the_terminal_as_it_was() {
    if !works("a signal at a prompt", &["script", "-qec", "stty -a", "/dev/null"]) {
        return;
    }
    let world = World::new();
    let mut command = std::process::Command::new("script");
    let line = format!("'{}' list; code=$?; stty -a; exit $code", env!("CARGO_BIN_EXE_backup"));
    command.args(["-qec", &line, "/dev/null"]).env("BACKUP_REPO", world.repository());
    command.env_remove("BACKUP_PASSWORD_FILE").env_remove("BACKUP_PASSWORD_COMMAND");
    let (reader, writer) = std::io::pipe().unwrap();
    let mut child = command.stdin(reader).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    let mut stdout = child.stdout.take().unwrap();
    let mut shown = Vec::new();
    while !shown.ends_with(b"Password: ") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        shown.push(byte[0]);
    }
    let backup = descendants(child.id()).into_iter().find(|id| {
        fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|exe| exe.as_os_str() == env!("CARGO_BIN_EXE_backup"))
    });
    let backup = rustix::process::Pid::from_raw(i32::try_from(backup.unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(backup, rustix::process::Signal::TERM).unwrap();
    stdout.read_to_end(&mut shown).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(writer);
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains(" echo ") && !shown.contains("-echo "), "{shown}");
}

/// Processes that `parent` started, and those that they started.
fn descendants(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    let children = children.split_whitespace().map(|id| id.parse().unwrap());
    children.flat_map(|child: u32| [vec![child], descendants(child)].concat()).collect()
}

#[test]
fn standard_input_is_not_both_password_and_data() {
    let world = World::new();
    world.run(["--password-fd", "0", "create", "--stdin", "dump"]).code(2).says("--password-fd 0");
}

#[test]
fn a_recovery_key_that_nobody_saw_does_not_exist() {
    let world = World::new();
    let slots = || world.json(["key", "list"])["slots"].as_array().unwrap().len();
    let before = slots();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    outcome(world.command(["key", "recovery"]).stdout(full)).code(1);
    assert_eq!(slots(), before);
    world.run(["--password-file", "missing", "key", "recovery", "--to", "key"]).code(1);
    world.run(["key", "recovery", "--to", "key"]).success();
    assert_eq!(slots(), before + 1);
}

#[test]
fn a_new_password_is_asked_for_twice() {
    let world = World::empty();
    let init = ["init", "--kdf-memory", "64M", "--kdf-iterations", "1"];
    let Some(outcome) = at_a_terminal(&world, &init, "one\nanother\n") else { return };
    assert!(outcome.code(2).text().contains("the two passwords differ"));
    assert!(world.repository_files().is_empty());
    at_a_terminal(&world, &init, "one\none\n").unwrap().success();
    world.secret("password", "one");
    world.run(["list"]).success();
}

#[test]
fn an_empty_password_is_refused() {
    let world = World::empty();
    world.secret("password", "\n");
    world.run(["init"]).code(2).says("the password is empty");
}

#[test]
fn two_sources_are_refused() {
    let world = World::new();
    world.run(["list", "--password-file", "password", "--password-fd", "3"]).code(2).says("only one of");
    // Also when they are given on both sides of the command.
    world.run(["--password-file", "password", "list", "--password-command", "x"]).code(2).says("only one of");
    world.run(["list", "--password-file", "password", "--recovery-key-file", "x"]).code(2);
}

#[test]
fn sources_that_fail_are_named() {
    let world = World::new();
    world.run(["list", "--password-file", "missing"]).code(1).says("cannot read password file missing");
    world.run(["list", "--password-fd", "99"]).code(1).says("descriptor 99");
    world.run(["list", "--password-command", "exit 7"]).code(1).says("exit status: 7");
    world.run(["list", "--key-file", "missing"]).code(1).says("cannot read key file missing");
    world.run(["list", "--recovery-key-file", "password"]).code(2);
}

#[test]
fn a_password_file_that_others_can_read_is_warned_about() {
    let world = World::new();
    let file = world.path("password");
    assert!(!world.run(["list"]).success().stderr.contains("warning"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    world.run(["list"]).success().says("backup: warning: password file");
    let outcome = world.run(["list", "--json"]).success();
    assert!(outcome.stderr.starts_with("{\"warning\":"), "{}", outcome.stderr);
}

#[test]
fn a_key_file_is_needed_beside_the_password() {
    let world = World::empty();
    let key = world.secret("key", "a second secret");
    let key = key.to_str().unwrap();
    world.run(["init", "--key-file", key, "--kdf-memory", "64M", "--kdf-iterations", "1"]).success();
    world.run(["list", "--key-file", key]).success();
    world.run(["list"]).code(4);
    world.secret("key", "another");
    world.run(["list", "--key-file", key]).code(4);
}
