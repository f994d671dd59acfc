//! The coordination of threads in every interleaving, or in many: the files of the engine that do it, compiled with
//! primitives that let a scheduler choose what runs next (`shuttle`). A deadlock is a failure like a wrong result.
//!
//! `BACKUP_INTERLEAVINGS=100000 cargo test --release -p backup-core --test interleavings` explores more.
#![allow(dead_code, reason = "files of the engine, of which the tests use a part")]
#![expect(
    clippy::disallowed_methods,
    reason = "the rule that the core reads no files and no environment is not for its tests"
)]

/// As `src/sync.rs`, but scheduled.
mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    pub(crate) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
    pub(crate) use shuttle::thread;

    pub(crate) type Sender<T> = mpsc::SyncSender<T>;

    /// Several may receive, as with `crossbeam-channel`.
    pub(crate) struct Receiver<T>(Arc<Mutex<mpsc::Receiver<T>>>);

    pub(crate) fn spawn<'scope>(scope: &'scope thread::Scope<'scope, '_>, work: impl FnOnce() + Send + 'scope) -> bool {
        scope.spawn(work);
        true
    }

    pub(crate) fn bounded<T>(depth: usize) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = mpsc::sync_channel(depth);
        (sender, Receiver(Arc::new(Mutex::new(receiver))))
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            Self(Arc::clone(&self.0))
        }
    }

    impl<T> Iterator for Receiver<T> {
        type Item = T;

        fn next(&mut self) -> Option<T> {
            self.0.lock().unwrap().recv().ok()
        }
    }
}

mod error {
    pub(crate) use backup_core::{Error, Result};
}

mod progress {
    pub(crate) use backup_core::progress::CancelToken;
}

/// Contents as far as the assembler knows them: a stream is the list of what was pushed.
mod content {
    use crate::error::Result;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct ChunkRef(pub(crate) u64);

    impl ChunkRef {
        pub(crate) fn length(&self) -> u64 {
            1
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct PageRef(pub(crate) u64);

    /// Leaves of an image, or one of a stream.
    #[derive(Debug, PartialEq, Eq)]
    pub(crate) struct Content(pub(crate) Vec<Vec<u64>>);

    pub(crate) trait PageStore: Sync {}

    pub(crate) struct StreamContentBuilder<'p>(Vec<u64>, std::marker::PhantomData<&'p dyn PageStore>);

    impl<'p> StreamContentBuilder<'p> {
        pub(crate) fn new(_: &'p dyn PageStore) -> Self {
            Self(Vec::new(), std::marker::PhantomData)
        }

        pub(crate) fn push(&mut self, reference: ChunkRef) -> Result<()> {
            self.0.push(reference.0);
            Ok(())
        }

        pub(crate) fn finish(self) -> Result<Content> {
            Ok(Content(vec![self.0]))
        }
    }

    pub(crate) struct ImageContentBuilder<'p>(Vec<Vec<u64>>, std::marker::PhantomData<&'p dyn PageStore>);

    impl<'p> ImageContentBuilder<'p> {
        pub(crate) fn new(_: &'p dyn PageStore) -> Self {
            Self(Vec::new(), std::marker::PhantomData)
        }

        pub(crate) fn push_leaf(&mut self, leaf: Vec<ChunkRef>) -> Result<()> {
            self.0.push(leaf.into_iter().map(|reference| reference.0).collect());
            Ok(())
        }

        pub(crate) fn push_hole_leaves(&mut self, _: u64, count: u64) -> Result<()> {
            self.0.extend((0..count).map(|_| Vec::new()));
            Ok(())
        }

        pub(crate) fn push_existing_leaf(&mut self, page: PageRef, _: u64) -> Result<()> {
            self.0.push(vec![page.0]);
            Ok(())
        }

        pub(crate) fn finish(self) -> Result<Content> {
            Ok(Content(self.0))
        }
    }
}

