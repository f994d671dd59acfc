//! `backup key`

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use backup_core::id::SlotId;
use backup_core::keys::{DamagedSlot, KeySlotKind};
use backup_core::repository::{LockedRepository, UnlockOptions};
use serde_json::json;

use crate::arguments::{Derivation, KeyAdd, KeyCommand, NewPassword, is_slot_prefix};
use crate::commands::init::derivation;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::interrupt;
use crate::output::text;
use crate::password::Unlock;

pub(crate) fn run(context: &Context<'_>, command: &KeyCommand) -> Result<Exit, Failure> {
    match command {
        KeyCommand::Add(arguments) => add(context, arguments),
        KeyCommand::Remove { slot, force } => remove(context, slot, *force),
        KeyCommand::List => list(context),
        KeyCommand::Change { new, derivation } => change(context, new, derivation),
        KeyCommand::Rotate => rotate(context),
        KeyCommand::Recovery { label, to } => recovery(context, label, to.as_deref()),
        KeyCommand::ExportMaintenance { to } => export_maintenance(context, to.as_deref()),
    }?;
    Ok(Exit::Fine)
}

fn add(context: &Context<'_>, arguments: &KeyAdd) -> Result<(), Failure> {
    let parameters = derivation(&arguments.derivation)?;
    let repository = context.repository()?;
    let new = Unlock::new(&arguments.new, context.output)?;
    let slot = repository.add_password(&new.credential(), &arguments.label, parameters)?;
    show_slot(context, "added", &slot)
}

fn remove(context: &Context<'_>, prefix: &str, force: bool) -> Result<(), Failure> {
    let repository = context.repository()?;
    let readable: Vec<SlotId> = repository.key_slots()?.into_iter().map(|slot| slot.id).collect();
    let damaged = repository.damaged_key_slots()?.into_iter().map(|slot| slot.id);
    let slot = find_slot(readable.iter().copied().chain(damaged), prefix)?;
    // The last one is refused in any case.
    if slot == repository.opened_by() && readable.len() > 1 && !force {
        return Err(Failure::usage(format!(
            "key slot {slot} is the one that was opened with what you gave, which would open nothing any more: \
             give another password or recovery key to remove it, replace it with `backup key change`, or use --force"
        )));
    }
    repository.remove_slot(&slot)?;
    show_slot(context, "removed", &slot)
}

fn list(context: &Context<'_>) -> Result<(), Failure> {
    let repository = context.locked()?;
    let (slots, damaged) = (repository.key_slots()?, repository.damaged_key_slots()?);
    let opened_by = opened_by(context, repository);
    if context.output.is_json() {
        let damaged: Vec<SlotId> = damaged.iter().map(|slot| slot.id).collect();
        return context.output.json(&json!({"slots": slots, "damaged": damaged, "opened_by": opened_by}));
    }
    let mut rows: Vec<Vec<String>> = slots
        .iter()
        .map(|slot| {
            let kind = match slot.kind {
                KeySlotKind::Password => "password",
                KeySlotKind::RecoveryKey => "recovery-key",
                _ => "unknown",
            };
            let mark = if opened_by == Some(slot.id) { "*" } else { "" };
            vec![mark.to_owned(), slot.id.to_string(), kind.to_owned(), text::clean(&slot.label)]
        })
        .collect();
    let lost = |slot: &DamagedSlot| vec![String::new(), slot.id.to_string(), "damaged".to_owned(), String::new()];
    rows.extend(damaged.iter().map(lost));
    context.output.text(|out| {
        text::table(out, &["", "SLOT", "KIND", "LABEL"], &rows)?;
        match opened_by {
            Some(_) if context.output.has_summaries() => writeln!(out, "* opens with what was given"),
            _ => Ok(()),
        }
    })
}

/// The slot that a password or recovery key opens which was given and need not be asked for. The list does not depend on it.
fn opened_by(context: &Context<'_>, repository: LockedRepository) -> Option<SlotId> {
    let given = Unlock::given(context.global, context.output);
    let opened = given.and_then(|given| match given {
        Some(given) => {
            let _waiting = interrupt::while_deriving();
            Ok(Some(repository.unlock(&given.credential(), &UnlockOptions::default())?.opened_by()))
        }
        None => Ok(None),
    });
    opened.unwrap_or_else(|failure| {
        context.output.warning(&format!("no slot is marked: {}", failure.chain().join(": ")));
        None
    })
}

