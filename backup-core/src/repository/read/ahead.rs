//! Results that several threads make ahead of one that takes them in order.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::repository::parallel::POISONED;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Items of a source, made into results by any number of threads ([`work`](Self::work)) and taken in the order of the
/// source by one ([`take`](Self::take)).
pub(crate) struct Ahead<S, T> {
    source: Mutex<Numbered<S>>,
    state: Mutex<State<T>>,
    changed: Condvar,
    /// How many results may be there that nobody has taken.
    most: u64,
}

/// A source, and the number of its next item.
struct Numbered<S> {
    source: S,
    number: u64,
}

struct State<T> {
    results: BTreeMap<u64, Result<T>>,
    /// The result that is taken next.
    next: u64,
    /// How many results there are, once known.
    total: Option<u64>,
    stopped: bool,
}

impl<S, T> Ahead<S, T> {
    /// At most `most` results (at least one) wait to be taken.
    pub(crate) fn new(source: S, most: u64) -> Self {
        let state = State { results: BTreeMap::new(), next: 0, total: None, stopped: false };
        let source = Mutex::new(Numbered { source, number: 0 });
        Self { source, state: Mutex::new(state), changed: Condvar::new(), most: most.max(1) }
    }

    /// Works until the source ends, fails, or nobody wants results any more. Runs on every thread that helps. `next`
    /// gives the next item, one thread at a time; `make` makes the result of it.
    pub(crate) fn work<I>(&self, next: impl Fn(&mut S) -> Result<Option<I>>, mut make: impl FnMut(I) -> Result<T>) {
        loop {
            let Ok(mut source) = self.source.lock() else { return };
            let number = source.number;
            if !self.wait_until_wanted(number) {
                return;
            }
            // Whatever happens from here on, whoever waits for this result gets one.
            let mut promise = Promise { ahead: self, number, is_last: true, result: Some(Err(POISONED)) };
            let item = next(&mut source.source);
            source.number = number.saturating_add(1);
            // The end of the source, or an error that stands where the item would: either is the last thing. It must be
            // known before another thread asks for the next item.
            promise.is_last = !matches!(item, Ok(Some(_)));
            if promise.is_last {
                promise.result = item.err().map(Err);
                drop(promise);
                return;
            }
            drop(source);
            if let Ok(Some(item)) = item {
                promise.result = Some(make(item));
            }
        }
    }

    /// The next result; `None` behind the last. Waits for it.
    ///
    /// # Errors
    ///
    /// That of the source or of making the result; what follows has no meaning.
    pub(crate) fn take(&self) -> Result<Option<T>> {
        let mut state = self.lock()?;
        loop {
            let next = state.next;
            if let Some(result) = state.results.remove(&next) {
                state.next = next.saturating_add(1);
                drop(state);
                self.changed.notify_all();
                return result.map(Some);
            }
            if state.total.is_some_and(|total| next >= total) {
                return Ok(None);
            }
            state = self.changed.wait(state).map_err(|_| POISONED)?;
        }
    }

    /// Nobody takes any more while and after the guard is dropped: threads that work end.
    pub(crate) fn stop_when_dropped(&self) -> StopGuard<'_, S, T> {
        StopGuard(self)
    }

    /// Waits until result `number` is near enough to what is taken. `false` where it will not be taken.
    fn wait_until_wanted(&self, number: u64) -> bool {
        let Ok(mut state) = self.lock() else { return false };
        loop {
            if state.stopped || state.total.is_some() {
                return false;
            }
            if number < state.next.saturating_add(self.most) {
                return true;
            }
            let Ok(waited) = self.changed.wait(state) else { return false };
            state = waited;
        }
    }

    fn lock(&self) -> Result<MutexGuard<'_, State<T>>> {
        self.state.lock().map_err(|_| POISONED)
    }
}

/// A result that was announced: it is there when this is dropped, also where making it panicked, so that nobody waits
/// for it in vain.
struct Promise<'a, S, T> {
    ahead: &'a Ahead<S, T>,
    number: u64,
    /// The source has no item behind this one.
    is_last: bool,
    /// `None` where the source ended before.
    result: Option<Result<T>>,
}

impl<S, T> Drop for Promise<'_, S, T> {
    fn drop(&mut self) {
        if let Ok(mut state) = self.ahead.lock() {
            if self.is_last {
                let results = u64::from(self.result.is_some());
                state.total = Some(self.number.saturating_add(results));
            }
            if let Some(result) = self.result.take() {
                state.results.insert(self.number, result);
            }
        }
        self.ahead.changed.notify_all();
    }
}

/// See [`Ahead::stop_when_dropped`].
pub(crate) struct StopGuard<'a, S, T>(&'a Ahead<S, T>);

impl<S, T> Drop for StopGuard<'_, S, T> {
    fn drop(&mut self) {
        if let Ok(mut state) = self.0.lock() {
            state.stopped = true;
        }
        self.0.changed.notify_all();
    }
}
