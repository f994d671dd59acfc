//! `backup stats`

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::text;

pub(crate) fn run(context: &Context<'_>) -> Result<Exit, Failure> {
    let repository = context.repository()?;
    let statistics = repository.statistics()?;
    let exit = Exit::complete(statistics.unreadable_backups.is_empty());
    if context.output.is_json() {
        context.output.json(&statistics)?;
        return Ok(exit);
    }
    context.output.text(|out| {
        let mut line = |name: &str, value: String| writeln!(out, "{name:<14} {value}");
        line("backups", statistics.backups.to_string())?;
        line("content", text::size(statistics.logical_bytes))?;
        line("unique", text::size(statistics.unique_bytes))?;
        line("stored", text::size(statistics.stored_bytes))?;
        line("deduplication", format!("{:.2}", statistics.dedup_ratio))?;
        line("compression", format!("{:.2}", statistics.compression_ratio))?;
        line("packs", statistics.packs.to_string())?;
        line("chunks", statistics.chunks.to_string())?;
        line("index memory", text::size(statistics.index_memory_bytes))
    })?;
    for backup in &statistics.unreadable_backups {
        context.output.error_line(&text::unreadable(backup));
    }
    Ok(exit)
}
