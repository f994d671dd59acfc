//! `backup scrub`

use backup_core::parity::{ScrubOptions, ScrubReport, scrub};

use crate::arguments::Scrub;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::progress::Progress;
use crate::output::text;

pub(crate) fn run(context: &Context<'_>, arguments: &Scrub) -> Result<Exit, Failure> {
    let locked = context.locked()?;
    let options = ScrubOptions::default().with_add_parity(arguments.add_parity).with_dry_run(arguments.dry_run);
    let progress = Progress::start(context.output, "scrubbing");
    let report = scrub(&locked, &options, &context.control(&progress))?;
    drop(progress);
    if context.output.is_json() {
        context.output.json(&report)?;
    } else {
        show(context, arguments, &report)?;
    }
    Ok(Exit::complete(report.ok))
}

fn show(context: &Context<'_>, arguments: &Scrub, report: &ScrubReport) -> Result<(), Failure> {
    context.output.text(|out| {
        for finding in &report.findings {
            let outcome = match (&finding.reason, arguments.dry_run) {
                (Some(reason), _) => format!("not repaired: {reason}"),
                (None, true) => "can be repaired".to_owned(),
                (None, false) => "repaired".to_owned(),
            };
            writeln!(out, "{}", text::clean(&format!("{}: {}: {outcome}", finding.object, finding.problem)))?;
        }
        if report.findings_omitted > 0 {
            writeln!(out, "and {}", text::count(report.findings_omitted, "finding more", "findings more"))?;
        }
        if context.output.has_summaries() {
            writeln!(
                out,
                "checked {} ({}); parity of {} protects {}, {} without",
                text::count(report.objects_checked, "object", "objects"),
                text::size(report.bytes_checked),
                text::size(report.parity_bytes),
                text::count(report.protected, "object", "objects"),
                report.unprotected
            )?;
            if report.parity_damaged > 0 {
                writeln!(
                    out,
                    "{}",
                    text::count(report.parity_damaged, "damaged parity object", "damaged parity objects")
                )?;
            }
            writeln!(out, "{}", if report.ok { "ok" } else { "not ok" })?;
        }
        Ok(())
    })
}
