//! The command.
#![forbid(unsafe_code)]

use anyhow::Result;
use backup_bench::arguments::{Arguments, Command};
use backup_bench::{compare, engine, index, measure, operation, primitives, requests};
use clap::Parser;

fn main() -> Result<()> {
    let (json, text) = match Arguments::parse().command {
        Command::Primitives(arguments) => {
            let reports = primitives::run(&arguments)?;
            (arguments.common.json.then(|| serde_json::to_string_pretty(&reports)), primitives::show(&reports))
        }
        Command::Engine(arguments) => {
            let reports = engine::run(&arguments)?;
            (arguments.common.json.then(|| serde_json::to_string_pretty(&reports)), engine::show(&reports))
        }
        Command::Compare(arguments) => {
            let reports = compare::run(&arguments)?;
            (arguments.common.json.then(|| serde_json::to_string_pretty(&reports)), compare::show(&reports))
        }
        Command::Index(arguments) => {
            let report = index::run(&arguments)?;
            (arguments.json.then(|| serde_json::to_string_pretty(&report)), index::show(&report))
        }
        Command::Requests(arguments) => {
            let report = requests::run(&arguments)?;
            (arguments.json.then(|| serde_json::to_string_pretty(&report)), requests::show(&report))
        }
        Command::Operation(arguments) => return operation::run(&arguments),
        Command::Measured(arguments) => return measure::run_measured(&arguments),
    };
    match json {
        Some(json) => println!("{}", json?),
        None => print!("{text}"),
    }
    Ok(())
}
