//! The commands, one a file. Each checks its arguments, calls the engine and shows the result.

mod cache;
mod cat;
mod collect;
mod completions;
mod copy;
mod create;
mod diff;
mod export;
mod forget;
mod import;
mod init;
mod key;
mod list;
mod man;
mod repair;
mod restore;
mod scrub;
mod show;
mod stats;
mod status;
mod verify;

use crate::arguments::Command;
use crate::context::Context;
use crate::exit::{Exit, Failure};

/// Runs one command to its end.
pub(crate) fn run(context: &Context<'_>, command: &Command) -> Result<Exit, Failure> {
    match command {
        Command::Init(arguments) => init::run(context, arguments),
        Command::Create(arguments) => create::run(context, arguments),
        Command::List(arguments) => list::run(context, arguments),
        Command::Show(arguments) => show::run(context, arguments),
        // What is kept here says nothing about what is on the storage.
        Command::Verify(arguments) => verify::run(&context.without_cache(), arguments),
        Command::Restore(arguments) => restore::run(context, arguments),
        Command::Copy(arguments) => copy::run(&context.without_cache(), arguments),
        Command::Cat(arguments) => cat::run(context, arguments),
        Command::Diff(arguments) => diff::run(context, arguments),
        Command::Export(arguments) => export::run(context, arguments),
        Command::Import(arguments) => import::run(context, arguments),
        Command::Repair(arguments) => repair::run(context, arguments),
        Command::Scrub(arguments) => scrub::run(context, arguments),
        Command::Forget(arguments) => forget::run(context, arguments),
        Command::Collect(arguments) => collect::run(context, arguments),
        Command::Key(arguments) => key::run(context, &arguments.command),
        Command::Cache(arguments) => cache::run(context, arguments.command),
        Command::Status(_) => status::run(context),
        Command::Stats(_) => stats::run(context),
        Command::Completions(arguments) => completions::run(context, arguments),
        Command::Man(arguments) => man::run(context, arguments),
    }
}
