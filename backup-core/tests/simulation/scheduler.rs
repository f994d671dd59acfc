//! Who takes the next step: one operation of the storage at a time, chosen by a seed.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use backup_core::storage::{Capabilities, Key, ListPage, MemoryStorage, ObjectInfo, PutMode, Storage, StorageError};
use bytes::Bytes;

/// Numbers that a seed makes (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True once in so many times; never for 0.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        times > 0 && self.below(times) == 0
    }
}

/// How often something happens at an operation: once in so many, 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// The actor goes on with another step only after many steps of others.
    pub(crate) sleeps: usize,
    /// The actor dies, before or behind the operation.
    pub(crate) crashes: usize,
    /// The operation fails, before or behind its effect.
    pub(crate) fails: usize,
    /// A put arrives once more later; one that failed before its effect arrives late.
    pub(crate) repeats: usize,
    /// The same actor goes on, this many times out of 8.
    pub(crate) sticks: usize,
}

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Events {
    pub(crate) operations: u64,
    pub(crate) switches: u64,
    pub(crate) sleeps: u64,
    pub(crate) crashes: u64,
    pub(crate) failures: u64,
    pub(crate) late_puts: u64,
    /// Of every operation, in order: two runs of a seed have the same.
    pub(crate) trace: u64,
}

struct State {
    numbers: Numbers,
    turn: Option<usize>,
    actors: Vec<Actor>,
    late: Vec<(Key, Bytes)>,
    events: Events,
}

#[derive(Clone, Copy, Default)]
struct Actor {
    has_entered: bool,
    has_ended: bool,
    is_dead: bool,
    /// Its own storage always answers.
    is_steady: bool,
    sleeps_until: u64,
}

/// Lets one of several actors run at a time.
pub(crate) struct Scheduler {
    state: Mutex<State>,
    turned: Condvar,
    storage: Arc<MemoryStorage>,
    weather: Weather,
    /// Whether every operation is printed (`SIMULATION_TRACE`).
    is_traced: bool,
}

/// What becomes of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    FailsBefore,
    FailsAfter,
}

