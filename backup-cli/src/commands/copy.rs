//! `backup copy`

use backup_core::copy::{CopyOptions, CopyReceipt, CopyStatus};
use backup_core::repository::VerifyLevel;

use crate::arguments::{Copy, CopyLevel};
use crate::commits::find_commits;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::progress::Progress;
use crate::output::{file, text};

pub(crate) fn run(context: &Context<'_>, arguments: &Copy) -> Result<Exit, Failure> {
    let locked = context.locked()?;
    let level = match arguments.verify {
        CopyLevel::Presence => VerifyLevel::Presence,
        CopyLevel::Bytes => VerifyLevel::Bytes,
    };
    let options = CopyOptions::default()
        .with_backups(find_commits(&locked, &arguments.backups)?)
        .with_verify(level)
        .with_check_existing(arguments.check_existing);
    let destination = context.destination(&arguments.to)?;
    let progress = Progress::start(context.output, "copying");
    let receipt = locked.copy_to(&destination, &options, &context.control(&progress))?;
    let seconds = progress.seconds();
    drop(progress);
    if let Some(path) = &arguments.receipt {
        file::replace(path, "receipt", &receipt)?;
    }
    show(context, &receipt, seconds)?;
    Ok(Exit::complete(receipt.ok))
}

/// Shows what was copied.
pub(crate) fn show(context: &Context<'_>, receipt: &CopyReceipt, seconds: f64) -> Result<(), Failure> {
    if context.output.is_json() {
        return context.output.json(receipt);
    }
    let count = |status| receipt.backups.iter().filter(|backup| backup.status == status).count() as u64;
    for problem in &receipt.problems {
        context.output.warning(&format!("{}: {}", problem.name, problem.message));
    }
    context.output.text(|out| {
        for backup in receipt.backups.iter().filter(|backup| backup.status == CopyStatus::Failed) {
            let reason = backup.reason.as_deref().unwrap_or("it was not copied");
            writeln!(out, "not copied: backup {}: {}", backup.id.short(), text::clean(reason))?;
        }
        for finding in receipt.verification.iter().flat_map(|report| &report.findings) {
            let line = format!("{}: {}", finding.object, finding.message);
            writeln!(out, "damaged at the destination: {}", text::clean(&line))?;
        }
        if context.output.has_summaries() {
            let forgotten = count(CopyStatus::Forgotten);
            if forgotten > 0 {
                writeln!(
                    out,
                    "left out {}, forgotten at the destination",
                    text::count(forgotten, "backup", "backups")
                )?;
            }
            writeln!(
                out,
                "copied {}, found {}; copied {} ({}) in {}, {}, found {} ({})",
                text::count(count(CopyStatus::Copied), "backup", "backups"),
                count(CopyStatus::Found),
                text::count(receipt.objects_copied, "object", "objects"),
                text::size(receipt.bytes_copied),
                text::duration(seconds),
                text::rate(receipt.bytes_copied, seconds),
                receipt.objects_found,
                text::size(receipt.bytes_found),
            )?;
            writeln!(out, "{}", if receipt.ok { "ok" } else { "not ok" })?;
        }
        Ok(())
    })
}
