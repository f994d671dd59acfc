//! What is done to the storage operations of a process, one at a time.

use std::sync::Arc;

use backup_core::storage::MemoryStorage;
use backup_core::storage::fault::{Fault, FaultStorage, Operation};

use super::is_full_campaign;

/// All that can become of an operation. What only reads can fail in one way, or find its process dead.
pub fn faults_of(operation: &Operation) -> Vec<Fault> {
    let mut faults = vec![Fault::FailBefore, Fault::CrashBefore];
    if operation.kind.is_change() {
        faults.extend([Fault::CrashAfter, Fault::FailAfter]);
    }
    faults
}

/// A process that meets a fault, in words, and the storage that makes it.
pub type Run = (String, Arc<FaultStorage<MemoryStorage>>);

/// The faults of a process of which `log` is what it does undisturbed, from `storage` on: of changes all four, of what only reads that
/// it fails. An ordinary run has a share of them, which differs from operation to operation.
pub fn faulty_runs<'r>(log: &'r [Operation], storage: &'r MemoryStorage) -> impl Iterator<Item = Run> + 'r {
    let is_full = is_full_campaign();
    log.iter().enumerate().flat_map(move |(number, operation)| {
        let faults: &[Fault] = match operation.kind.is_change() {
            true => &[Fault::CrashBefore, Fault::CrashAfter, Fault::FailBefore, Fault::FailAfter],
            false if is_full || number % 4 == 0 => &[Fault::FailBefore],
            false => &[],
        };
        let is_due = move |which: usize| is_full || !operation.kind.is_change() || (number + which).is_multiple_of(3);
        faults.iter().enumerate().filter(move |(which, _)| is_due(*which)).map(move |(_, fault)| {
            let what = format!("{fault:?} at {number}: {:?} {}", operation.kind, operation.key);
            (what, Arc::new(FaultStorage::at(storage.clone(), number as u64, *fault)))
        })
    })
}
