//! `backup import`

use std::sync::Arc;

use backup_adapters::url::open_archive;
use backup_core::archive::ArchiveStorage;
use backup_core::copy::CopyOptions;
use backup_core::repository::LockedRepository;

use crate::arguments::Import;
use crate::commands::copy;
use crate::commits::find_commits;
use crate::context::{Context, environment};
use crate::exit::{Exit, Failure};
use crate::output::progress::Progress;

pub(crate) fn run(context: &Context<'_>, arguments: &Import) -> Result<Exit, Failure> {
    let name = arguments.archive.display().to_string();
    let archive = ArchiveStorage::open(open_archive(&arguments.archive)?, &name)?;
    let locked = LockedRepository::open(Arc::new(archive), environment())?;
    let options = CopyOptions::default().with_backups(find_commits(&locked, &arguments.backups)?);
    let destination = context.new_storage()?;
    let progress = Progress::start(context.output, "importing");
    let receipt = locked.copy_to(&destination, &options, &context.control(&progress))?;
    let seconds = progress.seconds();
    drop(progress);
    copy::show(context, &receipt, seconds)?;
    Ok(Exit::complete(receipt.ok))
}
