//! Results that are kept in files.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::exit::Failure;

/// Replaces a file with `value` as JSON, as a whole, so that a crash leaves the old or the new one. `what` it is called
/// in errors.
pub(crate) fn replace<T: Serialize>(path: &Path, what: &str, value: &T) -> Result<(), Failure> {
    let failed = |error| Failure::io(format!("cannot write {what} {}", path.display()), error);
    let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let write = || {
        let mut file = File::create_new(&new)?;
        serde_json::to_writer(&file, value)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|error| {
        // What is left over is in nobody's way and named by its process.
        let _ = fs::remove_file(&new);
        failed(error)
    })
}
