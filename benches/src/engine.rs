//! Every operation of the engine on one input: time, memory, size, and how close it is to what is possible.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::arguments::Engine;
use crate::changes::{changed_ranges, to_json};
use crate::efficiency::Rates;
use crate::input::{Input, Kind, require_same, scratch};
use crate::measure::{Cost, Job, size_below};
use crate::operation::Outcome;
use crate::primitives::rates;
use crate::table::{Table, mebibytes, megabytes, seconds};

/// The default of new repositories.
const LEVEL: i32 = 3;

/// An operation and what it cost.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// What it is.
    pub name: &'static str,
    /// What its process cost, opening the repository with a password included.
    pub cost: Cost,
    /// What the operation itself took and did.
    pub outcome: Outcome,
    /// Bytes of the repository after it.
    pub repository: u64,
    /// What the primitives of the operation take, as a share of its seconds. `None` where it has none.
    pub efficiency: Option<f64>,
    /// The same of CPU time: what is left of it when other programs keep the processors busy.
    pub cpu_efficiency: Option<f64>,
}

/// The operations on one input.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The input.
    pub input: Input,
    /// Worker threads.
    pub threads: usize,
    /// The implementation of AES-256-GCM.
    pub aead: &'static str,
    /// What was compared with: bytes a second on all threads together.
    pub rates: Rates,
    /// And bytes for each second of CPU.
    pub cpu_rates: Rates,
    /// What was measured, in order.
    pub steps: Vec<Step>,
}

/// `engine`
///
/// # Errors
///
/// Where an operation fails, or what is restored is not what was backed up.
pub fn run(arguments: &Engine) -> Result<Vec<Report>> {
    let scratch = scratch(arguments.common.directory.as_deref())?;
    let (file, next) = (arguments.file.as_deref(), arguments.next.as_deref());
    let inputs = Input::all(file, next, true, &arguments.common, scratch.path())?;
    inputs.into_iter().map(|input| measure(input, arguments, scratch.path())).collect()
}

/// The reports as tables.
#[must_use]
pub fn show(reports: &[Report]) -> String {
    let mut out = String::new();
    for report in reports {
        let Report { input, threads, aead, .. } = report;
        out.push_str(&format!(
            "{}, {} MB of data in {} MB; {threads} threads, {aead}\n\n",
            input.kind.name(),
            megabytes(input.data),
            megabytes(input.length)
        ));
        let headings = [
            "step",
            "seconds",
            "user",
            "system",
            "peak MiB",
            "repository MB",
            "engine s",
            "engine CPU",
            "MB",
            "MB/s",
            "limit %",
            "CPU limit %",
        ];
        let mut table = Table::new(&headings);
        for step in &report.steps {
            let amounts = &step.outcome.amounts;
            let bytes = amounts.read.max(amounts.restored).max(amounts.checked);
            let (rate, bytes) = match bytes {
                0 => (String::new(), String::new()),
                _ => (format!("{:.0}", bytes as f64 / step.outcome.seconds / 1e6), megabytes(bytes)),
            };
            table.push(vec![
                step.name.to_owned(),
                seconds(step.cost.wall),
                seconds(step.cost.user),
                seconds(step.cost.system),
                mebibytes(step.cost.peak),
                megabytes(step.repository),
                seconds(step.outcome.seconds),
                seconds(step.outcome.cpu),
                bytes,
                rate,
                percent(step.efficiency),
                percent(step.cpu_efficiency),
            ]);
        }
        out.push_str(&table.render());
        out.push('\n');
    }
    out.push_str(
        "seconds: of the process, opening with a password included; engine s, engine CPU: of the operation alone; limit %: what its\n\
         primitives take on all threads, measured in this run, as a share of engine s; CPU limit %: the same of CPU time.\n",
    );
    out
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(String::new, |share| format!("{:.0}", share * 100.0))
}

