//! Lets a number of threads in at once; the others wait.

use crate::error::Result;
use crate::repository::parallel::POISONED;
use crate::sync::{Condvar, Mutex};

/// How many may still enter.
pub(crate) struct Gate {
    free: Mutex<usize>,
    left: Condvar,
}

/// Whoever has it is inside.
pub(crate) struct Pass<'g>(&'g Gate);

impl Gate {
    /// A gate for `most` at once, at least 1.
    pub(crate) fn new(most: usize) -> Self {
        Self { free: Mutex::new(most.max(1)), left: Condvar::new() }
    }

    /// Waits until there is room.
    pub(crate) fn enter(&self) -> Result<Pass<'_>> {
        let mut free = self.free.lock().map_err(|_| POISONED)?;
        while *free == 0 {
            free = self.left.wait(free).map_err(|_| POISONED)?;
        }
        *free = free.saturating_sub(1);
        Ok(Pass(self))
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Ok(mut free) = self.0.free.lock() {
            *free = free.saturating_add(1);
        }
        self.0.left.notify_one();
    }
}
