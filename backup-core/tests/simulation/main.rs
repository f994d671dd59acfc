//! The real engine in worlds that a seed makes: several processes take turns at every operation of the storage, sleep,
//! die, lose answers; puts arrive twice or late. What was acknowledged restores exactly until it is forgotten; what was
//! not is absent or whole.
//!
//! `SIMULATION_SEED=17 cargo test -p backup-core --all-features --test simulation -- --nocapture` repeats one world,
//! `SIMULATION_SEEDS=100000` tries so many (`scripts/campaign.sh simulation`).
#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "the rule that the core prints nothing and reads no environment is not for its tests"
)]

mod actors;
mod collector;
mod oracle;
mod scheduler;
#[path = "../support/mod.rs"]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};

use backup_core::repository::Repository;
use backup_core::storage::{Key, MemoryStorage};

use collector::Omission;
use oracle::Oracle;
use scheduler::{Events, Numbers, Scheduler, Weather};
use support::{init_with, memory, open, small_options};

/// What came of one world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Run {
    events: Events,
    acknowledged: u64,
    forgotten: u64,
    /// New commits of backups whose packs were replaced.
    repacked: u64,
    /// Backups at the end.
    shown: u64,
    /// Collections that ended, by a final or an abort.
    ended: u64,
}

fn base() -> MemoryStorage {
    static BASE: OnceLock<MemoryStorage> = OnceLock::new();
    let made = || {
        let storage = memory();
        // One pack a backup: what others share of it is a part.
        init_with(storage.clone(), &small_options().with_pack_target(256 << 10), 1).unwrap();
        (*storage).clone()
    };
    BASE.get_or_init(made).clone()
}

fn weather(numbers: &mut Numbers) -> Weather {
    let mut often = |most: usize| if numbers.once_in(2) { 0 } else { most / (1 + numbers.below(8)) };
    let (sleeps, crashes, fails, repeats) = (often(400), often(1600), often(800), often(200));
    Weather { sleeps, crashes, fails, repeats, sticks: numbers.below(8) }
}

/// The world of a seed.
fn run(seed: u64, omission: Omission) -> Run {
    let mut numbers = Numbers::new(seed);
    let storage = Arc::new(base());
    let oracle = Oracle::default();
    let weather = weather(&mut numbers);
    let (writers, readers, maintainers) = (1 + numbers.below(3), numbers.below(2), numbers.below(3));
    let steady = writers..writers + readers;
    let scheduler = Scheduler::new(storage.clone(), writers + readers + maintainers, steady, weather, numbers);
    // Signs, and takes no part.
    let signer: Repository = open(storage.clone(), 99).unwrap();
    let outcome = std::thread::scope(|scope| {
        let (oracle, signer, scheduler) = (&oracle, &signer, &scheduler);
        let actors: Vec<_> = (0..writers + readers + maintainers)
            .map(|actor| {
                scope.spawn(move || {
                    let running = scheduler.enter(actor);
                    if actor < writers {
                        actors::writer(&running, oracle, actor);
                    } else if actor < writers + readers {
                        actors::reader(&running, oracle, actor);
                    } else {
                        actors::maintainer(&running, oracle, signer, actor, omission);
                    }
                })
            })
            .collect();
        actors.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Result<Vec<()>, _>>()
    });
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
    let events = scheduler.settle();
    let shown = actors::check(&open(storage.clone(), 98).unwrap(), &oracle);
    let ended = storage.snapshot().keys().filter(|key| is_decision(key)).count() as u64;
    Run {
        events,
        acknowledged: oracle.acknowledged_count(),
        forgotten: oracle.forgotten_count(),
        repacked: oracle.repacked_count(),
        shown,
        ended,
    }
}

fn is_decision(key: &Key) -> bool {
    key.as_str().starts_with("collections/") && key.as_str().ends_with("/outcome")
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// A world, and its seed where something is wrong in it.
fn run_named(seed: u64) -> Run {
    catch_unwind(AssertUnwindSafe(|| run(seed, Omission::Nothing))).unwrap_or_else(|panic| {
        println!("the world of SIMULATION_SEED={seed} broke a promise");
        resume_unwind(panic)
    })
}

#[test]
fn what_was_acknowledged_restores_until_it_is_forgotten() {
    if let Some(seed) = number_of("SIMULATION_SEED") {
        println!("{:#?}", run_named(seed));
        return;
    }
    let seeds = number_of("SIMULATION_SEEDS").unwrap_or(2000);
    let mut all = Run::default();
    for seed in 0..seeds {
        let run = run_named(seed);
        all.events.operations += run.events.operations;
        all.events.switches += run.events.switches;
        all.events.sleeps += run.events.sleeps;
        all.events.crashes += run.events.crashes;
        all.events.failures += run.events.failures;
        all.events.late_puts += run.events.late_puts;
        all.acknowledged += run.acknowledged;
        all.forgotten += run.forgotten;
        all.repacked += run.repacked;
        all.shown += run.shown;
        all.ended += run.ended;
    }
    println!("{seeds} worlds: {all:#?}");
    let events = all.events;
    let counts =
        [events.sleeps, events.crashes, events.failures, events.late_puts, all.forgotten, all.repacked, all.ended];
    assert!(counts.iter().all(|count| *count > seeds / 10), "something hardly happens: {all:#?}");
}

#[test]
fn a_seed_makes_the_same_world_again() {
    for seed in 0..20 {
        assert_eq!(run_named(seed), run_named(seed), "SIMULATION_SEED={seed}");
    }
}

/// The simulation notices what it is there for.
#[test]
fn a_collector_that_leaves_out_a_step_is_noticed() {
    if number_of("SIMULATION_SEED").is_some() {
        return;
    }
    // Two collectors at one collection are rare: not from the first world on.
    let fence = [(Omission::Fence, 1000)];
    let others = [Omission::Settling, Omission::SecondLook, Omission::Checkpoint];
    for (omission, first) in others.map(|omission| (omission, 0)).into_iter().chain(fence) {
        let is_noticed = |seed: &u64| catch_unwind(AssertUnwindSafe(|| run(*seed, omission))).is_err();
        let noticed = (first..first + 2000).find(is_noticed);
        println!("without {omission:?}: noticed in world {noticed:?}");
        assert!(noticed.is_some(), "without {omission:?}: not noticed");
    }
}
