//! `backup diff`

use backup_core::repository::{Change, Difference};
use serde_json::json;

use crate::arguments::Diff;
use crate::context::Context;
use crate::exit::{Exit, Failure};

pub(crate) fn run(context: &Context<'_>, arguments: &Diff) -> Result<Exit, Failure> {
    let repository = context.repository()?;
    let old = repository.find_backup(&arguments.old)?;
    let new = repository.find_backup(&arguments.new)?;
    let differences = repository.differences(&old, &new)?;
    if context.output.is_json() {
        context.output.json(&json!({"old": old.id, "new": new.id, "differences": differences}))?;
    } else {
        context
            .output
            .text(|out| differences.iter().try_for_each(|difference| writeln!(out, "{}", line(difference))))?;
    }
    Ok(Exit::Fine)
}

/// `+ added`, `- removed`, `M content modified`, `A attributes modified`.
pub(crate) fn line(difference: &Difference) -> String {
    let sign = match difference.change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Modified { content: true, .. } => 'M',
        _ => 'A',
    };
    format!("{sign} {}", difference.path)
}
