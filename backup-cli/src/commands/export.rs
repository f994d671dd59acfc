//! `backup export`

use std::path::Path;

use backup_core::archive::{ExportOptions, ExportReport, Profile, export};
use serde_json::json;

use crate::arguments::{Export, ProfileName};
use crate::commits::find_commits;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::progress::Progress;
use crate::output::{json, text};
use crate::target::write_file;

pub(crate) fn run(context: &Context<'_>, arguments: &Export) -> Result<Exit, Failure> {
    let locked = context.locked()?;
    let options = ExportOptions::default()
        .with_profile(match arguments.profile {
            ProfileName::Light => Profile::Light,
            ProfileName::Default => Profile::Default,
            ProfileName::Strong => Profile::Strong,
        })
        .with_backups(find_commits(&locked, &arguments.backups)?);
    let progress = Progress::start(context.output, "exporting");
    let report = write_file(&arguments.to, |out| export(&locked, &options, out, &context.control(&progress)))?;
    drop(progress);
    show(context, &arguments.to, &report)?;
    Ok(Exit::complete(context.warn_of_lost(&locked.lost_records()?)))
}

fn show(context: &Context<'_>, to: &Path, report: &ExportReport) -> Result<(), Failure> {
    let owns_stdout = to.as_os_str() == "-";
    if context.output.is_json() {
        let mut result = json::members(report);
        result.extend(json::members(&json!({"target": to.to_string_lossy()})));
        return if owns_stdout { context.output.json_beside_content(&result) } else { context.output.json(&result) };
    }
    if context.output.has_summaries() && !owns_stdout {
        context.output.text(|out| {
            writeln!(
                out,
                "exported {}: {}; any {} in one piece may be lost of it",
                text::count(report.backups.len() as u64, "backup", "backups"),
                text::size(report.bytes),
                text::size(report.survives)
            )
        })?;
    }
    Ok(())
}