#[path = "../src/repository/read/ahead.rs"]
mod ahead;
#[path = "../src/repository/write/assembler.rs"]
mod assembler;
#[path = "../src/repository/write/gate.rs"]
mod gate;
#[path = "../src/repository/parallel.rs"]
mod parallel;

mod repository {
    pub(crate) use crate::parallel;

    /// What the queue asks of a control.
    pub(crate) mod environment {
        use crate::progress::CancelToken;

        #[derive(Default)]
        pub(crate) struct Control {
            pub(crate) threads: usize,
            pub(crate) cancel: CancelToken,
        }

        impl Control {
            pub(crate) fn threads(&self) -> usize {
                self.threads
            }

            pub(crate) fn cancel(&self) -> &CancelToken {
                &self.cancel
            }
        }
    }
}

use std::sync::atomic::{AtomicU64, Ordering};

use ahead::Ahead;
use assembler::{Assembler, Piece};
use backup_core::progress::CancelToken;
use backup_core::{Error, ErrorKind, Result};
use content::{ChunkRef, Content, PageRef, PageStore};
use parallel::{Queue, for_each, with_queue};
use repository::environment::Control;
use shuttle::thread;

/// Every interleaving, up to `most` of them.
fn every(most: usize, test: impl Fn() + Send + Sync + 'static) {
    let most = if most_by_caller() > 0 { most_by_caller() } else { most };
    shuttle::check_dfs(test, Some(most));
}

/// Random interleavings, the same at every run, and those with few forced changes of threads, which find most defects.
fn many(test: impl Fn() + Send + Sync + Clone + 'static) {
    let count = most_by_caller().max(200);
    let run = |scheduler: Box<dyn shuttle::scheduler::Scheduler + Send>| {
        shuttle::Runner::new(scheduler, shuttle::Config::default()).run(test.clone());
    };
    run(Box::new(shuttle::scheduler::RandomScheduler::new_from_seed(7, count)));
    run(Box::new(shuttle::scheduler::PctScheduler::new_from_seed(7, 3, count)));
}

fn most_by_caller() -> usize {
    std::env::var("BACKUP_INTERLEAVINGS").map_or(0, |text| text.parse().expect("a number"))
}

fn control(threads: usize) -> Control {
    Control { threads, cancel: CancelToken::new() }
}

/// Takes everything that `threads` threads make of `items`, in order, up to the first error; stops after `wanted`.
fn take_ahead(
    threads: usize,
    most: u64,
    items: Vec<Result<u64>>,
    failing: Option<u64>,
    wanted: usize,
) -> Vec<Result<u64>> {
    let in_memory = AtomicU64::new(0);
    let ahead = Ahead::new(items.into_iter(), most);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                ahead.work(
                    |items| items.next().transpose(),
                    |item| {
                        // What is being made and what waits stays bounded: one for each thread, and `most`.
                        assert!(in_memory.fetch_add(1, Ordering::SeqCst) < most + threads as u64);
                        thread::yield_now();
                        if failing == Some(item) { Err(Error::Internal("made")) } else { Ok(item * 10) }
                    },
                );
            });
        }
        let _stop = ahead.stop_when_dropped();
        let mut taken = Vec::new();
        while taken.len() < wanted {
            match ahead.take() {
                Ok(None) => break,
                Ok(Some(result)) => taken.push(Ok(result)),
                Err(error) => {
                    taken.push(Err(error));
                    break;
                }
            }
            in_memory.fetch_sub(1, Ordering::SeqCst);
        }
        taken
    })
}

fn in_order(results: &[Result<u64>]) -> Vec<Option<u64>> {
    results.iter().map(|result| result.as_ref().ok().copied()).collect()
}

fn numbers(count: u64) -> Vec<Result<u64>> {
    (0..count).map(Ok).collect()
}