impl Scheduler {
    /// `steady` are the actors whose storage always answers.
    pub(crate) fn new(
        storage: Arc<MemoryStorage>,
        actors: usize,
        steady: Range<usize>,
        weather: Weather,
        numbers: Numbers,
    ) -> Arc<Self> {
        let actor = |number| Actor { is_steady: steady.contains(&number), ..Actor::default() };
        let actors = (0..actors).map(actor).collect();
        let state = State { numbers, turn: None, actors, late: Vec::new(), events: Events::default() };
        let is_traced = std::env::var_os("SIMULATION_TRACE").is_some();
        Arc::new(Self { state: Mutex::new(state), turned: Condvar::new(), storage, weather, is_traced })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // An actor whose assertion failed ends the run; the others may come to their ends.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// An actor is here and waits for its first turn. It leaves with the guard.
    pub(crate) fn enter(self: &Arc<Self>, actor: usize) -> Running {
        let mut state = self.lock();
        state.actors[actor].has_entered = true;
        if state.actors.iter().all(|actor| actor.has_entered) {
            state.choose(None, self.weather);
            self.turned.notify_all();
        }
        drop(self.wait(state, actor));
        Running { scheduler: Arc::clone(self), actor }
    }

    fn wait<'s>(&self, mut state: MutexGuard<'s, State>, actor: usize) -> MutexGuard<'s, State>
    where
        Self: 's,
    {
        while state.turn != Some(actor) {
            state = self.turned.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        state
    }

    /// Another actor may come first; then what becomes of this operation.
    fn step(&self, actor: usize, put: Option<(&Key, &Bytes)>, name: &str) -> Result<Fate, StorageError> {
        let mut state = self.lock();
        if self.weather.sleeps > 0 && state.numbers.once_in(self.weather.sleeps) {
            let length = 10 << state.numbers.below(6);
            state.actors[actor].sleeps_until = state.events.operations + length;
            state.events.sleeps += 1;
        }
        state.choose(Some(actor), self.weather);
        if state.turn != Some(actor) {
            state.events.switches += 1;
            self.turned.notify_all();
            state = self.wait(state, actor);
        }
        state.events.operations += 1;
        if self.is_traced {
            println!("{:6} actor {actor}: {name}", state.events.operations);
        }
        let mark = blake3::hash(&[&state.events.trace.to_le_bytes()[..], &[actor as u8], name.as_bytes()].concat());
        state.events.trace = u64::from_le_bytes(mark.as_bytes()[..8].try_into().unwrap());
        if !state.late.is_empty() && state.numbers.once_in(20) {
            let count = state.late.len();
            let at = state.numbers.below(count);
            let (key, bytes) = state.late.swap_remove(at);
            state.events.late_puts += 1;
            if self.is_traced {
                println!("       late put of {key}");
            }
            drop(self.storage.put(&key, bytes, PutMode::Create));
        }
        if state.actors[actor].is_dead {
            return Err(dead());
        }
        if state.actors[actor].is_steady {
            return Ok(Fate::Done);
        }
        let late = put.filter(|(key, _)| !key.as_str().starts_with("probes/"));
        if state.numbers.once_in(self.weather.crashes) {
            state.actors[actor].is_dead = true;
            state.events.crashes += 1;
            return Ok(if state.numbers.once_in(2) { Fate::FailsBefore } else { Fate::FailsAfter });
        }
        if state.numbers.once_in(self.weather.fails) {
            state.events.failures += 1;
            if state.numbers.once_in(2) {
                return Ok(Fate::FailsAfter);
            }
            if state.numbers.once_in(2) {
                state.late.extend(late.map(|(key, bytes)| (key.clone(), bytes.clone())));
            }
            return Ok(Fate::FailsBefore);
        }
        if state.numbers.once_in(self.weather.repeats) {
            state.late.extend(late.map(|(key, bytes)| (key.clone(), bytes.clone())));
        }
        Ok(Fate::Done)
    }

    /// All that is still under way arrives.
    pub(crate) fn settle(&self) -> Events {
        let mut state = self.lock();
        for (key, bytes) in std::mem::take(&mut state.late) {
            state.events.late_puts += 1;
            drop(self.storage.put(&key, bytes, PutMode::Create));
        }
        state.events
    }
}

impl State {
    fn choose(&mut self, current: Option<usize>, weather: Weather) {
        let now = self.events.operations;
        let ready = |state: &Self, awake: bool| -> Vec<usize> {
            let actors = state.actors.iter().enumerate();
            let fits = actors.filter(|(_, actor)| !actor.has_ended && (!awake || actor.sleeps_until <= now));
            fits.map(|(number, _)| number).collect()
        };
        let mut actors = ready(self, true);
        if actors.is_empty() {
            // All sleep: somebody wakes early.
            actors = ready(self, false);
        }
        if let Some(current) = current
            && actors.contains(&current)
            && self.numbers.below(8) < weather.sticks
        {
            self.turn = Some(current);
            return;
        }
        self.turn = if actors.is_empty() { None } else { Some(actors[self.numbers.below(actors.len())]) };
    }
}

/// An actor that takes part. Dropped, it leaves the others to themselves.
pub(crate) struct Running {
    scheduler: Arc<Scheduler>,
    actor: usize,
}

impl Running {
    /// The storage as this actor sees it. Gets of outcomes and bodies are no steps of their own: the engine makes them
    /// on several threads at once where its caller gives no `Control`, in an order that no seed decides.
    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        let scheduler = Arc::clone(&self.scheduler);
        Arc::new(Stepwise { scheduler, actor: self.actor })
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.scheduler.lock().actors[self.actor].is_dead
    }

    /// A number for the actor's own decisions.
    pub(crate) fn below(&self, end: usize) -> usize {
        self.scheduler.lock().numbers.below(end)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.scheduler.lock();
        state.actors[self.actor].has_ended = true;
        state.choose(None, self.scheduler.weather);
        drop(state);
        self.scheduler.turned.notify_all();
    }
}

struct Stepwise {
    scheduler: Arc<Scheduler>,
    actor: usize,
}

impl Stepwise {
    fn operate<T>(
        &self,
        name: &str,
        put: Option<(&Key, &Bytes)>,
        run: impl FnOnce(&MemoryStorage) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let storage = &*self.scheduler.storage;
        match self.scheduler.step(self.actor, put, name)? {
            Fate::Done => run(storage),
            Fate::FailsBefore => Err(lost()),
            Fate::FailsAfter => {
                drop(run(storage));
                Err(lost())
            }
        }
    }
}

fn lost() -> StorageError {
    StorageError::Transient("no answer".into())
}

fn dead() -> StorageError {
    StorageError::Other("the process is dead".into())
}

impl Storage for Stepwise {
    fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        let name = format!("put {key}");
        self.operate(&name, Some((key, &bytes.clone())), |storage| storage.put(key, bytes, mode))
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        if ["sessions/", "bodies/"].iter().any(|prefix| key.as_str().starts_with(prefix)) {
            return self.scheduler.storage.get(key, limit);
        }
        self.operate(&format!("get {key}"), None, |storage| storage.get(key, limit))
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.operate(&format!("get_range {key}"), None, |storage| storage.get_range(key, range))
    }

    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
        self.operate(&format!("stat {key}"), None, |storage| storage.stat(key))
    }

    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        self.operate(&format!("list {prefix}"), None, |storage| storage.list(prefix, after))
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.operate(&format!("delete {key}"), None, |storage| storage.delete(key))
    }

    fn capabilities(&self) -> Capabilities {
        self.scheduler.storage.capabilities()
    }
}
