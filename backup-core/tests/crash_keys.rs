//! Processes that die and storages that fail while keys are changed, at every single operation: whoever could open the
//! repository still can, and nothing of the backups is lost.

mod support;

use std::sync::Arc;

use backup_core::ErrorKind;
use backup_core::crypto::Argon2Parameters;
use backup_core::keys::{Credential, RecoveryKey};
use backup_core::repository::{Repository, VerifyLevel};
use backup_core::secret::Password;
use backup_core::storage::fault::{Fault, FaultStorage, Operation, OperationKind};
use backup_core::storage::{Key, MemoryStorage, Storage, StorageError, list_all};
use support::{PASSWORD, chain, control, environment, init_with, memory, noise, options, path, small_options, verify};

const NEW_PASSWORD: &str = "battery staple";

/// A change of keys. `Remove` removes the slot of the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    AddPassword,
    AddRecoveryKey,
    ChangePassword,
    Remove,
    Rotate,
}

const STEPS: [Step; 5] = [Step::AddPassword, Step::AddRecoveryKey, Step::ChangePassword, Step::Remove, Step::Rotate];

/// A repository with a password, a recovery key and a backup.
struct Base {
    storage: MemoryStorage,
    recovery: RecoveryKey,
}

fn content() -> Vec<u8> {
    noise(1, 100_000)
}

fn back_up(repository: &Repository) -> backup_core::Result<()> {
    let mut session = repository.begin(options(1))?;
    session.add_stream(path("data"), &mut content().as_slice())?;
    session.commit().map(drop)
}

fn restored(repository: &Repository) -> backup_core::Result<Vec<u8>> {
    let backup = repository.find_backup("latest")?;
    let mut out = Vec::new();
    repository.restore_stream(&repository.entry(&backup, &path("data"))?, &mut out, &control(1))?;
    Ok(out)
}

impl Base {
    fn new() -> Self {
        let storage = memory();
        let repository = init_with(storage.clone(), &small_options(), 1).unwrap();
        let (_, recovery) = repository.add_recovery_key("paper").unwrap();
        back_up(&repository).unwrap();
        Self { storage: (*storage).clone(), recovery }
    }

    /// Every process has randomness of its own.
    fn by_recovery_key(&self, storage: Arc<dyn Storage>, seed: u64) -> backup_core::Result<Repository> {
        Repository::open(storage, &Credential::RecoveryKey(&self.recovery), environment(seed))
    }

    /// What a process does: it opens the repository and takes the step.
    fn process(&self, storage: &Arc<dyn Storage>, step: Step) -> backup_core::Result<()> {
        take(&self.by_recovery_key(Arc::clone(storage), 5)?, step)
    }

    /// The operations of a step without faults.
    fn undisturbed(&self, step: Step) -> Vec<Operation> {
        let storage = Arc::new(FaultStorage::new(self.storage.clone()));
        let shared: Arc<dyn Storage> = storage.clone();
        self.process(&shared, step).unwrap();
        storage.log()
    }
}

fn by_password(storage: Arc<dyn Storage>, password: &str) -> backup_core::Result<Repository> {
    Repository::open(storage, &Credential::from(&Password::from(password)), environment(6))
}

fn take(repository: &Repository, step: Step) -> backup_core::Result<()> {
    let (old, new) = (Password::from(PASSWORD), Password::from(NEW_PASSWORD));
    let cheap = Argon2Parameters::minimum_for_tests();
    match step {
        Step::AddPassword => repository.add_password(&Credential::from(&new), "new", cheap).map(drop),
        Step::AddRecoveryKey => repository.add_recovery_key("more").map(drop),
        Step::ChangePassword => {
            repository.change_password(&Credential::from(&old), &Credential::from(&new), cheap).map(drop)
        }
        Step::Remove => {
            let slots = repository.key_slots()?;
            // It may have been removed by a try before.
            let Some(slot) = slots.iter().find(|slot| slot.argon2.is_some()) else { return Ok(()) };
            repository.remove_slot(&slot.id)
        }
        Step::Rotate => repository.rotate_root_key().map(drop),
    }
}

