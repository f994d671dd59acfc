//! A storage that fails when it is told to: for tests of everything that must survive failures.

use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::storage::{Capabilities, Key, ListPage, ObjectInfo, PutMode, Storage, StorageError};

/// What happens to one operation of a [`FaultStorage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// It is carried out.
    None,
    /// It fails and nothing is done.
    FailBefore,
    /// It is carried out and yet reported as failed: the answer was lost.
    FailAfter,
    /// The process dies before it: this operation and every later one fail, nothing more is done.
    CrashBefore,
    /// The process dies directly behind it: it is carried out, reported as failed, and every later
    /// operation fails.
    CrashAfter,
    /// A put stores only the first `keep` bytes, then the process dies. What no [`Storage`] may do;
    /// it models a medium that broke its promise. For other operations the same as
    /// [`CrashBefore`](Self::CrashBefore).
    Tear {
        /// Bytes that are stored.
        keep: usize,
    },
}

/// The method of [`Storage`] that was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named as the methods of Storage are")]
pub enum OperationKind {
    Put,
    Get,
    GetRange,
    Stat,
    List,
    Delete,
}

impl OperationKind {
    /// Whether it can change what is stored.
    #[must_use]
    pub const fn is_change(self) -> bool {
        matches!(self, Self::Put | Self::Delete)
    }
}

/// One call of a [`FaultStorage`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operation {
    /// Calls before this one.
    pub number: u64,
    /// Puts and deletes before this one.
    pub changes_before: u64,
    /// The method.
    pub kind: OperationKind,
    /// The key, or the prefix of a listing.
    pub key: String,
    /// The mode of a put.
    pub mode: Option<PutMode>,
    /// What was done to it.
    pub fault: Fault,
}

/// Wraps a [`Storage`] and lets a script decide about every operation.
///
/// The script is asked once for each operation, one at a time, in the order in which they are
/// numbered; the operations themselves run in parallel as their callers do.
///
/// ```
/// use backup_core::storage::fault::{Fault, FaultStorage};
/// use backup_core::storage::{Key, MemoryStorage, PutMode, Storage};
///
/// let storage = FaultStorage::crash_at_change(MemoryStorage::new(), 1, Fault::CrashAfter);
/// let (a, b) = (Key::new("a").unwrap(), Key::new("b").unwrap());
/// assert!(storage.put(&a, "1".into(), PutMode::Create).is_ok());
/// assert!(storage.put(&b, "2".into(), PutMode::Create).is_err());
/// assert!(storage.get(&a, 100).is_err(), "the process is dead");
/// let survivors = storage.into_inner();
/// assert!(survivors.get(&b, 100).is_ok(), "but the second put had been carried out");
/// ```
pub struct FaultStorage<S> {
    inner: S,
    state: Mutex<State>,
}

struct State {
    script: Box<dyn FnMut(&Operation) -> Fault + Send>,
    error: fn(&Operation) -> StorageError,
    log: Vec<Operation>,
    changes: u64,
    crashed: bool,
}

impl<S: Storage> FaultStorage<S> {
    /// `inner` without faults: counts and logs.
    pub fn new(inner: S) -> Self {
        Self::with_script(inner, |_| Fault::None)
    }

    /// `script` decides about every operation; its [`Operation::fault`] is still [`Fault::None`] then.
    pub fn with_script(inner: S, script: impl FnMut(&Operation) -> Fault + Send + 'static) -> Self {
        let state = State {
            script: Box::new(script),
            error: |_| StorageError::Transient("injected fault".into()),
            log: Vec::new(),
            changes: 0,
            crashed: false,
        };
        Self { inner, state: Mutex::new(state) }
    }

    /// `fault` happens to the operation with this number (counted from 0).
    pub fn at(inner: S, number: u64, fault: Fault) -> Self {
        Self::with_script(inner, move |operation| if operation.number == number { fault } else { Fault::None })
    }

    /// `fault` happens to the put or delete with this number (counted from 0, other calls left out):
    /// to try every state that a crash can leave behind.
    pub fn crash_at_change(inner: S, number: u64, fault: Fault) -> Self {
        Self::with_script(inner, move |operation| {
            if operation.kind.is_change() && operation.changes_before == number { fault } else { Fault::None }
        })
    }

    /// The error of operations that fail; [`StorageError::Transient`] by default.
    #[must_use]
    pub fn with_error(self, error: fn(&Operation) -> StorageError) -> Self {
        self.state().error = error;
        self
    }

    /// Replaces the script and revives a crashed storage. Numbers go on.
    pub fn set_script(&self, script: impl FnMut(&Operation) -> Fault + Send + 'static) {
        let mut state = self.state();
        state.script = Box::new(script);
        state.crashed = false;
    }

    /// Every operation so far, those of the dead included.
    pub fn log(&self) -> Vec<Operation> {
        self.state().log.clone()
    }

    /// Number of operations so far.
    pub fn operations(&self) -> u64 {
        crate::length::to_u64(self.state().log.len())
    }

    /// Number of puts and deletes so far.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Whether the process died.
    pub fn is_crashed(&self) -> bool {
        self.state().crashed
    }

