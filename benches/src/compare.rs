//! The backup command beside other programs: the same input, the same machine, one after the other.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::arguments::Compare;
use crate::changes::{changed_ranges, to_json};
use crate::input::{Input, Kind, require_same, scratch};
use crate::measure::{Cost, median, median_cost, size_below};
use crate::table::{Table, mebibytes, megabytes, seconds};
use crate::tools::{Place, Tool, ToolName};

/// What one run of one tool cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Run {
    /// The first backup.
    pub first: Cost,
    /// The backup of the next day, without knowing what changed.
    pub next: Cost,
    /// The same, told what changed: only of this project's command, and of images.
    pub next_with_map: Option<Cost>,
    /// The restore of the next day.
    pub restore: Cost,
    /// Bytes of the repository after both backups.
    pub repository: u64,
}

/// A tool and what it cost.
#[derive(Clone, Debug, Serialize)]
pub struct ToolReport {
    /// Which.
    pub tool: ToolName,
    /// As it says.
    pub version: String,
    /// The medians.
    pub median: Run,
    /// Every run.
    pub runs: Vec<Run>,
}

/// How many times as fast as the fastest other program this project's command is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The step.
    pub step: &'static str,
    /// The fastest of the others.
    pub fastest: &'static str,
    /// Its seconds.
    pub seconds: f64,
    /// Ours.
    pub ours: f64,
    /// Its seconds for each of ours.
    pub ratio: f64,
    /// The least CPU seconds of the others, for each of ours: what other programs do meanwhile changes it least.
    pub cpu_ratio: f64,
}

/// A comparison on one input.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The input.
    pub input: Input,
    /// Bytes of the next day that changed, in blocks of 64 KiB.
    pub changed: u64,
    /// The tools.
    pub tools: Vec<ToolReport>,
    /// This project's command against the fastest of the others, by step.
    pub ratios: Vec<Ratio>,
    /// Tools that were asked for and are not there.
    pub missing: Vec<&'static str>,
}

/// `compare`
///
/// # Errors
///
/// Where a tool fails or restores something else.
pub fn run(arguments: &Compare) -> Result<Vec<Report>> {
    let backup = match &arguments.backup {
        Some(program) => Some(fs::canonicalize(program).with_context(|| format!("cannot find {}", program.display()))?),
        None => Some(std::env::current_exe()?.with_file_name("backup")).filter(|program| program.is_file()),
    };
    let wanted = if arguments.tools.is_empty() { ToolName::DEFAULT.to_vec() } else { arguments.tools.clone() };
    let scratch = scratch(arguments.common.directory.as_deref())?;
    let (mut tools, mut missing) = (Vec::new(), Vec::new());
    for name in wanted {
        match Tool::find(name, backup.as_deref()) {
            Some(tool) => tools.push(tool),
            None if name == ToolName::Backup => {
                anyhow::bail!("the backup command is missing: cargo build --release -p backup-cli")
            }
            None => missing.push(name.name()),
        }
    }
    for name in &missing {
        eprintln!("SKIPPED: {name} is not on PATH");
    }
    let (file, next) = (arguments.file.as_deref(), arguments.next.as_deref());
    ensure!(file.is_none() || next.is_some(), "compare needs the file of the next day as well");
    let inputs = Input::all(file, next, true, &arguments.common, scratch.path())?;
    inputs.into_iter().map(|input| compare(input, &tools, &missing, arguments.runs, scratch.path())).collect()
}