/// What holds after a step, however it ended.
fn check(base: &Base, storage: &MemoryStorage, step: Step, torn: Option<&str>, what: &str) {
    let storage: Arc<dyn Storage> = Arc::new(storage.clone());
    let by_recovery_key = base.by_recovery_key(Arc::clone(&storage), 7);
    if let Some(keyring) = torn.filter(|key| key.starts_with("keyring/")) {
        // No storage may do that. It is refused by name, never by going back to older keys.
        let error = by_recovery_key.unwrap_err();
        assert!(error.to_string().contains(keyring), "{what}: {error}");
        return;
    }
    let repository = by_recovery_key.unwrap_or_else(|error| panic!("{what}: {error}"));
    let old = by_password(Arc::clone(&storage), PASSWORD).is_ok();
    let new = by_password(Arc::clone(&storage), NEW_PASSWORD).is_ok();
    match step {
        Step::AddPassword | Step::AddRecoveryKey | Step::Rotate => assert!(old, "{what}: the old password is gone"),
        Step::ChangePassword => assert!(old || new, "{what}: neither password opens"),
        Step::Remove => {}
    }
    assert!(restored(&repository).unwrap() == content(), "{what}");
    let report = verify(&repository, VerifyLevel::Content).unwrap();
    assert_eq!(report.ok, torn.is_none(), "{what}: {:#?}", report.findings);
    assert!(report.findings.iter().all(|finding| Some(finding.object.as_str()) == torn), "{what}: {report:#?}");

    // The same again, and then a backup.
    let again = if step == Step::ChangePassword && !old { Step::Rotate } else { step };
    take(&repository, again).unwrap_or_else(|error| panic!("{what}: again: {error}"));
    let repository = base.by_recovery_key(Arc::clone(&storage), 8).unwrap();
    match step {
        Step::AddPassword | Step::ChangePassword => drop(by_password(Arc::clone(&storage), NEW_PASSWORD).unwrap()),
        Step::Remove => assert!(by_password(Arc::clone(&storage), PASSWORD).is_err(), "{what}"),
        Step::AddRecoveryKey | Step::Rotate => {}
    }
    if step == Step::ChangePassword {
        assert!(by_password(storage, PASSWORD).is_err(), "{what}: the old password still opens");
    }
    back_up(&repository).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(restored(&repository).unwrap() == content(), "{what}");
    assert_eq!(verify(&repository, VerifyLevel::Content).unwrap().ok, torn.is_none(), "{what}");
}

#[test]
fn a_crash_at_any_operation_shuts_nobody_out() {
    let base = Base::new();
    for step in STEPS {
        let log = base.undisturbed(step);
        assert!(log.iter().any(|operation| operation.kind.is_change()), "{step:?}");
        for operation in &log {
            let mut faults = vec![Fault::CrashBefore];
            if operation.kind.is_change() {
                faults.push(Fault::CrashAfter);
            }
            if operation.kind == OperationKind::Put {
                faults.extend([0, 100].map(|keep| Fault::Tear { keep }));
            }
            for fault in faults {
                let what = format!("{step:?}: {fault:?} at {:?} {}", operation.kind, operation.key);
                let storage = Arc::new(FaultStorage::at(base.storage.clone(), operation.number, fault));
                let shared: Arc<dyn Storage> = storage.clone();
                base.process(&shared, step).expect_err(&what);
                assert!(storage.is_crashed(), "{what}");
                let torn = matches!(fault, Fault::Tear { .. }).then(|| torn_key(&storage)).flatten();
                check(&base, storage.inner(), step, torn.as_deref(), &what);
            }
        }
    }
}

/// The key of the object that was torn. The names of slots differ from process to process.
fn torn_key(storage: &FaultStorage<MemoryStorage>) -> Option<String> {
    let log = storage.log();
    log.into_iter().find(|operation| matches!(operation.fault, Fault::Tear { .. })).map(|operation| operation.key)
}