#[test]
fn results_made_ahead_come_in_order() {
    every(20_000, || {
        let taken = take_ahead(2, 1, numbers(2), None, usize::MAX);
        assert_eq!(in_order(&taken), [Some(0), Some(10)]);
    });
    many(|| {
        for (threads, most, count) in [(1, 1, 3), (2, 2, 5), (3, 2, 6), (3, 1, 4), (2, 3, 0)] {
            let taken = take_ahead(threads, most, numbers(count), None, usize::MAX);
            assert_eq!(in_order(&taken), (0..count).map(|item| Some(item * 10)).collect::<Vec<_>>());
        }
    });
}

#[test]
fn errors_made_ahead_stand_in_their_place_and_end_all_threads() {
    many(|| {
        let mut items = numbers(3);
        items.push(Err(Error::Internal("source")));
        items.extend(numbers(2));
        let taken = take_ahead(2, 2, items, None, usize::MAX);
        assert_eq!(in_order(&taken), [Some(0), Some(10), Some(20), None]);
        let taken = take_ahead(3, 2, numbers(6), Some(1), usize::MAX);
        assert_eq!(in_order(&taken), [Some(0), None]);
    });
}

#[test]
fn who_stops_early_waits_for_nobody() {
    every(20_000, || {
        assert_eq!(in_order(&take_ahead(2, 1, numbers(3), None, 1)), [Some(0)]);
    });
    many(|| {
        for wanted in 0..4 {
            assert_eq!(take_ahead(3, 2, numbers(5), None, wanted).len(), wanted);
        }
    });
}

/// Hands in `count` jobs; job `failing` fails. What ran, and what came of it.
fn run_queue(
    threads: usize,
    depth: usize,
    count: u64,
    failing: Option<u64>,
    cancel_at: Option<u64>,
) -> (u64, Result<()>) {
    let ran = AtomicU64::new(0);
    let control = control(threads);
    let result = with_queue(&control, depth, &|| Ok(()), |queue: &Queue<'_, '_, ()>| {
        for number in 0..count {
            if cancel_at == Some(number) {
                control.cancel.cancel();
            }
            let ran = &ran;
            queue.submit(Box::new(move |()| {
                thread::yield_now();
                if failing == Some(number) {
                    return Err(Error::Internal("job"));
                }
                ran.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }))?;
        }
        Ok(())
    });
    (ran.into_inner(), result)
}

#[test]
fn every_job_of_a_queue_runs_or_its_error_is_returned() {
    every(20_000, || {
        let (ran, result) = run_queue(2, 1, 2, None, None);
        assert_eq!((ran, result.is_ok()), (2, true));
    });
    every(20_000, || {
        let (ran, result) = run_queue(2, 1, 2, Some(0), None);
        assert!(ran <= 1);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Internal);
    });
    many(|| {
        for (threads, depth, count) in [(2, 1, 5), (3, 2, 6), (2, 4, 3), (1, 1, 3)] {
            let (ran, result) = run_queue(threads, depth, count, None, None);
            assert_eq!((ran, result.is_ok()), (count, true));
            for failing in 0..count {
                // Never success after a job that failed, whatever the others do meanwhile.
                let (ran, result) = run_queue(threads, depth, count, Some(failing), None);
                assert!(ran < count);
                assert_eq!(result.unwrap_err().kind(), ErrorKind::Internal);
            }
            let (_, result) = run_queue(threads, depth, count, None, Some(1));
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
        }
    });
}

#[test]
fn a_queue_whose_workers_cannot_begin_does_not_hang() {
    many(|| {
        let result = with_queue(&control(2), 1, &|| Err::<(), _>(Error::Internal("worker")), |queue| {
            for _ in 0..5 {
                queue.submit(Box::new(|()| Ok(())))?;
            }
            Ok(())
        });
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Internal);
        // One of them can: the jobs run or an error comes, never success without the jobs.
        let (started, ran) = (AtomicU64::new(0), AtomicU64::new(0));
        let first_fails = || {
            if started.fetch_add(1, Ordering::SeqCst) == 0 { Err(Error::Internal("worker")) } else { Ok(()) }
        };
        let result = with_queue(&control(2), 1, &first_fails, |queue| {
            for _ in 0..5 {
                let ran = &ran;
                queue.submit(Box::new(move |()| {
                    ran.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                }))?;
            }
            Ok(())
        });
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Internal);
    });
}

