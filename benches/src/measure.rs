//! What a command costs: wall time, CPU time and peak memory of it and of everything that it started.
//!
//! The command is the child of a small process that does nothing else ([`run_measured`]): peak memory is counted
//! from the moment a process is started, and includes that of whoever started it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

use crate::arguments::Measured;

/// What a command cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Seconds by the clock.
    pub wall: f64,
    /// Seconds of CPU in programs.
    pub user: f64,
    /// Seconds of CPU in the kernel.
    pub system: f64,
    /// Most memory that one of its processes had resident, in bytes.
    pub peak: u64,
}

impl Cost {
    /// Seconds of CPU.
    #[must_use]
    pub const fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// Seconds of CPU in programs and in the kernel, and peak memory in bytes.
///
/// # Errors
///
/// Where the kernel says nothing.
pub fn usage(who: UsageWho) -> Result<(f64, f64, u64)> {
    let usage: Usage = getrusage(who).context("cannot ask for the use of resources")?;
    let seconds = |time: nix::sys::time::TimeVal| time.num_microseconds() as f64 / 1e6;
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    let peak = u64::try_from(usage.max_rss()).unwrap_or(0) * unit;
    Ok((seconds(usage.user_time()), seconds(usage.system_time()), peak))
}

/// `measured`: runs the command and writes its [`Cost`].
///
/// # Errors
///
/// Where it cannot be run or fails.
pub fn run_measured(arguments: &Measured) -> Result<()> {
    let (program, rest) = arguments.command.split_first().context("no command")?;
    let started = Instant::now();
    let status =
        Command::new(program).args(rest).status().with_context(|| format!("cannot run {}", program.display()))?;
    let wall = started.elapsed().as_secs_f64();
    let (user, system, peak) = usage(UsageWho::RUSAGE_CHILDREN)?;
    ensure!(status.success(), "{} ended with {status}", program.display());
    let cost = Cost { wall, user, system, peak };
    fs::write(&arguments.result, serde_json::to_vec(&cost)?).context("cannot write the cost")
}

/// A command to be measured.
#[derive(Clone, Debug)]
pub struct Job {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    stdin: Option<PathBuf>,
    stdout: Option<PathBuf>,
}

impl Job {
    /// A command without arguments, input and output.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            stdin: None,
            stdout: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets its working directory.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Sets the file that it reads from.
    #[must_use]
    pub fn stdin(mut self, file: impl Into<PathBuf>) -> Self {
        self.stdin = Some(file.into());
        self
    }

    /// Sets the file that it writes to.
    #[must_use]
    pub fn stdout(mut self, file: impl Into<PathBuf>) -> Self {
        self.stdout = Some(file.into());
        self
    }

    /// The command as people would type it.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for argument in &self.arguments {
            line.push(' ');
            line.push_str(&argument.to_string_lossy());
        }
        line
    }

    /// Runs it. What it prints goes to files in `scratch` unless it was sent elsewhere; returned is what it cost
    /// and what it printed there.
    ///
    /// # Errors
    ///
    /// Where it cannot be run or fails, with the end of what it printed.
    pub fn run(&self, scratch: &Path) -> Result<(Cost, Vec<u8>)> {
        // What earlier commands wrote is not written on this one's time.
        rustix::fs::syncfs(File::open(scratch).context("cannot open the scratch directory")?)?;
        let (result, output, errors) = (scratch.join("cost.json"), scratch.join("output"), scratch.join("errors"));
        let create = |path: &Path| File::create(path).with_context(|| format!("cannot create {}", path.display()));
        let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
        command.arg("measured").arg(&result).arg("--").arg(&self.program).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command.stdin(match &self.stdin {
            Some(file) => File::open(file).with_context(|| format!("cannot open {}", file.display()))?.into(),
            None => Stdio::null(),
        });
        command.stdout(create(self.stdout.as_deref().unwrap_or(&output))?).stderr(create(&errors)?);
        let status = command.status().context("cannot run this program again")?;
        if !status.success() {
            let mut said = fs::read_to_string(&output).unwrap_or_default();
            said.push_str(&fs::read_to_string(&errors).unwrap_or_default());
            let said: Vec<&str> = said.lines().rev().take(10).collect();
            let said = said.into_iter().rev().collect::<Vec<_>>().join("\n");
            bail!("{} failed:\n{said}", self.line());
        }
        let cost = serde_json::from_slice(&fs::read(&result).context("cannot read the cost")?)?;
        let printed = if self.stdout.is_none() { fs::read(&output).context("cannot read output")? } else { Vec::new() };
        Ok((cost, printed))
    }
}

/// Bytes of all files below a directory.
///
/// # Errors
///
/// Where one cannot be looked at.
pub fn size_below(directory: &Path) -> Result<u64> {
    let mut total = 0;
    for item in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let item = item?;
        let metadata = item.metadata()?;
        total += if metadata.is_dir() { size_below(&item.path())? } else { metadata.len() };
    }
    Ok(total)
}

/// The middle of some numbers; of an even count, the mean of the middle two. 0 of none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.get(values.len() / 2), values.len() % 2) {
        (Some(middle), 1) => *middle,
        (Some(upper), _) => f64::midpoint(*upper, values[values.len() / 2 - 1]),
        (None, _) => 0.0,
    }
}

/// The medians of each number.
#[must_use]
pub fn median_cost(costs: &[Cost]) -> Cost {
    let of = |number: fn(&Cost) -> f64| median(costs.iter().map(number).collect());
    Cost {
        wall: of(|cost| cost.wall),
        user: of(|cost| cost.user),
        system: of(|cost| cost.system),
        peak: of(|cost| cost.peak as f64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        let cost = |wall, peak| Cost { wall, user: 1.0, system: 0.5, peak };
        assert_eq!(median_cost(&[cost(1.0, 30), cost(9.0, 10), cost(2.0, 20)]), cost(2.0, 20));
    }

    #[test]
    fn sizes_below_a_directory() {
        let here = tempfile::tempdir().unwrap();
        fs::create_dir(here.path().join("a")).unwrap();
        fs::write(here.path().join("a/b"), [0; 10]).unwrap();
        fs::write(here.path().join("c"), [0; 5]).unwrap();
        assert_eq!(size_below(here.path()).unwrap(), 15);
    }

    #[test]
    fn this_process_uses_something() {
        let (user, system, peak) = usage(UsageWho::RUSAGE_SELF).unwrap();
        assert!(user + system >= 0.0);
        assert!(peak > 1 << 19, "{peak}");
    }
}
