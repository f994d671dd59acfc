//! What a scrub found and did.

use serde::Serialize;

use crate::storage::Key;

/// Findings that are listed.
const LISTED: usize = 1000;

/// The result of a scrub.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct ScrubReport {
    /// Whether everything is there and as it was stored, perhaps after repairs.
    pub ok: bool,
    /// Objects that were read.
    pub objects_checked: u64,
    /// Their bytes.
    pub bytes_checked: u64,
    /// Objects that were damaged or missing, at most the first 1000.
    pub findings: Vec<ScrubFinding>,
    /// Findings that are not listed.
    pub findings_omitted: u64,
    /// Objects that were repaired.
    pub repaired: u64,
    /// Objects that could not be.
    pub unrepaired: u64,
    /// Objects that parity protects.
    pub protected: u64,
    /// Objects that no parity protects.
    pub unprotected: u64,
    /// Parity objects that are there and whole.
    pub parity_objects: u64,
    /// Their bytes.
    pub parity_bytes: u64,
    /// Parity objects that are damaged: they protect nothing, and nothing else is lost with them.
    pub parity_damaged: u64,
    /// Parity objects that were made.
    pub parity_added: u64,
    /// Parity objects that were replaced by others, or were damaged, and removed.
    pub parity_removed: u64,
}

/// An object that was damaged or missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ScrubFinding {
    /// Its storage key.
    pub object: String,
    /// What was wrong with it.
    pub problem: String,
    /// Whether it is now as it was stored.
    pub repaired: bool,
    /// Why it could not be repaired.
    pub reason: Option<String>,
}

impl ScrubReport {
    /// Adds a finding; `outcome` is why it could not be repaired, if it could not.
    pub(crate) fn add(&mut self, object: &Key, problem: &str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.repaired = self.repaired.saturating_add(1),
            Err(_) => self.unrepaired = self.unrepaired.saturating_add(1),
        }
        if self.findings.len() < LISTED {
            self.findings.push(ScrubFinding {
                object: object.to_string(),
                problem: problem.to_owned(),
                repaired: outcome.is_ok(),
                reason: outcome.err(),
            });
        } else {
            self.findings_omitted = self.findings_omitted.saturating_add(1);
        }
    }
}
