//! A model of the commit and collection protocol of `docs/format.md`, searched through every order of steps.
//!
//! Two writers, two collectors, up to three collections; crashes, takeover, zombies that wake at any time, forgetting,
//! copying of live chunks, deletion of slots and packs at any later time, adoption, copies of foreign commits, backups whose
//! commits are replaced. With all rules nothing breaks; without any single one of them something does.
//!
//! `scripts/campaign.sh model` searches larger worlds and shows the steps to what breaks.
//!
//! The search is our own: a step here is a line, and the checkers that there are bring a server, a random generator and
//! concurrent maps into the tree, to do what `search` does.
#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "the rule that the core prints nothing and reads no environment is not for its tests"
)]

mod collector;
mod rules;
mod search;
mod state;
mod storage;
mod writer;

use rules::{Action, Protocol, Rule, Work};
use search::{Found, search};
use state::FIRST;

const A: u8 = 0b001;
const B: u8 = 0b010;
const C: u8 = 0b100;

const WORLD: Protocol = Protocol {
    work: [Work::Backup(A), Work::Backup(B)],
    collectors: 1,
    collections: 1,
    copies_chunks: true,
    adopts: true,
    repeats: false,
    reads: false,
    begins_late: false,
    without: &[],
};

const ALONE: Protocol = Protocol { work: [Work::Backup(A), Work::Nothing], ..WORLD };
const BOTH_NEW: Protocol = Protocol { work: [Work::Backup(C); 2], ..WORLD };
const TWICE: Protocol = Protocol { collections: 2, ..ALONE };
/// Two collectors of two collections: takeover, and zombies of the first.
const RIVALS: Protocol = Protocol { collectors: 2, collections: 2, ..ALONE };
/// The commit that is copied is of a generation that the destination comes to behind its first collection.
const COPY: Protocol = Protocol { work: [Work::Copy(2), Work::Nothing], ..WORLD };
/// A collection has deleted what the first writer had uploaded, whose puts arrive once more.
const LATE: Protocol = Protocol { begins_late: true, repeats: true, collections: 2, ..BOTH_NEW };

/// The first backup is stored anew, by one program.
const REPACK: Protocol =
    Protocol { work: [Work::Repack(FIRST), Work::Nothing], copies_chunks: false, collections: 2, ..WORLD };
/// The same by two.
const REPACKS: Protocol = Protocol { work: [Work::Repack(FIRST); 2], ..REPACK };
/// A copy of a generation that the destination has not come to is stored anew.
const REPACKED_COPY: Protocol = Protocol { work: [Work::Copy(3), Work::Repack(0)], ..REPACK };

fn assert_safe(name: &str, protocol: &Protocol, most: usize) {
    match search(protocol, most) {
        Found::Safe(size) => {
            println!("safe: {name}: {} states, {} steps tried, depth {}", size.states, size.steps, size.depth);
        }
        Found::TooLarge(size) => panic!("{name}: more than {most} states: {size:?}"),
        Found::Broken { rule, steps, last, .. } => {
            panic!("{name}: broken: {rule}\n{}{last:#?}", lines(&steps));
        }
    }
}

fn lines(steps: &[Action]) -> String {
    steps.iter().map(|step| format!("    {step:?}\n")).collect()
}

