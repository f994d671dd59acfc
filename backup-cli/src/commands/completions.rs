//! `backup completions`

use clap::CommandFactory;
use serde_json::json;

use crate::arguments::{Arguments, Completions};
use crate::context::Context;
use crate::exit::{Exit, Failure};

pub(crate) fn run(context: &Context<'_>, arguments: &Completions) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "backup", &mut script);
    if context.output.is_json() {
        let shell = arguments.shell.to_string();
        context.output.json(&json!({"shell": shell, "script": String::from_utf8_lossy(&script)}))?;
    } else {
        context.output.text(|out| out.write_all(&script))?;
    }
    Ok(Exit::Fine)
}
