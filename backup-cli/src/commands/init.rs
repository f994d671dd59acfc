//! `backup init`

use backup_core::crypto::Argon2Parameters;
use backup_core::repository::{InitOptions, Repository};
use serde_json::json;

use crate::arguments::{Derivation, Init};
use crate::context::{Context, environment};
use crate::exit::{Exit, Failure};
use crate::output::text;
use crate::password::Unlock;

pub(crate) fn run(context: &Context<'_>, arguments: &Init) -> Result<Exit, Failure> {
    let options = options(arguments)?;
    let storage = context.new_storage()?;
    let unlock = Unlock::initial(context.global, context.output)?;
    let repository = Repository::init(storage, &unlock.credential(), &options, environment())?;
    let id = repository.id();
    if context.output.is_json() {
        context.output.json(&json!({"repository": id}))?;
    } else if context.output.has_summaries() {
        context.output.text(|out| {
            writeln!(out, "created repository {id}")?;
            writeln!(out, "without its password nobody can read it; `backup key recovery` makes a second way in")
        })?;
    }
    Ok(Exit::Fine)
}

fn options(arguments: &Init) -> Result<InitOptions, Failure> {
    let mut options = InitOptions::default();
    options.slot_label.clone_from(&arguments.slot_label);
    options.single_writer = arguments.single_writer;
    options.argon2 = derivation(&arguments.derivation)?;
    options.compression_level = arguments.compression;
    options.pack_target = match arguments.pack_size {
        Some(size) => Some(u32::try_from(size).map_err(|_| Failure::usage("--pack-size is too large"))?),
        None => None,
    };
    Ok(options)
}

/// What guessing costs, by the options.
pub(crate) fn derivation(arguments: &Derivation) -> Result<Argon2Parameters, Failure> {
    let mut parameters = Argon2Parameters::default();
    if let Some(bytes) = arguments.kdf_memory {
        parameters.memory_kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
    }
    if let Some(iterations) = arguments.kdf_iterations {
        parameters.iterations = iterations;
    }
    let memory = |kib: u32| text::size(u64::from(kib) << 10);
    let (least, most) = (Argon2Parameters::FLOOR_KIB, Argon2Parameters::MAX_MEMORY_KIB);
    if !(least..=most).contains(&parameters.memory_kib) {
        return Err(Failure::usage(format!(
            "--kdf-memory is {}, and must be from {} to {}",
            text::size(arguments.kdf_memory.unwrap_or(0)),
            memory(least),
            memory(most)
        )));
    }
    let work = u64::from(parameters.memory_kib) * u64::from(parameters.iterations);
    if work > Argon2Parameters::MAX_WORK_KIB {
        return Err(Failure::usage(format!(
            "--kdf-memory times --kdf-iterations is {} times {}, and must be at most {}",
            memory(parameters.memory_kib),
            parameters.iterations,
            text::size(Argon2Parameters::MAX_WORK_KIB << 10)
        )));
    }
    Ok(parameters)
}