#[test]
fn with_all_rules_nothing_breaks() {
    let most = 2_000_000;
    assert_safe("two writers, a collection", &WORLD, most);
    assert_safe("two writers of the same new chunk, a collection", &BOTH_NEW, most);
    assert_safe("a writer, a reader, two collections", &Protocol { reads: true, collections: 2, ..ALONE }, most);
    assert_safe(
        "a writer whose puts are repeated, two collectors, two collections",
        &Protocol { repeats: true, ..RIVALS },
        most,
    );
    let without_key = Protocol { copies_chunks: false, collections: 2, ..WORLD };
    assert_safe("two writers, two collections without a key", &without_key, most);
    assert_safe("two writers behind a collection, puts are repeated, another collection", &LATE, most);
    assert_safe("a writer, two collectors, two collections", &RIVALS, most);
    assert_safe("a copy, two collectors, two collections", &Protocol { work: COPY.work, ..RIVALS }, most);
    let late = [Work::Copy(3), Work::Nothing];
    assert_safe("a copy of generation 3, two collectors, two collections", &Protocol { work: late, ..RIVALS }, most);
    assert_safe("two copies of one backup, two collections", &Protocol { work: [Work::Copy(2); 2], ..TWICE }, most);
    let work = [Work::Copy(2), Work::Backup(A)];
    assert_safe("a copy, a writer, two collections", &Protocol { work, ..TWICE }, most);
    assert_safe("a repacker, a reader, two collections", &Protocol { reads: true, ..REPACK }, most);
    assert_safe("a repacker, two collectors, two collections", &Protocol { collectors: 2, ..REPACK }, most);
    assert_safe("two repackers of one backup, two collections", &REPACKS, most);
    let work = [Work::Repack(FIRST), Work::Backup(A)];
    assert_safe("a repacker, a writer, two collections", &Protocol { work, ..REPACK }, most);
    assert_safe("a copy of generation 3, a repacker of it, two collections", &REPACKED_COPY, most);
}

/// The worlds above, larger.
#[test]
fn with_all_rules_nothing_breaks_in_larger_worlds() {
    if !is_full_campaign() {
        return;
    }
    let most = 100_000_000;
    let two = Protocol { collections: 2, ..WORLD };
    assert_safe("two writers, two collections", &two, most);
    assert_safe("two writers of the same new chunk, two collections", &Protocol { collections: 2, ..BOTH_NEW }, most);
    assert_safe(
        "two writers whose puts are repeated, two collections",
        &Protocol { repeats: true, collections: 2, ..BOTH_NEW },
        most,
    );
    assert_safe("a writer, two collectors, three collections", &Protocol { collections: 3, ..RIVALS }, most);
    let work = [Work::Copy(3), Work::Backup(A)];
    assert_safe("a copy, a writer, two collectors, two collections", &Protocol { work, ..RIVALS }, most);
}

