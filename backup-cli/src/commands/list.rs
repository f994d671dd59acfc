//! `backup list`

use backup_core::repository::Backup;
use serde_json::json;

use crate::arguments::List;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::text;

pub(crate) fn run(context: &Context<'_>, arguments: &List) -> Result<Exit, Failure> {
    let repository = context.repository()?;
    let mut backups = repository.backups()?;
    backups.retain(|backup| is_wanted(arguments, backup));
    if context.output.is_json() {
        context.output.json(&json!({"repository": repository.id(), "backups": backups}))?;
    } else if !backups.is_empty() {
        let rows: Vec<Vec<String>> = backups.iter().map(row).collect();
        let header = ["ID", "TIME", "KIND", "HOST", "ENTRIES", "SIZE", "STORED", "TAGS", "STATE"];
        context.output.text(|out| text::table(out, &header, &rows))?;
    }
    Ok(Exit::Fine)
}

fn is_wanted(arguments: &List, backup: &Backup) -> bool {
    arguments.kind.as_ref().is_none_or(|kind| backup.kind == *kind)
        && arguments.host.as_ref().is_none_or(|host| backup.host == *host)
        && arguments.tag.iter().all(|tag| backup.tags.contains(tag))
}

fn row(backup: &Backup) -> Vec<String> {
    let statistics = &backup.statistics;
    vec![
        backup.id.short(),
        text::time(backup.started),
        backup.kind.to_string(),
        text::clean(&backup.host),
        statistics.entries.to_string(),
        text::size(statistics.bytes_logical),
        text::size(statistics.bytes_stored),
        text::clean(&backup.tags.join(",")),
        if backup.is_complete() {
            "complete".to_owned()
        } else {
            text::count(backup.problem_count, "problem", "problems")
        },
    ]
}