struct Runner<'a> {
    arguments: &'a Engine,
    input: &'a Input,
    scratch: &'a Path,
    rates: Rates,
    cpu_rates: Rates,
    steps: Vec<Step>,
}

impl Runner<'_> {
    fn step(&mut self, name: &'static str, repository: &Path, action: &[&Path]) -> Result<()> {
        let common = &self.arguments.common;
        let job = Job::new(std::env::current_exe()?)
            .arg("operation")
            .args(["--kind", self.input.kind.name(), "--threads", &common.threads().to_string()])
            .args(["--aead", self.arguments.aead.name()])
            .arg("--repository")
            .arg(repository)
            .args(action);
        let (cost, printed) = job.run(self.scratch).with_context(|| format!("{name} failed"))?;
        let outcome: Outcome = serde_json::from_slice(&printed).context("an operation said something else")?;
        let of = |rates: &Rates, seconds| {
            let share = rates.efficiency(&outcome.amounts, seconds);
            (share > 0.0).then_some(share)
        };
        let efficiency = of(&self.rates, outcome.seconds);
        let cpu_efficiency = of(&self.cpu_rates, outcome.cpu);
        self.steps.push(Step { name, cost, outcome, repository: size_below(repository)?, efficiency, cpu_efficiency });
        Ok(())
    }
}

fn measure(input: Input, arguments: &Engine, scratch: &Path) -> Result<Report> {
    let threads = arguments.common.threads();
    let (rates, cpu_rates) = rates(&input, arguments.sample, threads, LEVEL, arguments.aead, scratch)?;
    let mut runner = Runner { arguments, input: &input, scratch, rates, cpu_rates, steps: Vec::new() };
    let repository = scratch.join(format!("repository-{}", input.kind.name()));
    let repository = repository.as_path();
    let (backup, file) = (Path::new("backup"), input.file.as_path());
    runner.step("create repository", repository, &[Path::new("init")])?;
    runner.step("first backup", repository, &[backup, file])?;
    if let Some(next) = input.next.as_deref() {
        let copy = linked_copy(repository, &repository.with_extension("copy"))?;
        runner.step("next day", repository, &[backup, next])?;
        if input.kind == Kind::Image {
            let map = scratch.join("changes.json");
            fs::write(&map, to_json(&changed_ranges(file, next)?)?)?;
            runner.step("next day, change map", &copy, &[backup, next, Path::new("--changes"), &map])?;
            let target = scratch.join("restored");
            runner.step("restore of it", &copy, &[Path::new("restore"), &target])?;
            require_same(next, &target)?;
            fs::remove_file(&target)?;
        }
        fs::remove_dir_all(&copy)?;
    }
    let newest = input.next.as_deref().unwrap_or(file);
    runner.step("again, nothing changed", repository, &[backup, newest])?;
    runner.step("open", repository, &[Path::new("open")])?;
    let target = scratch.join("restored");
    runner.step("restore", repository, &[Path::new("restore"), &target])?;
    require_same(newest, &target)?;
    fs::remove_file(&target)?;
    runner.step("verify content", repository, &[Path::new("verify-content")])?;
    runner.step("verify bytes", repository, &[Path::new("verify-bytes")])?;
    fs::remove_dir_all(repository)?;
    let Runner { rates, cpu_rates, steps, .. } = runner;
    Ok(Report { input, threads, aead: arguments.aead.name(), rates, cpu_rates, steps })
}

/// A copy of a repository that shares its files: they are never changed, only added and removed.
///
/// # Errors
///
/// Where it cannot be made.
pub fn linked_copy(from: &Path, to: &Path) -> Result<PathBuf> {
    fs::create_dir(to).with_context(|| format!("cannot make {}", to.display()))?;
    for item in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let item = item?;
        let target = to.join(item.file_name());
        if item.file_type()?.is_dir() {
            linked_copy(&item.path(), &target)?;
        } else {
            fs::hard_link(item.path(), &target).with_context(|| format!("cannot link {}", target.display()))?;
        }
    }
    Ok(to.to_owned())
}
