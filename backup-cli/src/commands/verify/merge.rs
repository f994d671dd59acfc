//! `backup verify --merge`: the reports of all shards as one.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::PathBuf;

use backup_core::repository::VerifyReport;

use crate::exit::Failure;

/// Larger ones are none: a report lists at most a thousand findings with a hundred entries each.
const LIMIT: u64 = 1 << 30;

pub(crate) fn run(paths: &[PathBuf]) -> Result<VerifyReport, Failure> {
    let reports = paths.iter().map(|path| {
        let failed = |error| Failure::io(format!("cannot read report {}", path.display()), error);
        let file = File::open(path).map_err(failed)?;
        serde_json::from_reader(BufReader::new(file.take(LIMIT))).map_err(|error| failed(error.into()))
    });
    Ok(VerifyReport::merge(reports.collect::<Result<_, Failure>>()?)?)
}
