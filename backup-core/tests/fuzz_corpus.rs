//! Replays what the fuzzer has found worth keeping (`tests/corpus`), so that every run of the tests has the coverage of
//! the long campaigns: `docs/testing.md`, "Fuzzing".
//!
//! `BACKUP_CORPUS=seed cargo test -p backup-core --test fuzz_corpus` adds the objects of the golden repository.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "the rule that the core reads no files and no environment and prints nothing is not for its tests"
)]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};

use backup_core::testing::fuzz::PROPERTIES;
use support::mutation;

/// The largest piece of memory that a parser may ask for, whatever few bytes say: a chunk of 16 MiB, doubled while it
/// grows.
const LARGEST_ALLOCATION: usize = 33 << 20;

/// The system's allocator, which remembers the largest request of each thread.
struct Watching;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    // Threads that are ending have no such variable any more.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target)
}

fn replay(target: &str, property: fn(&[u8])) {
    let directory = corpus(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus for {target}");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        LARGEST.set(0);
        if let Err(panic) = std::panic::catch_unwind(|| property(&bytes)) {
            eprintln!("{} breaks the property {target}", file.display());
            std::panic::resume_unwind(panic);
        }
        let largest = LARGEST.get();
        assert!(largest <= LARGEST_ALLOCATION, "{} asks for {largest} bytes at once", file.display());
    }
}

#[test]
fn properties_hold_for_the_corpus() {
    for (target, property) in PROPERTIES {
        replay(target, property);
    }
}

#[test]
fn changed_repositories_do_no_harm() {
    replay("repository", mutation::repository);
}

/// Properties hold for what a fuzzer tries first.
#[test]
fn properties_hold_for_trivial_inputs() {
    for (target, property) in PROPERTIES {
        for length in [0, 1, 2, 3, 15, 16, 17, 127, 128, 129, 255, 256, 257, 5000] {
            for fill in [0x00, 0x01, 0x02, 0x03, 0x41, 0x7f, 0x80, 0xff] {
                let bytes = vec![fill; length];
                if std::panic::catch_unwind(|| property(&bytes)).is_err() {
                    panic!("{length} times {fill:#04x} breaks the property {target}");
                }
            }
        }
    }
}

#[test]
fn seeds_can_be_made() {
    let seeds = mutation::seeds();
    for (target, property) in PROPERTIES {
        assert!(seeds.iter().any(|(of, _)| *of == target), "no seed for {target}");
        seeds.iter().filter(|(of, _)| *of == target).for_each(|(_, bytes)| property(bytes));
    }
    if std::env::var_os("BACKUP_CORPUS").is_some_and(|value| value == "seed") {
        for (target, bytes) in seeds {
            std::fs::create_dir_all(corpus(target)).unwrap();
            let name = blake3::hash(&bytes).to_string()[..16].to_owned();
            std::fs::write(corpus(target).join(name), bytes).unwrap();
        }
    }
}

/// A few random changes to every file of the corpus, the same at every run. `BACKUP_FUZZ_ROUNDS` makes more of them: a
/// poor man's campaign where no fuzzer can be had.
#[test]
fn properties_hold_for_changes_of_the_corpus() {
    let rounds: u64 = std::env::var("BACKUP_FUZZ_ROUNDS").map_or(3, |text| text.parse().expect("a number"));
    let repository: (&str, fn(&[u8])) = ("repository", mutation::repository);
    for (target, property) in PROPERTIES.into_iter().chain([repository]) {
        let mut files: Vec<_> = std::fs::read_dir(corpus(target))
            .unwrap()
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect();
        files.sort();
        for (number, file) in (0u64..).zip(&files) {
            for round in 0..rounds {
                let bytes = changed(file, &files, number * 1_000_003 + round);
                if let Err(panic) = std::panic::catch_unwind(|| property(&bytes)) {
                    eprintln!("the property {target} is broken by {bytes:02x?}");
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}

/// One to four small changes, or a part of another file.
fn changed(file: &[u8], others: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let mut random = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut number = |below: usize| {
        let mut bytes = [0; 4];
        random.fill(&mut bytes);
        u32::from_le_bytes(bytes) as usize % below.max(1)
    };
    let mut bytes = file.to_vec();
    for _ in 0..=number(4) {
        let at = number(bytes.len() + 1);
        match number(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, number(256) as u8),
            2 => {
                let other = &others[number(others.len())];
                let (start, length) = (number(other.len() + 1), number(64));
                bytes.splice(at..at, other[start..(start + length).min(other.len())].to_vec());
            }
            3 => {
                let end = (at + number(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            kind => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = if kind == 4 { *byte ^ (1 << number(8)) } else { number(256) as u8 };
                }
            }
        }
    }
    bytes
}
