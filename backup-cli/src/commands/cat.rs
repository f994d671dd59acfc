//! `backup cat`

use serde_json::json;

use crate::arguments::Cat;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::input::standard_output;
use crate::output::progress::Progress;
use crate::selection::entry_path;

pub(crate) fn run(context: &Context<'_>, arguments: &Cat) -> Result<Exit, Failure> {
    let path = entry_path(&arguments.entry)?;
    arguments.filter.check(&arguments.backup)?;
    let repository = context.repository()?;
    let backup = arguments.filter.find(&repository, &arguments.backup, context.output)?;
    let entry = repository.content_entry(&backup, &path)?;
    if !entry.kind.has_content() {
        return Err(Failure::usage(format!("{path} is a {} and has no content", entry.kind.name())));
    }
    let mut out = standard_output()?;
    let bytes = {
        let progress = Progress::start(context.output, "reading");
        repository.restore_stream(&entry, &mut out, &context.control(&progress)).map_err(Failure::to_stdout)?
    };
    if context.output.is_json() {
        context.output.json_beside_content(&json!({"backup": backup.id, "entry": path, "bytes": bytes}))?;
    }
    Ok(Exit::Fine)
}
