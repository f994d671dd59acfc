//! What several test programs need of the machine.
#![allow(dead_code, reason = "every test program uses a part of it")]

#[cfg(feature = "s3")]
pub(crate) mod s3;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Says that a test could not be run here. In continuous integration that is a failure.
pub(crate) fn skip(why: &str) {
    // Not `eprintln!`, which the test harness keeps to itself.
    let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: {why} ***\n");
    assert!(std::env::var_os("CI").is_none(), "a test was skipped: {why}");
}

/// Whether the tests run as root, whom permissions do not stop.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs the test `name` of this program again as a user whom permissions stop. The test must return
/// at once when [`is_root`].
pub(crate) fn run_as_nobody(name: &str) {
    // The program itself may stand where others cannot go, in /root for instance.
    let place = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let again = Command::new(&program)
        .args(["--exact", name, "--nocapture"])
        .current_dir("/")
        .env("TMPDIR", "/tmp")
        .uid(65534)
        .gid(65534)
        .output();
    match again {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
        }
        Err(error) => skip(&format!("this program cannot be run as another user: {error}")),
    }
}

fn as_root(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

/// A small file system in memory, unmounted when dropped.
pub(crate) struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// `None`, loudly, where this process may not mount.
    pub(crate) fn mount(options: &str) -> Option<Self> {
        let point = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(point.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(point));
        }
        skip("mounting a tmpfs needs root");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn remount(&self, options: &str) {
        let status = as_root("mount").args(["-o", &format!("remount,{options}")]).arg(self.path()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = as_root("umount").arg("-l").arg(self.path()).status();
    }
}
