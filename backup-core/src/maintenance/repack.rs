//! Repacking: the chunks of packs that are mostly dead are stored anew, and the backups that need them get new commits
//! (`docs/format.md`, "Repacking"). The old packs go with the next collection.
//!
//! A repacker is a writer: whatever interrupts it loses nothing, and what it stored and nobody names is collected.

mod choose;
mod live;
mod options;
mod replace;
mod rewrite;

use std::sync::Arc;

use crate::error::Result;
use crate::progress::Event;
use crate::repository::{Control, Problem, Repository};

pub use self::options::{RepackOptions, RepackPlan, RepackReport, RepackedBackup};

use self::choose::Choice;
use self::replace::Replacer;

impl Repository {
    /// What a repacking would do now. Nothing is changed. Every page of every backup is read once.
    ///
    /// Memory: a bit for each chunk and 40 bytes for each pack, on top of the index.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for options without sense; [`Error::Storage`](crate::Error::Storage),
    /// [`Error::Cancelled`](crate::Error::Cancelled). What is damaged is in the plan, not an error.
    pub fn plan_repack(&self, options: &RepackOptions, control: &Control) -> Result<RepackPlan> {
        Ok(Choice::make(&self.inner, options, control)?.plan)
    }

    /// Stores anew what backups need of packs that are mostly dead, and gives these backups new commits. Their earlier ids still
    /// find them. What became free is deleted by the next [`collect`](Self::collect).
    ///
    /// Backups can be made, forgotten and read meanwhile. A pack in which something that is needed cannot be read stays, and is
    /// named in the report. Memory: as [`plan_repack`](Self::plan_repack), and for each thread three packs.
    ///
    /// # Errors
    ///
    /// As [`plan_repack`](Self::plan_repack); [`Error::ReadOnly`](crate::Error::ReadOnly);
    /// [`Error::UnknownOutcome`](crate::Error::UnknownOutcome) where the storage does not say whether it took a commit. Backups that
    /// have their new commit by then keep it; all others are as they were. The next call does the rest.
    pub fn repack(&self, options: &RepackOptions, control: &Control) -> Result<RepackReport> {
        self.inner.check_writable()?;
        let choice = Choice::make(&self.inner, options, control)?;
        let mut report = RepackReport { problems: choice.plan.problems.clone(), ..RepackReport::default() };
        if choice.is_empty() {
            return Ok(report);
        }
        let result = Replacer::open(&self.inner, &choice, control).and_then(|replacer| replacer.run(&mut report));
        self.inner.forget_view();
        result.map(|()| report)
    }
}

/// Something that keeps a pack or a backup as it is.
fn problem(control: &Control, problems: &mut Vec<Problem>, name: &str, message: impl Into<String>) {
    let problem = Problem::new(name, message);
    control.event(&Event::Problem { name, message: &problem.message });
    problems.push(problem);
}

/// The parts of a handle that repacking uses.
type Shared = Arc<crate::repository::Inner>;
