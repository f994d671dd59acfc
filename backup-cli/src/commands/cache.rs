//! `backup cache`

use serde_json::json;

use crate::arguments::CacheCommand;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::text;

pub(crate) fn run(context: &Context<'_>, command: CacheCommand) -> Result<Exit, Failure> {
    let Some(cache) = context.open_cache()? else {
        return Err(Failure::usage("there is no directory for a cache: HOME is not set; use --cache-dir"));
    };
    let shown = cache.path().display().to_string();
    let failed = |what: &str| format!("cannot {what} cache {shown}");
    let (removed, usage) = match command {
        CacheCommand::Show => (None, cache.usage().map_err(|error| Failure::io(failed("read"), error))?),
        CacheCommand::Clear => {
            let removed = cache.clear().map_err(|error| Failure::io(failed("clear"), error))?;
            (Some(removed), cache.usage().map_err(|error| Failure::io(failed("read"), error))?)
        }
    };
    if context.output.is_json() {
        context.output.json(&json!({
            "directory": shown,
            "objects": usage.objects,
            "bytes": usage.bytes,
            "limit": cache.limit(),
            "removed_objects": removed.map(|removed| removed.objects),
            "removed_bytes": removed.map(|removed| removed.bytes),
        }))?;
        return Ok(Exit::Fine);
    }
    context.output.text(|out| {
        let of = |objects: u64, bytes: u64| {
            format!("{} in {}", text::size(bytes), text::count(objects, "object", "objects"))
        };
        writeln!(out, "directory  {}", text::clean(&shown))?;
        if let Some(removed) = removed {
            writeln!(out, "removed    {}", of(removed.objects, removed.bytes))?;
        }
        writeln!(out, "content    {}", of(usage.objects, usage.bytes))?;
        writeln!(out, "limit      {}", text::size(cache.limit()))
    })?;
    Ok(Exit::Fine)
}
