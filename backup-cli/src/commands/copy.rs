//! `backup copy`

use std::sync::Arc;

use backup_adapters::url::redacted;
use backup_core::Error;
use backup_core::copy::{CopyOptions, CopyReceipt, CopyStatus};
use backup_core::repository::{LockedRepository, UnlockOptions, VerifyLevel};
use backup_core::storage::Storage;

use crate::arguments::{Copy, CopyLevel, ToPassword};
use crate::commits::find_commits;
use crate::context::{Context, environment};
use crate::exit::{Exit, Failure};
use crate::output::progress::Progress;
use crate::output::{file, text};
use crate::password::Unlock;

pub(crate) fn run(context: &Context<'_>, arguments: &Copy) -> Result<Exit, Failure> {
    let locked = context.locked()?;
    let level = match arguments.verify {
        CopyLevel::Presence => VerifyLevel::Presence,
        CopyLevel::Bytes => VerifyLevel::Bytes,
        CopyLevel::Content => VerifyLevel::Content,
    };
    let options = CopyOptions::default()
        .with_backups(find_commits(&locked, &arguments.backups)?)
        .with_verify(level)
        .with_check_existing(arguments.check_existing);
    if context.is_own(&arguments.to)? {
        return Err(Failure::usage("--to is the repository itself"));
    }
    let destination = context.destination(&arguments.to)?;
    let (receipt, seconds) = match another(&locked, &destination) {
        Some(there) => reencrypt(context, arguments, locked, there, &options)?,
        None => {
            check_verbatim(arguments)?;
            let progress = Progress::start(context.output, "copying");
            let receipt = locked.copy_to(&destination, &options, &context.control(&progress))?;
            let has_failed = receipt.backups.iter().any(|backup| backup.status == CopyStatus::Failed);
            let receipt = if has_failed && Unlock::is_given(context.global)? {
                anew(context, locked, &destination, receipt, &options, &progress)?
            } else {
                receipt
            };
            (receipt, progress.seconds())
        }
    };
    if let Some(path) = &arguments.receipt {
        file::replace(path, "receipt", &receipt)?;
    }
    show(context, &receipt, seconds)?;
    Ok(Exit::complete(receipt.ok))
}

/// The repository at the destination, if it has keys of its own. What cannot be read is left to the copying to name.
fn another(locked: &LockedRepository, destination: &Arc<dyn Storage>) -> Option<LockedRepository> {
    let there = LockedRepository::open(Arc::clone(destination), environment()).ok()?;
    (there.fingerprint() != locked.fingerprint()).then_some(there)
}

/// Refuses options that are for a destination with a password of its own.
fn check_verbatim(arguments: &Copy) -> Result<(), Failure> {
    let ToPassword { to_password_file, to_password_fd, to_password_command, to_key_file } = &arguments.password;
    let has_password = to_password_file.is_some()
        || to_password_fd.is_some()
        || to_password_command.is_some()
        || to_key_file.is_some();
    if has_password {
        return Err(Failure::usage(
            "a password of the destination is given, and there is no repository with a password of its own; `init` makes one",
        ));
    }
    if arguments.verify == CopyLevel::Content {
        return Err(Failure::usage(
            "--verify content is for a destination with a password of its own; use `verify` there",
        ));
    }
    Ok(())
}

/// Brings with the password what could not be brought without it.
fn anew(
    context: &Context<'_>,
    here: LockedRepository,
    destination: &Arc<dyn Storage>,
    receipt: CopyReceipt,
    options: &CopyOptions,
    progress: &Progress<'_>,
) -> Result<CopyReceipt, Failure> {
    let unlock = Unlock::existing(context.global, context.output)?;
    let open = |locked: LockedRepository| locked.unlock(&unlock.credential(), &UnlockOptions::default());
    let there = LockedRepository::open(Arc::clone(destination), environment())?;
    match (open(here), open(there)) {
        (Ok(from), Ok(to)) => Ok(from.copy_anew(&to, receipt, options, &context.control(progress))?),
        // The copy needed no password, and that it is not complete is what it says.
        (Err(Error::WrongPassword), _) | (_, Err(Error::WrongPassword)) => {
            context.output.warning("nothing is signed anew: the password does not open both places");
            Ok(receipt)
        }
        (Err(error), _) | (_, Err(error)) => Err(error.into()),
    }
}

/// Copies with both passwords. Whether they can be had is known before anybody is asked for one.
fn reencrypt(
    context: &Context<'_>,
    arguments: &Copy,
    here: LockedRepository,
    there: LockedRepository,
    options: &CopyOptions,
) -> Result<(CopyReceipt, f64), Failure> {
    if !Unlock::has_destination(&arguments.password)? {
        return Err(Failure::Engine(Error::Conflict {
            what: "the destination".into(),
            reason: "it holds another repository, into which backups are copied with the passwords of both: give its own with \
                     --to-password-file, --to-password-fd or --to-password-command"
                .into(),
            transient: false,
        }));
    }
    let name = redacted(&arguments.to.to_string_lossy());
    let unlock = Unlock::existing(context.global, context.output)?;
    let from = here.unlock(&unlock.credential(), &UnlockOptions::default())?;
    let unlock = Unlock::destination(&arguments.password, &name, context.output)?;
    let to = there.unlock(&unlock.credential(), &UnlockOptions::default()).map_err(|error| match error {
        Error::WrongPassword => Failure::WrongDestinationPassword(name),
        error => error.into(),
    })?;
    let progress = Progress::start(context.output, "copying");
    let receipt = from.copy_to(&to, options, &context.control(&progress))?;
    Ok((receipt, progress.seconds()))
}

/// Shows what was copied.
pub(crate) fn show(context: &Context<'_>, receipt: &CopyReceipt, seconds: f64) -> Result<(), Failure> {
    if context.output.is_json() {
        return context.output.json(receipt);
    }
    let count = |status| receipt.backups.iter().filter(|backup| backup.status == status).count() as u64;
    for problem in &receipt.problems {
        context.output.warning(&format!("{}: {}", problem.name, problem.message));
    }
    context.output.text(|out| {
        for backup in receipt.backups.iter().filter(|backup| backup.status == CopyStatus::Failed) {
            let reason = backup.reason.as_deref().unwrap_or("it was not copied");
            writeln!(out, "not copied: backup {}: {}", backup.id.short(), text::clean(reason))?;
        }
        for finding in receipt.verification.iter().flat_map(|report| &report.findings) {
            let line = format!("{}: {}", finding.object, finding.message);
            writeln!(out, "damaged at the destination: {}", text::clean(&line))?;
        }
        if context.output.has_summaries() {
            let forgotten = count(CopyStatus::Forgotten);
            if forgotten > 0 {
                writeln!(
                    out,
                    "left out {}, forgotten at the destination",
                    text::count(forgotten, "backup", "backups")
                )?;
            }
            writeln!(
                out,
                "copied {}, found {}; copied {} ({}) in {}, {}, found {} ({})",
                text::count(count(CopyStatus::Copied), "backup", "backups"),
                count(CopyStatus::Found),
                text::count(receipt.objects_copied, "object", "objects"),
                text::size(receipt.bytes_copied),
                text::duration(seconds),
                text::rate(receipt.bytes_copied, seconds),
                receipt.objects_found,
                text::size(receipt.bytes_found),
            )?;
            writeln!(out, "{}", if receipt.ok { "ok" } else { "not ok" })?;
        }
        Ok(())
    })
}