/// For every rule a world in which something breaks without it.
const WITHOUT_A_RULE: &[(Rule, Protocol)] = &[
    (
        Rule::GenerationFromMarks,
        Protocol { without: &[Rule::GenerationFromMarks, Rule::SessionsOfAnyGeneration], ..ALONE },
    ),
    (Rule::OpenBeforeReading, Protocol { without: &[Rule::OpenBeforeReading], ..ALONE }),
    (Rule::BeginAgainAfterMark, Protocol { without: &[Rule::BeginAgainAfterMark], ..ALONE }),
    (Rule::CondemnedNotReferredTo, Protocol { without: &[Rule::CondemnedNotReferredTo], ..ALONE }),
    (Rule::CondemnedNotAdopted, Protocol { without: &[Rule::CondemnedNotAdopted], ..BOTH_NEW }),
    (Rule::AdoptedIsNamed, Protocol { without: &[Rule::AdoptedIsNamed], ..BOTH_NEW }),
    (Rule::UploadBeforeCommit, Protocol { without: &[Rule::UploadBeforeCommit], ..ALONE }),
    (Rule::CommitOnlyIfAbsent, Protocol { without: &[Rule::CommitOnlyIfAbsent], ..ALONE }),
    (Rule::CheckAfterCommit, Protocol { without: &[Rule::CheckAfterCommit], ..ALONE }),
    (Rule::ValidityByGeneration, Protocol { without: &[Rule::ValidityByGeneration], ..ALONE }),
    (Rule::OutcomeBeforeNext, Protocol { without: &[Rule::OutcomeBeforeNext], ..RIVALS }),
    (Rule::SessionsAfterMark, Protocol { without: &[Rule::SessionsAfterMark], ..ALONE }),
    (Rule::SessionsOfAnyGeneration, Protocol { without: &[Rule::SessionsOfAnyGeneration], ..COPY }),
    (Rule::SessionsSettled, Protocol { without: &[Rule::SessionsSettled], ..ALONE }),
    (Rule::CommitsListedAgain, Protocol { without: &[Rule::CommitsListedAgain], ..ALONE }),
    (Rule::FinalHasCheckpoint, Protocol { without: &[Rule::FinalHasCheckpoint], ..ALONE }),
    (Rule::FinalHasIndexes, Protocol { without: &[Rule::FinalHasIndexes], ..ALONE }),
    (Rule::FinalOnlyIfAbsent, Protocol { without: &[Rule::FinalOnlyIfAbsent], ..RIVALS }),
    (Rule::DeleteAfterFinal, Protocol { without: &[Rule::DeleteAfterFinal], ..ALONE }),
    (Rule::ForgetsStay, Protocol { without: &[Rule::ForgetsStay], ..TWICE }),
    (Rule::OutcomesStay, Protocol { without: &[Rule::OutcomesStay], ..RIVALS }),
    (Rule::OutcomesStay, Protocol { without: &[Rule::OutcomesStay], ..LATE }),
    (Rule::OutcomesStay, Protocol { without: &[Rule::OutcomesStay], work: [Work::Copy(3), Work::Nothing], ..RIVALS }),
    (Rule::NewestFinalStays, Protocol { without: &[Rule::NewestFinalStays], ..RIVALS }),
    (Rule::ReadAgainAfterFinal, Protocol { without: &[Rule::ReadAgainAfterFinal], reads: true, ..ALONE }),
    (Rule::CopiesLeaveOpen, Protocol { without: &[Rule::CopiesLeaveOpen], work: [Work::Copy(1); 2], ..WORLD }),
    (Rule::CondemnedNotCopied, Protocol { without: &[Rule::CondemnedNotCopied], ..COPY }),
    (Rule::OnlyValidReplace, Protocol { without: &[Rule::OnlyValidReplace], ..REPACK }),
    (
        Rule::ReplacementsNotOlder,
        Protocol { without: &[Rule::ReplacementsNotOlder, Rule::ForgetsFirstId], ..REPACKED_COPY },
    ),
    (Rule::OnlyLiveReplaced, Protocol { without: &[Rule::OnlyLiveReplaced], ..REPACK }),
    (Rule::ForgetsFollow, Protocol { without: &[Rule::ForgetsFollow], ..REPACK }),
    (Rule::ForgetsFirstId, Protocol { without: &[Rule::ForgetsFirstId], ..REPACKS }),
    (Rule::NamedForgetsStay, Protocol { without: &[Rule::NamedForgetsStay], ..REPACK }),
];

#[test]
fn without_any_single_rule_something_breaks() {
    let mut unbroken = Vec::new();
    for (rule, protocol) in WITHOUT_A_RULE {
        match search(protocol, 1_000_000) {
            Found::Broken { rule: broken, steps, size, .. } => {
                println!("without {rule:?}: {} steps, {} states: not: {broken}", steps.len(), size.states);
                if is_full_campaign() {
                    print!("{}", lines(&steps));
                }
            }
            Found::Safe(size) | Found::TooLarge(size) => unbroken.push((rule, size)),
        }
    }
    assert!(unbroken.is_empty(), "nothing breaks without {unbroken:?}");
}

/// Every rule is one that something was tried without.
#[test]
fn every_rule_is_taken_away() {
    for rule in Rule::ALL {
        assert!(WITHOUT_A_RULE.iter().any(|(without, _)| without == rule), "{rule:?}");
    }
}

/// Whether the larger worlds are to be searched as well: `scripts/campaign.sh model`.
fn is_full_campaign() -> bool {
    std::env::var_os("BACKUP_CAMPAIGN").is_some_and(|value| value == "full")
}