fn change(context: &Context<'_>, new: &NewPassword, arguments: &Derivation) -> Result<(), Failure> {
    if context.global.recovery_key_file.is_some() {
        return Err(Failure::usage(
            "a recovery key is not changed: use `key add` for a new password and `key remove` for the old one",
        ));
    }
    let parameters = derivation(arguments)?;
    let (repository, old) = context.unlocked()?;
    let new = Unlock::new(new, context.output)?;
    let slot = repository.change_password(&old.credential(), &new.credential(), parameters)?;
    show_slot(context, "changed to", &slot)
}

fn rotate(context: &Context<'_>) -> Result<(), Failure> {
    let generation = context.repository()?.rotate_root_key()?;
    if context.output.is_json() {
        return context.output.json(&json!({"root_key_generation": generation}));
    }
    if context.output.has_summaries() {
        context.output.text(|out| writeln!(out, "root key is now of generation {generation}"))?;
    }
    Ok(())
}

fn recovery(context: &Context<'_>, label: &str, to: Option<&Path>) -> Result<(), Failure> {
    let repository = context.repository()?;
    // The file comes first: a recovery key that cannot be written down must not exist.
    let what = "recovery key file";
    let file =
        to.map(|path| new_private_file(path).map_err(|error| cannot_write(what, path, error)).map(|file| (path, file)));
    let file = file.transpose()?;
    let added = repository.add_recovery_key(label).and_then(|(slot, key)| Ok((slot, key.to_text()?)));
    let (slot, shown) = added.inspect_err(|_| forget_file(to))?;
    let written = match file {
        Some((path, file)) => write_key(file, &shown).map_err(|error| cannot_write(what, path, error)),
        None if context.output.is_json() => context.output.json(&json!({"slot": slot, "recovery_key": shown.as_str()})),
        None => context.output.text(|out| writeln!(out, "{}", shown.as_str())),
    };
    if let Err(failure) = written {
        forget_file(to);
        repository.remove_slot(&slot)?;
        return Err(failure);
    }
    if to.is_some() { show_slot(context, "added", &slot) } else { Ok(()) }
}

fn export_maintenance(context: &Context<'_>, to: Option<&Path>) -> Result<(), Failure> {
    let key = context.repository()?.maintenance_key()?.to_text()?;
    match to {
        Some(path) => {
            let failed = |error| cannot_write("maintenance key file", path, error);
            let file = new_private_file(path).map_err(failed)?;
            write_key(file, &key).map_err(failed).inspect_err(|_| forget_file(to))?;
            if context.output.is_json() {
                return context.output.json(&json!({"file": path.to_string_lossy()}));
            }
            if context.output.has_summaries() {
                context.output.text(|out| writeln!(out, "wrote the maintenance key to {}", path.display()))?;
            }
            Ok(())
        }
        None if context.output.is_json() => context.output.json(&json!({"maintenance_key": key.as_str()})),
        None => context.output.text(|out| writeln!(out, "{}", key.as_str())),
    }
}

fn write_key(mut file: std::fs::File, text: &str) -> std::io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// A file that was made for a recovery key that does not exist keeps the next attempt from making its own.
fn forget_file(path: Option<&Path>) {
    // Where it cannot be removed, the next attempt says that it exists.
    drop(path.map(std::fs::remove_file));
}

fn new_private_file(path: &Path) -> std::io::Result<std::fs::File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn cannot_write(what: &str, path: &Path, error: std::io::Error) -> Failure {
    Failure::io(format!("cannot write {what} {}", path.display()), error)
}

fn find_slot(slots: impl Iterator<Item = SlotId>, prefix: &str) -> Result<SlotId, Failure> {
    if !is_slot_prefix(prefix) {
        return Err(Failure::usage(format!("not the id of a key slot: {prefix:?}")));
    }
    let mut matching = slots.filter(|id| id.to_string().starts_with(prefix));
    match (matching.next(), matching.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(backup_core::Error::NotFound { what: "key slot", name: prefix.to_owned() }.into()),
        (Some(_), Some(_)) => Err(Failure::usage(format!("several key slots begin with {prefix}"))),
    }
}

fn show_slot(context: &Context<'_>, verb: &str, slot: &SlotId) -> Result<(), Failure> {
    if context.output.is_json() {
        return context.output.json(&json!({"slot": slot}));
    }
    if context.output.has_summaries() {
        context.output.text(|out| writeln!(out, "{verb} key slot {slot}"))?;
    }
    Ok(())
}
