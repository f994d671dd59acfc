//! Forgetting backups and collecting garbage: what the maintenance key does (`docs/format.md`, "Collections and
//! forgetting").
//!
//! By id, backups are forgotten and whole packs are collected by a [`LockedRepository`] and a
//! [`MaintenanceKey`](crate::keys::MaintenanceKey), without the password. A [`Repository`] has that key in its keyring; it can apply a
//! [`RetentionPolicy`], which has to know what a backup is, and writes index segments anew without what is gone.
//!
//! Everything may be stopped or die at any moment and be started again.
//!
//! [`LockedRepository`]: crate::repository::LockedRepository
//! [`Repository`]: crate::repository::Repository

mod collect;
mod forget;
mod indexes;
mod options;
mod plan;
mod record;
mod repack;
mod retention;
mod site;
mod survey;
mod sweep;

pub use self::forget::ForgetReport;
pub use self::options::{CollectOptions, OpenSessions};
pub use self::plan::{CollectionPlan, CollectionReport, CollectionState, OpenSession, PackAmount};
pub use self::repack::{RepackOptions, RepackPlan, RepackReport, RepackedBackup};
pub use self::retention::{ForgetGroup, ForgetPlan, Grouping, KeepReason, PlannedBackup, RetentionPolicy};
