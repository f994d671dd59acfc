//! The `backup` command: backups that are made, verified and restored from a shell.
//!
//! It stands on the public interfaces of `backup-core` and `backup-adapters` only. What its
//! commands, exit codes and JSON mean is in `docs/cli.md`.
#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod commits;
mod context;
mod exit;
mod filter;
mod input;
mod interrupt;
mod output;
mod password;
mod selection;
mod target;

use std::process::ExitCode;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::Output;

fn main() -> ExitCode {
    let arguments = match arguments::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(stop) => return stop.print(),
    };
    let output = Output::new(arguments.global.json, arguments.global.quiet);
    let exit = run(&arguments, &output).unwrap_or_else(|failure| {
        output.failure(&failure);
        failure.exit()
    });
    exit.into()
}

fn run(arguments: &arguments::Arguments, output: &Output) -> Result<Exit, Failure> {
    let cancel = interrupt::install()?;
    if let Some(nice) = arguments.global.nice {
        // Before there are other threads, which inherit it.
        let lowered = rustix::process::nice(i32::from(nice));
        lowered.map_err(|error| Failure::io("cannot lower the priority", error.into()))?;
    }
    let context = Context::new(&arguments.global, output, cancel.clone());
    let result = commands::run(&context, &arguments.command).map_err(|failure| context.named(failure));
    match result {
        // What an interrupted operation reports depends on where it was: a command that was stopped by
        // the same Ctrl-C looks like a failing source. The interrupt is the reason, but a commit that may have
        // happened must not be called none.
        Err(Failure::Engine(error @ backup_core::Error::UnknownOutcome { .. })) => Err(Failure::Engine(error)),
        Err(_) if cancel.is_cancelled() => Err(Failure::Engine(backup_core::Error::Cancelled)),
        result => result,
    }
}
