//! `backup man`

use clap::CommandFactory;
use serde_json::json;

use crate::arguments::{Arguments, Man};
use crate::context::Context;
use crate::exit::{Exit, Failure};

pub(crate) fn run(context: &Context<'_>, arguments: &Man) -> Result<Exit, Failure> {
    let directory = &arguments.directory;
    let failed = |error| Failure::io(format!("cannot write man pages to {}", directory.display()), error);
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Arguments::command(), directory).map_err(failed)?;
    if context.output.is_json() {
        context.output.json(&json!({"directory": directory.to_string_lossy()}))?;
    }
    Ok(Exit::Fine)
}
