//! The file in which `--rotate-days` remembers what was covered.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use backup_core::repository::VerificationLedger;

use crate::exit::Failure;
use crate::output::file;

/// Larger ones are none: this is enough for two million packs.
const LIMIT: u64 = 256 << 20;

/// The ledger, empty where there is no file yet.
pub(crate) fn read(path: &Path) -> Result<VerificationLedger, Failure> {
    let failed = |error| Failure::io(format!("cannot read ledger {}", path.display()), error);
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(LIMIT.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LIMIT {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {LIMIT} bytes")));
        }
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(VerificationLedger::default()),
        Err(error) => Err(failed(error)),
    }
}

/// Replaces the file as a whole, so that a crash leaves the old or the new one.
pub(crate) fn write(path: &Path, ledger: &VerificationLedger) -> Result<(), Failure> {
    file::replace(path, "ledger", ledger)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_ledger_is_kept_and_a_broken_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let ledger = read(&path).unwrap();
        write(&path, &ledger).unwrap();
        read(&path).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        fs::write(&path, "{").unwrap();
        assert!(read(&path).is_err());
        assert!(write(&directory.path().join("missing/ledger"), &ledger).is_err());
    }
}
