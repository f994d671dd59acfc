//! `backup status`

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::text;

pub(crate) fn run(context: &Context<'_>) -> Result<Exit, Failure> {
    let repository = context.repository()?;
    let status = repository.status()?;
    let is_whole = context.warn_of_lost(&repository.lost_records()?);
    let exit = Exit::complete(status.newest_unreadable.is_none() && is_whole);
    if context.output.is_json() {
        context.output.json(&status)?;
        return Ok(exit);
    }
    context.output.text(|out| {
        let mut line = |name: &str, value: String| writeln!(out, "{name:<12} {value}");
        line("repository", status.id.to_string())?;
        line("backups", status.backups.to_string())?;
        match &status.newest {
            Some(backup) => {
                let state = if backup.is_complete() { "complete" } else { "incomplete" };
                let (id, kind) = (backup.id.short(), &backup.kind);
                line("newest", format!("{id}, {kind}, {}, {state}", text::time(backup.finished)))?;
            }
            None => match &status.newest_unreadable {
                Some(backup) => {
                    line("newest", format!("{}, {}, unreadable", backup.id.short(), text::time(backup.time)))?;
                }
                None => line("newest", "none".to_owned())?,
            },
        }
        if let Some(bytes) = status.free_bytes {
            line("free", text::size(bytes))?;
        }
        if status.read_only {
            line("access", "read-only".to_owned())?;
        }
        line("unfinished", text::count(status.unfinished_sessions.len() as u64, "session", "sessions"))?;
        line("root key", format!("generation {}", status.root_key_generation))
    })?;
    if let Some(backup) = &status.newest_unreadable {
        context.output.error_line(&text::unreadable(backup));
    }
    Ok(exit)
}
