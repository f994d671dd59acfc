//! Scoped threads inside one call: a queue of jobs for writing, numbered items for reading.
//!
//! With one thread nothing is started: jobs run on the caller's thread when they are handed in.

use crate::error::{Error, Result};
use crate::repository::environment::Control;
use crate::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, Receiver, Sender, bounded, spawn, thread};

/// A job: runs once, on any thread, with that thread's worker state.
pub(crate) type Job<'scope, W> = Box<dyn FnOnce(&mut W) -> Result<()> + Send + 'scope>;

/// Where jobs are handed in. The first error stops everything: later jobs are dropped unrun.
pub(crate) struct Queue<'scope, 'q, W> {
    failure: &'q Failure,
    control: &'q Control,
    target: Target<'scope, 'q, W>,
}

enum Target<'scope, 'q, W> {
    Threads(Sender<Job<'scope, W>>),
    Inline(&'q Mutex<W>),
}

impl<'scope, W> Queue<'scope, '_, W> {
    /// Hands in a job; waits while the queue is full.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`]; the error of an earlier job is reported by [`with_queue`], and here only as
    /// a reason to stop handing in.
    pub(crate) fn submit(&self, job: Job<'scope, W>) -> Result<()> {
        self.control.cancel().check()?;
        if self.failure.has_failed() {
            return Err(Error::Cancelled);
        }
        match &self.target {
            Target::Threads(sender) => sender.send(job).map_err(|_| Error::Cancelled),
            Target::Inline(worker) => {
                let mut worker = lock(worker)?;
                job(&mut worker)
            }
        }
    }
}

/// The first error of any thread.
#[derive(Default)]
pub(crate) struct Failure {
    failed: AtomicBool,
    first: Mutex<Option<Error>>,
}

impl Failure {
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn record(&self, error: Error) {
        if let Ok(mut first) = self.first.lock() {
            first.get_or_insert(error);
        }
        self.failed.store(true, Ordering::Release);
    }

    fn take(&self) -> Option<Error> {
        self.first.lock().map_or(Some(POISONED), |mut first| first.take())
    }
}

/// A lock whose holder panicked. Nothing in this crate panics by design, so this is a defect.
pub(crate) const POISONED: Error = Error::Internal("a worker thread panicked");

/// Takes a lock; one whose holder panicked is an error.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    mutex.lock().map_err(|_| POISONED)
}

/// Runs `produce`, which hands jobs to a queue served by `threads` workers, and waits for all of them.
///
/// # Errors
///
/// The first error of any job, else that of `produce`.
pub(crate) fn with_queue<'env, W: Send, T>(
    control: &Control,
    depth: usize,
    make_worker: &(dyn Fn() -> Result<W> + Sync),
    produce: impl for<'q> FnOnce(&Queue<'env, 'q, W>) -> Result<T>,
) -> Result<T> {
    let failure = Failure::default();
    if control.threads() <= 1 {
        let worker = Mutex::new(make_worker()?);
        return produce(&Queue { failure: &failure, control, target: Target::Inline(&worker) });
    }
    let (sender, receiver) = bounded::<Job<'env, W>>(depth.max(1));
    let produced = thread::scope(|scope| {
        let failure = &failure;
        let started = start(scope, control.threads(), || {
            let receiver = receiver.clone();
            move || serve(receiver, failure, control, make_worker)
        });
        drop(receiver);
        if started == 0 {
            let worker = Mutex::new(make_worker()?);
            return produce(&Queue { failure, control, target: Target::Inline(&worker) });
        }
        // The queue, and with it the sender, ends here; the workers then run dry and the scope joins them.
        produce(&Queue { failure, control, target: Target::Threads(sender) })
    });
    match failure.take() {
        Some(error) => Err(error),
        None => {
            control.cancel().check()?;
            produced
        }
    }
}

/// Runs jobs until the queue ends.
fn serve<W>(
    receiver: Receiver<Job<'_, W>>,
    failure: &Failure,
    control: &Control,
    make_worker: &(dyn Fn() -> Result<W> + Sync),
) {
    match make_worker() {
        Ok(mut worker) => {
            for job in receiver {
                if failure.has_failed() || control.cancel().is_cancelled() {
                    failure.failed.store(true, Ordering::Release);
                    continue;
                }
                if let Err(error) = job(&mut worker) {
                    failure.record(error);
                }
            }
        }
        Err(error) => {
            failure.record(error);
            // Keep receiving, so that nobody waits for a full queue.
            receiver.into_iter().for_each(drop);
        }
    }
}

/// Starts up to `count` threads and returns how many the system granted: there may be no more of them, and what
/// is to be done can be done by fewer.
pub(crate) fn start<'scope, F: FnOnce() + Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    count: usize,
    work: impl Fn() -> F,
) -> usize {
    (0..count).take_while(|_| spawn(scope, work())).count()
}

/// Runs `work` for every number below `count`, in ascending order of start, on the threads of `control`.
///
/// # Errors
///
/// The first error; later items are then not started.
pub(crate) fn for_each<W>(
    control: &Control,
    count: usize,
    make_worker: &(dyn Fn() -> Result<W> + Sync),
    work: &(dyn Fn(&mut W, usize) -> Result<()> + Sync),
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failure = Failure::default();
    let run = || {
        let mut worker = match make_worker() {
            Ok(worker) => worker,
            Err(error) => return failure.record(error),
        };
        loop {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= count || failure.has_failed() {
                return;
            }
            if let Err(error) = control.cancel().check().and_then(|()| work(&mut worker, item)) {
                return failure.record(error);
            }
        }
    };
    let threads = control.threads().min(count);
    if threads <= 1 {
        run();
    } else {
        thread::scope(|scope| {
            start(scope, threads.saturating_sub(1), || run);
            run();
        });
    }
    failure.take().map_or(Ok(()), Err)
}

/// [`for_each`] without workers, as a value.
pub(crate) fn each(control: &Control) -> impl Fn(usize, &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<()> {
    |count, work| for_each(control, count, &|| Ok(()), &|(), number| work(number))
}
