//! `backup repair`

use backup_adapters::url::open_archive;
use backup_core::archive::{ArchiveReport, check, repair};
use serde_json::json;

use crate::arguments::Repair;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::progress::Progress;
use crate::output::{json, text};
use crate::target::write_file;

pub(crate) fn run(context: &Context<'_>, arguments: &Repair) -> Result<Exit, Failure> {
    let source = open_archive(&arguments.archive)?;
    let name = arguments.archive.display().to_string();
    let Some(to) = &arguments.to else {
        let progress = Progress::start(context.output, "checking");
        let report = check(source, &name, &context.control(&progress))?;
        drop(progress);
        if context.output.is_json() {
            context.output.json(&report)?;
        } else {
            context.output.text(|out| write(out, &report, context.output.has_summaries()))?;
        }
        return Ok(Exit::complete(report.ok));
    };
    let progress = Progress::start(context.output, "repairing");
    let report = write_file(to, |out| repair(source, &name, out, &context.control(&progress)))?;
    drop(progress);
    let owns_stdout = to.as_os_str() == "-";
    if context.output.is_json() {
        let mut result = json::members(&report);
        result.extend(json::members(&json!({"target": to.to_string_lossy()})));
        if owns_stdout { context.output.json_beside_content(&result)? } else { context.output.json(&result)? }
    } else if !owns_stdout {
        context.output.text(|out| {
            write(out, &report.found, context.output.has_summaries())?;
            if context.output.has_summaries() {
                let mended = text::count(report.mended_blocks, "block", "blocks");
                writeln!(out, "made {mended} anew, wrote {}", text::size(report.bytes))?;
            }
            Ok(())
        })?;
    }
    if !report.exact {
        context.output.error_line(&report.found.verdict);
    }
    Ok(Exit::complete(report.exact))
}

fn write(out: &mut dyn std::io::Write, report: &ArchiveReport, has_summary: bool) -> std::io::Result<()> {
    for object in &report.lost_objects {
        writeln!(out, "lost: {}", text::clean(object))?;
    }
    if report.lost_objects_omitted > 0 {
        writeln!(out, "and {}", text::count(report.lost_objects_omitted, "object more", "objects more"))?;
    }
    if has_summary {
        writeln!(out, "{}", report.verdict)?;
    }
    Ok(())
}