#[test]
fn numbered_items_are_worked_on_once() {
    let run = |threads: usize, count: usize, failing: Option<usize>| {
        let done: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
        let result = for_each(&control(threads), count, &|| Ok(()), &|(), item| {
            thread::yield_now();
            done[item].fetch_add(1, Ordering::SeqCst);
            if failing == Some(item) { Err(Error::Internal("item")) } else { Ok(()) }
        });
        let done: Vec<u64> = done.into_iter().map(AtomicU64::into_inner).collect();
        assert!(done.iter().all(|times| *times <= 1));
        assert_eq!(result.is_err(), failing.is_some());
        assert!(failing.is_some() || done.iter().all(|times| *times == 1));
    };
    every(20_000, move || run(2, 2, None));
    every(20_000, move || run(2, 2, Some(0)));
    many(move || {
        for failing in [None, Some(0), Some(2), Some(4)] {
            run(3, 5, failing);
        }
    });
}

struct NoPages;

impl PageStore for NoPages {}

/// Pieces arrive in any order, from any thread, the end somewhere between them: the content is there exactly once, in
/// order.
#[test]
fn pieces_of_a_content_meet_in_order() {
    fn run(assembler: &Assembler<'_>, pieces: Vec<(u64, Piece)>, total: u64) -> Content {
        let contents = thread::scope(|scope| {
            let threads: Vec<_> = pieces
                .into_iter()
                .map(|(number, piece)| scope.spawn(move || assembler.take(number, piece).unwrap()))
                .collect();
            let mut contents: Vec<Content> = assembler.end(total).unwrap().into_iter().collect();
            contents.extend(threads.into_iter().filter_map(|thread| thread.join().unwrap()));
            contents
        });
        let [content] = <[Content; 1]>::try_from(contents).expect("a content is complete once");
        content
    }
    let refs = |numbers: &[u64]| Piece::Refs(numbers.iter().map(|number| ChunkRef(*number)).collect());
    every(50_000, move || {
        let content = run(&Assembler::stream(&NoPages), vec![(0, refs(&[1, 2])), (1, refs(&[3]))], 2);
        assert_eq!(content, Content(vec![vec![1, 2, 3]]));
    });
    many(move || {
        let pieces = vec![(3, refs(&[6])), (0, refs(&[1])), (2, refs(&[4, 5])), (1, refs(&[2, 3]))];
        let content = run(&Assembler::stream(&NoPages), pieces, 4);
        assert_eq!(content, Content(vec![vec![1, 2, 3, 4, 5, 6]]));
        let pieces = vec![(1, Piece::Leaf(PageRef(70), 2)), (0, refs(&[1, 2])), (2, refs(&[3]))];
        let content = run(&Assembler::image(&NoPages, 2), pieces, 3);
        assert_eq!(content, Content(vec![vec![1, 2], vec![70], vec![3]]));
        let empty = run(&Assembler::stream(&NoPages), Vec::new(), 0);
        assert_eq!(empty, Content(vec![vec![]]));
    });
}

#[test]
fn no_more_than_the_gate_allows_are_inside_and_all_get_in() {
    let enter = |threads: usize, most: usize| {
        let (gate, inside, entered) = (gate::Gate::new(most), AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..2 {
                        let _pass = gate.enter().unwrap();
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < most as u64);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        entered.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(entered.into_inner(), 2 * threads as u64);
    };
    every(20_000, move || enter(2, 1));
    many(move || [(3, 1), (3, 2), (4, 3), (2, 4)].into_iter().for_each(|(threads, most)| enter(threads, most)));
}