fn compare(input: Input, tools: &[Tool], missing: &[&'static str], runs: u16, scratch: &Path) -> Result<Report> {
    let next = input.next.clone().context("no next day")?;
    let changed = changed_ranges(&input.file, &next)?;
    let map = scratch.join("changes.json");
    fs::write(&map, to_json(&changed)?)?;
    let tools: Vec<&Tool> = tools.iter().filter(|tool| tool.name.takes(input.kind)).collect();
    let mut results: Vec<Vec<Run>> = vec![Vec::new(); tools.len()];
    for number in 0..usize::from(runs) {
        // Nobody is always the first, when the machine is still fast, or always after the same other.
        for turn in 0..tools.len() {
            let turn = if number % 2 == 0 { turn } else { tools.len() - 1 - turn };
            let at = (turn + number) % tools.len();
            eprintln!("run {} of {runs}: {}, {}", number + 1, input.kind.name(), tools[at].name.name());
            let run = run_tool(tools[at], &input, &next, &map, scratch);
            results[at].push(run.with_context(|| tools[at].name.name())?);
        }
    }
    let report = |(tool, runs): (&&Tool, Vec<Run>)| {
        Ok(ToolReport { tool: tool.name, version: tool.version(scratch)?, median: median_run(&runs), runs })
    };
    let tools: Vec<ToolReport> = tools.iter().zip(results).map(report).collect::<Result<_>>()?;
    let changed = changed.iter().map(|range| range.end - range.start).sum();
    Ok(Report { ratios: ratios(&tools), input, changed, tools, missing: missing.to_vec() })
}

fn run_tool(tool: &Tool, input: &Input, next: &Path, map: &Path, scratch: &Path) -> Result<Run> {
    let place = Place::make(scratch.join("place"), input.kind)?;
    let outputs: PathBuf = place.scratch();
    for job in tool.init(&place) {
        job.run(&outputs)?;
    }
    place.set_input(&input.file)?;
    let (first, said) = tool.back_up(&place, 1, None).run(&outputs)?;
    place.set_input(next)?;
    let next_with_map = if tool.name == ToolName::Backup && input.kind == Kind::Image {
        let copy = place.with_copy_of_repository("copy")?;
        copy.set_input(next)?;
        let said: serde_json::Value = serde_json::from_slice(&said).context("what the first backup said")?;
        let parent = said["backup"].as_str().context("the first backup has no id")?;
        let (cost, _) = tool.back_up(&copy, 2, Some((parent, map))).run(&outputs)?;
        // It must be as good as any other.
        tool.restore(&copy, 2).run(&outputs)?;
        require_same(next, &copy.restored()?).context("the backup with a change map")?;
        fs::remove_dir_all(copy.root())?;
        Some(cost)
    } else {
        None
    };
    let (second, _) = tool.back_up(&place, 2, None).run(&outputs)?;
    let (restore, _) = tool.restore(&place, 2).run(&outputs)?;
    require_same(next, &place.restored()?)?;
    let repository = size_below(&place.repository())?;
    fs::remove_dir_all(place.root())?;
    Ok(Run { first, next: second, next_with_map, restore, repository })
}

fn median_run(runs: &[Run]) -> Run {
    let of = |step: fn(&Run) -> Cost| median_cost(&runs.iter().map(step).collect::<Vec<_>>());
    let with_map: Vec<Cost> = runs.iter().filter_map(|run| run.next_with_map).collect();
    Run {
        first: of(|run| run.first),
        next: of(|run| run.next),
        next_with_map: (!with_map.is_empty()).then(|| median_cost(&with_map)),
        restore: of(|run| run.restore),
        repository: median(runs.iter().map(|run| run.repository as f64).collect()) as u64,
    }
}

fn ratios(tools: &[ToolReport]) -> Vec<Ratio> {
    let Some(ours) = tools.iter().find(|report| report.tool == ToolName::Backup) else { return Vec::new() };
    let of = |step, ours: Cost, theirs: fn(&Run) -> Cost| {
        let others = || tools.iter().filter(|report| report.tool != ToolName::Backup);
        let wall = |report: &ToolReport| theirs(&report.median).wall;
        let cpu = others().map(|report| theirs(&report.median).cpu()).min_by(f64::total_cmp)?;
        let fastest = others().min_by(|a, b| wall(a).total_cmp(&wall(b)))?;
        let (name, seconds) = (fastest.tool.name(), wall(fastest));
        let (ratio, cpu_ratio) = (seconds / ours.wall, cpu / ours.cpu());
        Some(Ratio { step, fastest: name, seconds, ours: ours.wall, ratio, cpu_ratio })
    };
    [
        of("first backup", ours.median.first, |run| run.first),
        of("next day", ours.median.next, |run| run.next),
        ours.median.next_with_map.and_then(|cost| of("next day, change map", cost, |run| run.next)),
        of("restore", ours.median.restore, |run| run.restore),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The reports as tables.
#[must_use]
pub fn show(reports: &[Report]) -> String {
    let mut out = String::new();
    for report in reports {
        let input = &report.input;
        out.push_str(&format!(
            "{}, {} MB of data in {} MB, {} MB changed; medians of {}\n\n",
            input.kind.name(),
            megabytes(input.data),
            megabytes(input.length),
            megabytes(report.changed),
            report.tools.first().map_or(0, |tool| tool.runs.len()),
        ));
        let headings = ["seconds (CPU, peak MiB)", "first", "next day", "change map", "restore", "repository MB"];
        let mut table = Table::new(&headings);
        for tool in &report.tools {
            let cell =
                |cost: &Cost| format!("{} ({}, {})", seconds(cost.wall), seconds(cost.cpu()), mebibytes(cost.peak));
            table.push(vec![
                tool.tool.name().to_owned(),
                cell(&tool.median.first),
                cell(&tool.median.next),
                tool.median.next_with_map.as_ref().map_or_else(String::new, cell),
                cell(&tool.median.restore),
                megabytes(tool.median.repository),
            ]);
        }
        out.push_str(&table.render());
        out.push('\n');
        let mut table =
            Table::new(&["against the fastest other", "it", "its seconds", "ours", "ratio", "ratio of CPU"]);
        for ratio in &report.ratios {
            let Ratio { step, fastest, seconds: theirs, ours, ratio, cpu_ratio } = ratio;
            table.push(vec![
                (*step).to_owned(),
                (*fastest).to_owned(),
                seconds(*theirs),
                seconds(*ours),
                format!("{ratio:.1}"),
                format!("{cpu_ratio:.1}"),
            ]);
        }
        out.push_str(&table.render());
        let mut versions: Vec<&str> = report.tools.iter().map(|tool| tool.version.as_str()).collect();
        versions.dedup();
        out.push_str(&format!("\n{}\n", versions.join("; ")));
        if !report.missing.is_empty() {
            out.push_str(&format!("SKIPPED, not on PATH: {}\n", report.missing.join(", ")));
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(tool: ToolName, first: f64, next: f64, map: Option<f64>, restore: f64) -> ToolReport {
        let cost = |wall| Cost { wall, user: 1.0, system: 0.5, peak: 3 << 20 };
        let run = Run {
            first: cost(first),
            next: cost(next),
            next_with_map: map.map(cost),
            restore: cost(restore),
            repository: 5_000_000,
        };
        ToolReport { tool, version: "1".into(), median: median_run(&[run]), runs: vec![run] }
    }

    #[test]
    fn ratios_are_against_the_fastest_other_of_each_step() {
        let tools = [
            report(ToolName::Backup, 2.0, 1.0, Some(0.5), 4.0),
            report(ToolName::Borg, 10.0, 4.0, None, 8.0),
            report(ToolName::Rustic, 8.0, 6.0, None, 6.0),
        ];
        let found: Vec<_> = ratios(&tools).into_iter().map(|r| (r.step, r.fastest, r.ratio)).collect();
        let expected = [
            ("first backup", "rustic", 4.0),
            ("next day", "borg", 4.0),
            ("next day, change map", "borg", 8.0),
            ("restore", "rustic", 1.5),
        ];
        assert_eq!(found, expected);
        assert_eq!(ratios(&tools[1..]), []);
        assert_eq!(ratios(&tools[..1]), []);
    }

    #[test]
    fn tables_have_every_tool() {
        let tools = vec![report(ToolName::Backup, 2.0, 1.0, None, 4.0), report(ToolName::Borg, 10.0, 4.0, None, 8.0)];
        let input = Input { kind: Kind::Dump, file: "a".into(), next: None, length: 9_000_000, data: 8_000_000 };
        let text = show(&[Report { ratios: ratios(&tools), input, changed: 0, tools, missing: vec!["rustic"] }]);
        for expected in ["| backup ", " 2.00 (1.50, 3) |", "SKIPPED, not on PATH: rustic", "dump, 8 MB of data in 9 MB"]
        {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}