    /// The storage behind the faults.
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// The storage behind the faults: what the next process finds.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the script, then carries out `run` or not. `tear` stands in for `run` in [`Fault::Tear`].
    fn operate<T>(
        &self,
        kind: OperationKind,
        key: &str,
        mode: Option<PutMode>,
        run: impl FnOnce() -> Result<T, StorageError>,
        tear: impl FnOnce(usize),
    ) -> Result<T, StorageError> {
        let (operation, error) = self.decide(kind, key, mode);
        match operation.fault {
            Fault::None => return run(),
            Fault::FailBefore => {}
            // What became of it is not told: an error of the operation itself is lost with the answer.
            Fault::FailAfter => drop(run()),
            Fault::CrashBefore => return Err(crashed()),
            Fault::CrashAfter => {
                drop(run());
                return Err(crashed());
            }
            Fault::Tear { keep } => {
                tear(keep);
                return Err(crashed());
            }
        }
        Err(error(&operation))
    }

    fn decide(
        &self,
        kind: OperationKind,
        key: &str,
        mode: Option<PutMode>,
    ) -> (Operation, fn(&Operation) -> StorageError) {
        let mut state = self.state();
        let number = crate::length::to_u64(state.log.len());
        let mut operation =
            Operation { number, changes_before: state.changes, kind, key: key.to_owned(), mode, fault: Fault::None };
        operation.fault = if state.crashed { Fault::CrashBefore } else { (state.script)(&operation) };
        state.crashed |= matches!(operation.fault, Fault::CrashBefore | Fault::CrashAfter | Fault::Tear { .. });
        state.changes = state.changes.saturating_add(u64::from(kind.is_change()));
        state.log.push(operation.clone());
        (operation, state.error)
    }
}

fn crashed() -> StorageError {
    StorageError::Other("injected crash: the process is dead".into())
}

impl<S: Storage> Storage for FaultStorage<S> {
    fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        let torn = bytes.clone();
        self.operate(
            OperationKind::Put,
            key.as_str(),
            Some(mode),
            || self.inner.put(key, bytes, mode),
            |keep| drop(self.inner.put(key, torn.slice(..keep.min(torn.len())), mode)),
        )
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        self.operate(OperationKind::Get, key.as_str(), None, || self.inner.get(key, limit), |_| ())
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.operate(OperationKind::GetRange, key.as_str(), None, || self.inner.get_range(key, range), |_| ())
    }

    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
        self.operate(OperationKind::Stat, key.as_str(), None, || self.inner.stat(key), |_| ())
    }

    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        self.operate(OperationKind::List, prefix, None, || self.inner.list(prefix, after), |_| ())
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.operate(OperationKind::Delete, key.as_str(), None, || self.inner.delete(key), |_| ())
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

impl<S: fmt::Debug> fmt::Debug for FaultStorage<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultStorage").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{MemoryStorage, conformance};

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn put(storage: &dyn Storage, name: &str) -> Result<(), StorageError> {
        storage.put(&key(name), Bytes::from_static(b"content"), PutMode::Create)
    }

    #[test]
    fn without_faults_it_conforms() {
        conformance::run(&|| Box::new(FaultStorage::new(MemoryStorage::new().with_page_size(3)))).unwrap();
    }

    #[test]
    fn every_fault_leaves_what_it_says() {
        // (fault, bytes of "b" afterwards, whether later operations work)
        for (fault, stored, alive) in [
            (Fault::None, Some(7), true),
            (Fault::FailBefore, None, true),
            (Fault::FailAfter, Some(7), true),
            (Fault::CrashBefore, None, false),
            (Fault::CrashAfter, Some(7), false),
            (Fault::Tear { keep: 3 }, Some(3), false),
            (Fault::Tear { keep: 99 }, Some(7), false),
        ] {
            let storage = FaultStorage::at(MemoryStorage::new(), 1, fault);
            put(&storage, "a").unwrap();
            assert_eq!(put(&storage, "b").is_ok(), fault == Fault::None, "{fault:?}");
            assert_eq!(put(&storage, "c").is_ok(), alive, "{fault:?}");
            assert_eq!(storage.is_crashed(), !alive, "{fault:?}");
            let left = storage.into_inner();
            assert_eq!(left.stat(&key("b")).ok().map(|info| info.size), stored, "{fault:?}");
            assert_eq!(left.stat(&key("c")).is_ok(), alive, "{fault:?}");
        }
    }

    #[test]
    fn counts_changes_apart_and_logs_everything() {
        let storage = FaultStorage::crash_at_change(MemoryStorage::new(), 1, Fault::CrashBefore);
        put(&storage, "a").unwrap();
        storage.get(&key("a"), 100).unwrap();
        storage.list("x", None).unwrap();
        assert!(storage.delete(&key("a")).is_err());
        assert!(storage.stat(&key("a")).is_err());
        let log: Vec<_> =
            storage.log().into_iter().map(|operation| (operation.kind, operation.key, operation.fault)).collect();
        assert_eq!(
            log,
            [
                (OperationKind::Put, "a".to_owned(), Fault::None),
                (OperationKind::Get, "a".to_owned(), Fault::None),
                (OperationKind::List, "x".to_owned(), Fault::None),
                (OperationKind::Delete, "a".to_owned(), Fault::CrashBefore),
                (OperationKind::Stat, "a".to_owned(), Fault::CrashBefore),
            ]
        );
        assert_eq!((storage.operations(), storage.changes()), (5, 2));
        storage.set_script(|_| Fault::None);
        assert!(storage.stat(&key("a")).is_ok());
    }

    #[test]
    fn the_error_can_be_chosen() {
        let storage = FaultStorage::at(MemoryStorage::new(), 0, Fault::FailBefore)
            .with_error(|_| StorageError::Full("no space".into()));
        assert!(matches!(put(&storage, "a"), Err(StorageError::Full(_))));
    }
}
