//! `backup list`

use backup_core::repository::{Backup, UnreadableBackup};
use serde_json::json;

use crate::arguments::List;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::text;

pub(crate) fn run(context: &Context<'_>, arguments: &List) -> Result<Exit, Failure> {
    let repository = context.repository()?;
    let mut listed = repository.list()?;
    // Of what kind an unreadable one is nobody knows.
    listed.retain(|backup| backup.as_ref().is_ok_and(|backup| arguments.filter.matches(backup)) || backup.is_err());
    let unreadable: Vec<_> = listed.iter().filter_map(|backup| backup.as_ref().err()).collect();
    if context.output.is_json() {
        let backups: Vec<_> = listed.iter().filter_map(|backup| backup.as_ref().ok()).collect();
        context.output.json(&json!({"repository": repository.id(), "backups": backups, "unreadable": unreadable}))?;
    } else if !listed.is_empty() {
        let rows: Vec<Vec<String>> = listed.iter().map(|backup| backup.as_ref().map_or_else(lost_row, row)).collect();
        let header = ["ID", "TIME", "KIND", "HOST", "ENTRIES", "SIZE", "STORED", "TAGS", "STATE"];
        context.output.text(|out| text::table(out, &header, &rows))?;
    } else if context.output.has_summaries() {
        let none = "there are no backups in the repository";
        let filter = &arguments.filter;
        context.output.error_line(&if filter.is_empty() { none.to_owned() } else { format!("{none} with {filter}") });
    }
    for backup in &unreadable {
        context.output.error_line(&text::unreadable(backup));
    }
    let is_whole = context.warn_of_lost(&repository.lost_records()?);
    Ok(Exit::complete(unreadable.is_empty() && is_whole))
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

fn lost_row(backup: &UnreadableBackup) -> Vec<String> {
    let mut row = vec![backup.id.short(), text::time(backup.time)];
    row.resize(8, "-".to_owned());
    row.push("unreadable".to_owned());
    row
}