#[test]
fn an_error_at_any_operation_names_the_object_and_shuts_nobody_out() {
    let base = Base::new();
    let errors: [fn(&Operation) -> StorageError; 2] =
        [|_| StorageError::Other("injected".into()), |_| StorageError::Full("injected".into())];
    for step in STEPS {
        for operation in &base.undisturbed(step) {
            for (error, fault) in
                errors.into_iter().flat_map(|error| [(error, Fault::FailBefore), (error, Fault::FailAfter)])
            {
                if fault == Fault::FailAfter && !operation.kind.is_change() {
                    continue;
                }
                let what = format!("{step:?}: {fault:?} at {:?} {}", operation.kind, operation.key);
                let storage =
                    Arc::new(FaultStorage::at(base.storage.clone(), operation.number, fault).with_error(error));
                let shared: Arc<dyn Storage> = storage.clone();
                match base.process(&shared, step) {
                    Err(error) => {
                        let key = storage.log()[operation.number as usize].key.clone();
                        assert!(chain(&error).contains(&key), "{what}: {}", chain(&error));
                        assert_eq!(error.kind(), ErrorKind::Storage, "{what}: {error}");
                    }
                    // A slot that cannot be read keeps no other from opening.
                    Ok(()) => {
                        assert!(operation.kind == OperationKind::Get && operation.key.starts_with("keys/"), "{what}");
                    }
                }
                check(&base, storage.inner(), step, None, &what);
            }
        }
    }
}

/// What is left of the first try is in nobody's way, and gone afterwards.
fn init_again(storage: &Arc<MemoryStorage>, what: &str) {
    let repository = init_with(storage.clone(), &small_options(), 3).unwrap_or_else(|error| panic!("{what}: {error}"));
    back_up(&repository).unwrap_or_else(|error| panic!("{what}: {error}"));
    let repository = by_password(storage.clone(), PASSWORD).unwrap();
    assert!(restored(&repository).unwrap() == content(), "{what}");
    assert!(verify(&repository, VerifyLevel::Content).unwrap().ok, "{what}");
    for prefix in ["keys/", "keyring/"] {
        assert_eq!(list_all(&**storage, prefix).unwrap().len(), 1, "{what}");
    }
}

#[test]
fn an_interrupted_init_leaves_no_repository_or_a_whole_one() {
    let counting = Arc::new(FaultStorage::new(MemoryStorage::new()));
    init_with(counting.clone(), &small_options(), 1).unwrap();
    for operation in counting.log() {
        let mut faults = vec![Fault::CrashBefore, Fault::FailBefore];
        if operation.kind == OperationKind::Put {
            faults.extend([Fault::CrashAfter, Fault::FailAfter, Fault::Tear { keep: 0 }, Fault::Tear { keep: 100 }]);
        }
        for fault in faults {
            let what = format!("{fault:?} at {:?} {}", operation.kind, operation.key);
            let storage = Arc::new(
                FaultStorage::at(MemoryStorage::new(), operation.number, fault)
                    .with_error(|_| StorageError::Other("injected".into())),
            );
            let tried = init_with(storage.clone(), &small_options(), 1);
            if fault == Fault::FailAfter && operation.key == "config" {
                // The answer was lost, and what was put is looked up.
                back_up(&tried.unwrap()).unwrap();
                continue;
            }
            let error = tried.expect_err(&what);
            let key = storage.log()[operation.number as usize].key.clone();
            assert!(chain(&error).contains(&key), "{what}: {}", chain(&error));
            let storage = Arc::new(storage.inner().clone());
            let config = storage.stat(&Key::new("config").unwrap()).is_ok();
            match by_password(storage.clone(), PASSWORD) {
                Ok(repository) => {
                    assert!(config, "{what}");
                    back_up(&repository).unwrap();
                    assert!(verify(&repository, VerifyLevel::Content).unwrap().ok, "{what}");
                }
                Err(error) if config => {
                    let torn = matches!(fault, Fault::Tear { .. }) && operation.key == "config";
                    assert!(torn && error.kind() == ErrorKind::Damaged, "{what}: {error}");
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NotFound, "{what}: {error}");
                    init_again(&storage, &what);
                }
            }
        }
    }
}
