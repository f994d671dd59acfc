//! `ObjectStorage` on a real S3 server, and behind a network that fails.
#![cfg(feature = "s3")]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use backup_adapters::OsClock;
use backup_adapters::object::{Address, ObjectOptions, ObjectStorage, RetryPolicy};
use backup_core::content::EntryPath;
use backup_core::crypto::Argon2Parameters;
use backup_core::entropy::OsEntropy;
use backup_core::keys::Credential;
use backup_core::maintenance::{CollectOptions, CollectionState, OpenSessions};
use backup_core::repository::{
    Backup, BackupKind, BackupOptions, Control, Environment, InitOptions, Repository, VerifyLevel, VerifyOptions,
};
use backup_core::secret::Password;
use backup_core::storage::{Key, PutMode, Storage, StorageError, conformance, list_all};
use bytes::Bytes;
use support::s3::{ENVIRONMENT, Fate, Network, S3Server};

/// As long as the default, with pauses of almost nothing.
fn quick() -> RetryPolicy {
    RetryPolicy::default().with_attempts(5).with_pauses(Duration::from_micros(100), Duration::from_millis(1))
}

fn options() -> ObjectOptions {
    let options = ObjectOptions::default().with_retry(quick());
    ENVIRONMENT.iter().fold(options, |options, (name, value)| options.with_variable(*name, *value))
}

fn open(endpoint: &str, place: &str) -> ObjectStorage {
    let address = Address::parse(&format!("s3://{place}?endpoint={endpoint}")).unwrap().unwrap();
    ObjectStorage::open(&address, &options()).unwrap()
}

fn fresh(endpoint: &str) -> ObjectStorage {
    open(endpoint, &format!("bucket/{}", S3Server::prefix()))
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

/// Bytes that do not repeat.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(length)
    .collect()
}

#[test]
fn it_conforms() {
    let Some(server) = S3Server::get() else { return };
    // One page, and many.
    for page_size in [1000, 3] {
        conformance::run(&|| Box::new(fresh(&server.endpoint()).with_page_size(page_size))).unwrap();
    }
    // Without a prefix, in a bucket of its own: the rules leave objects behind, so only the one that needs it.
    let storage = open(&server.endpoint(), "other");
    storage.put(&key("a/b"), Bytes::from_static(b"x"), PutMode::Create).unwrap();
    assert_eq!(storage.list("a", None).unwrap().objects.len(), 1);
}

#[test]
fn of_racing_creations_exactly_one_wins() {
    const THREADS: usize = 8;
    const KEYS: usize = 50;
    let Some(server) = S3Server::get() else { return };
    let place = format!("bucket/{}", S3Server::prefix());
    let racers: Vec<ObjectStorage> = (0..THREADS).map(|_| open(&server.endpoint(), &place)).collect();
    let barrier = Barrier::new(THREADS);
    let won: Vec<BTreeSet<usize>> = thread::scope(|scope| {
        let race = |racer: usize| {
            let (storage, barrier) = (&racers[racer], &barrier);
            scope.spawn(move || {
                let wins = (0..KEYS).filter(|number| {
                    barrier.wait();
                    let content = Bytes::from(vec![u8::try_from(racer).unwrap(); 1000]);
                    match storage.put(&key(&format!("race/{number}")), content, PutMode::Create) {
                        Ok(()) => true,
                        Err(StorageError::AlreadyExists) => false,
                        Err(error) => panic!("{}", chain(&error)),
                    }
                });
                wins.collect()
            })
        };
        (0..THREADS).map(race).collect::<Vec<_>>().into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    for number in 0..KEYS {
        let winners: Vec<usize> = (0..THREADS).filter(|racer| won[*racer].contains(&number)).collect();
        assert_eq!(winners.len(), 1, "key {number} was created by {winners:?}");
        let content = racers[0].get(&key(&format!("race/{number}")), 1000).unwrap();
        assert!(content.iter().all(|byte| usize::from(*byte) == winners[0]), "key {number}");
    }
}

#[test]
fn large_objects_are_replaced_in_parts() {
    let Some(server) = S3Server::get() else { return };
    let storage = fresh(&server.endpoint());
    let content = Bytes::from(noise((65 << 20) + 5, 1));
    for _ in 0..2 {
        storage.put(&key("large"), content.clone(), PutMode::Overwrite).unwrap();
        assert!(storage.get(&key("large"), 100 << 20).unwrap() == content, "the content differs");
    }
}

/// The answer to the request that puts the parts together is lost; then the server no longer knows of them.
#[test]
fn a_lost_answer_behind_the_last_part_is_no_failure() {
    let Some(server) = S3Server::get() else { return };
    let network = Network::to(server);
    let place = format!("bucket/{}", S3Server::prefix());
    let (storage, direct) = (open(&network.endpoint(), &place), open(&server.endpoint(), &place));
    let content = Bytes::from(noise((33 << 20) + 5, 1));
    // Begin, two parts, end.
    for lost in 0..4 {
        network.script(move |number| if number == lost { Fate::CutAnswer(0) } else { Fate::Pass });
        storage.put(&key("large"), content.clone(), PutMode::Overwrite).unwrap_or_else(|error| {
            panic!("the answer to request {lost} was lost: {}", chain(&error));
        });
        assert!(network.requests() >= 5, "{} requests", network.requests());
        assert!(direct.get(&key("large"), 100 << 20).unwrap() == content, "the content differs");
        direct.delete(&key("large")).unwrap();
    }
}

#[test]
fn requests_that_meet_are_repeated() {
    let Some(server) = S3Server::get() else { return };
    let network = Network::to(server);
    let storage = fresh(&network.endpoint());
    for mode in [PutMode::Create, PutMode::Overwrite] {
        network.script(|number| if number < 2 { Fate::Answer(409, "ConditionalRequestConflict") } else { Fate::Pass });
        storage.put(&key("object"), Bytes::from_static(b"x"), mode).unwrap();
        assert_eq!(network.requests(), 3);
    }
}

#[test]
fn foreign_objects_are_left_out() {
    let Some(server) = S3Server::get() else { return };
    let prefix = S3Server::prefix();
    let storage = open(&server.endpoint(), &format!("bucket/{prefix}")).with_page_size(2);
    for name in ["A", "B", "C", "D", "E", ".hidden", "packs/UPPER", "packs/x.Y"] {
        server.put_raw(&format!("bucket/{prefix}/{name}"), "foreign");
    }
    server.put_raw(&format!("bucket/{prefix}x/config"), "of a neighbour whose name begins alike");
    storage.put(&key("packs/ours"), Bytes::from_static(b"1"), PutMode::Create).unwrap();
    let listed = list_all(&storage, "").unwrap();
    assert_eq!(listed.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["packs/ours"]);
}

#[test]
fn callers_may_be_threads_of_another_runtime() {
    let Some(server) = S3Server::get() else { return };
    let storage = fresh(&server.endpoint());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async move {
        storage.put(&key("a"), Bytes::from_static(b"1"), PutMode::Create).unwrap();
        let task = tokio::spawn(async move {
            let content = storage.get(&key("a"), 10).unwrap();
            // Its threads end here, within the other runtime.
            drop(storage);
            content
        });
        assert_eq!(task.await.unwrap(), "1");
    });
}

#[test]
fn answers_that_are_lost_do_not_turn_success_into_refusal() {
    let Some(server) = S3Server::get() else { return };
    let network = Network::to(server);
    let (storage, direct) = {
        let place = format!("bucket/{}", S3Server::prefix());
        (open(&network.endpoint(), &place), open(&server.endpoint(), &place))
    };
    let content = Bytes::from(noise(5000, 2));
    // The answer is cut at every byte; behind its end nothing is cut any more.
    let mut lost = 0;
    for cut in 0..2000 {
        network.script(move |number| if number == 0 { Fate::CutAnswer(cut) } else { Fate::Pass });
        let name = key(&format!("created/{cut}"));
        storage.put(&name, content.clone(), PutMode::Create).unwrap_or_else(|error| panic!("{cut}: {}", chain(&error)));
        assert!(direct.get(&name, 5000).unwrap() == content, "cut at {cut}");
        if network.requests() == 1 {
            break;
        }
        lost += 1;
        if cut % 8 != 0 {
            continue;
        }
        // An object of somebody else, with the same bytes, is still somebody else's.
        network.script(move |number| if number == 0 { Fate::CutAnswer(cut) } else { Fate::Pass });
        let refused = storage.put(&name, content.clone(), PutMode::Create);
        assert!(matches!(refused, Err(StorageError::AlreadyExists)), "cut at {cut}: {refused:?}");
    }
    assert!(lost > 100, "an answer has more bytes than {lost}");
}

#[test]
fn requests_that_are_cut_anywhere_are_repeated() {
    let Some(server) = S3Server::get() else { return };
    let network = Network::to(server);
    let place = format!("bucket/{}", S3Server::prefix());
    let (storage, direct) = (open(&network.endpoint(), &place), open(&server.endpoint(), &place));
    let content = Bytes::from(noise(100_000, 3));
    let cuts = [0, 1, 10, 100, 300, 500, 700, 900, 1200, 5_000, 50_000, 99_000, 100_000, 100_300];
    for (number, cut) in cuts.into_iter().enumerate() {
        let name = key(&format!("object/{number}"));
        let once = move |number| if number == 0 { Fate::CutRequest(cut) } else { Fate::Pass };
        let answer = move |number| if number == 0 { Fate::CutAnswer(cut) } else { Fate::Pass };
        for mode in [PutMode::Create, PutMode::Overwrite] {
            network.script(once);
            storage.put(&name, content.clone(), mode).unwrap_or_else(|error| panic!("{cut}: {}", chain(&error)));
            assert!(direct.get(&name, 100_000).unwrap() == content, "cut at {cut}");
        }
        network.script(answer);
        assert!(storage.get(&name, 100_000).unwrap() == content, "cut at {cut}");
        network.script(answer);
        assert!(storage.get_range(&name, 10..90_000).unwrap() == content.slice(10..90_000), "cut at {cut}");
        network.script(answer);
        assert_eq!(storage.stat(&name).unwrap().size, 100_000, "cut at {cut}");
        network.script(answer);
        assert_eq!(list_all(&storage, "object/").unwrap().len(), number + 1, "cut at {cut}");
        network.script(once);
        storage.delete(&key(&format!("object/{number}x"))).unwrap();
    }
}

#[test]
fn throttling_is_waited_for_and_not_for_ever() {
    let Some(server) = S3Server::get() else { return };
    let network = Network::to(server);
    let storage = fresh(&network.endpoint());
    let name = key("object");
    for (status, code) in [(503, "SlowDown"), (429, "TooManyRequests"), (500, "InternalError"), (502, ""), (408, "")] {
        network.script(move |number| if number < 4 { Fate::Answer(status, code) } else { Fate::Pass });
        storage.put(&name, Bytes::from_static(b"x"), PutMode::Create).unwrap();
        network.script(move |number| if number < 4 { Fate::Answer(status, code) } else { Fate::Pass });
        assert_eq!(storage.get(&name, 10).unwrap(), "x");
        network.script(move |_| Fate::Answer(status, code));
        for error in [
            storage.get(&name, 10).unwrap_err(),
            storage.put(&key("never"), Bytes::from_static(b"x"), PutMode::Create).unwrap_err(),
            storage.list("", None).unwrap_err(),
            storage.delete(&name).unwrap_err(),
        ] {
            assert!(error.is_transient(), "{status}: {error:?}");
            let text = chain(&error);
            assert!(text.contains(&status.to_string()) && text.contains("tried 5 times"), "{text}");
        }
        assert_eq!(network.requests(), 4 * 5, "{status}");
        network.script(|_| Fate::Pass);
        storage.delete(&name).unwrap();
    }
}

/// After a lost answer it is open what was stored, whatever a later try says.
#[test]
fn a_refusal_behind_a_lost_answer_decides_nothing() {
    let Some(server) = S3Server::get() else { return };
    let network = Network::to(server);
    let storage = fresh(&network.endpoint());
    network.script(|number| match number {
        0 => Fate::CutAnswer(0),
        _ => Fate::Answer(403, "AccessDenied"),
    });
    let error = storage.put(&key("object"), Bytes::from_static(b"x"), PutMode::Create).unwrap_err();
    assert!(matches!(error, StorageError::Transient(_)), "{error:?}");
    network.script(|_| Fate::Answer(403, "AccessDenied"));
    let error = storage.put(&key("object"), Bytes::from_static(b"x"), PutMode::Create).unwrap_err();
    assert!(matches!(error, StorageError::PermissionDenied(_)), "{error:?}");
}

#[test]
fn errors_say_who_must_act() {
    let Some(server) = S3Server::get() else { return };
    let network = Network::to(server);
    let storage = fresh(&network.endpoint());
    for (status, code, words) in [
        (403, "InvalidAccessKeyId", "the credentials are not accepted"),
        (403, "SignatureDoesNotMatch", "the credentials are not accepted"),
        (403, "AccessDenied", "access is denied"),
        (400, "ExpiredToken", "the credentials have expired"),
        (403, "RequestTimeTooSkewed", "the clock of this machine"),
    ] {
        network.script(move |_| Fate::Answer(status, code));
        let text = chain(&storage.get(&key("config"), 10).unwrap_err());
        assert!(text.contains(words) && text.contains(code), "{text}");
        assert_eq!(network.requests(), 1, "{code} will not pass");
    }
    // A bucket that is not there.
    let missing = open(&server.endpoint(), "missing-bucket/prefix");
    for error in [
        missing.get(&key("config"), 10).unwrap_err(),
        missing.put(&key("config"), Bytes::new(), PutMode::Create).unwrap_err(),
        missing.list("", None).unwrap_err(),
    ] {
        let text = chain(&error);
        assert!(text.contains("the bucket does not exist"), "{text}");
    }
    // A server that is not there.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = fresh(&format!("http://{nobody}")).get(&key("config"), 10).unwrap_err();
    let text = chain(&error);
    assert!(error.is_transient() && text.contains("the connection failed"), "{text}");
    // A connection that is not encrypted is used only where that is asked for.
    let address = Address::parse("s3://bucket?endpoint=http://192.0.2.1").unwrap().unwrap();
    let text = ObjectStorage::open(&address, &ObjectOptions::default()).unwrap_err().to_string();
    assert!(text.contains("AWS_ALLOW_HTTP"), "{text}");
}

fn environment() -> Environment {
    Environment::new(Arc::new(OsClock), Arc::new(OsEntropy))
}

fn init(storage: ObjectStorage, password: &Password) -> backup_core::Result<Repository> {
    let options = InitOptions::default().with_argon2(Argon2Parameters::minimum_for_tests()).with_pack_target(1 << 20);
    Repository::init(Arc::new(storage), &Credential::from(password), &options, environment())
}

fn control() -> Control {
    Control::default().with_threads(2)
}

fn store(repository: &Repository, name: &str, content: &[u8]) -> backup_core::Result<Backup> {
    let mut session = repository.begin(BackupOptions::new(BackupKind::Data).with_control(control()))?;
    session.add_stream(name.parse().unwrap(), &mut &*content)?;
    session.commit()
}

fn restored(repository: &Repository, backup: &Backup, name: &str) -> Vec<u8> {
    let path: EntryPath = name.parse().unwrap();
    let mut content = Vec::new();
    repository.restore_stream(&repository.entry(backup, &path).unwrap(), &mut content, &control()).unwrap();
    content
}

fn verify(repository: &Repository) {
    let report = repository.verify(&VerifyOptions::new(VerifyLevel::Content), None, &control()).unwrap();
    assert!(report.ok && !report.partial, "{:?}", report.findings);
}

#[test]
fn four_writers_at_once() {
    const WRITERS: u64 = 4;
    let Some(server) = S3Server::get() else { return };
    let place = format!("bucket/{}", S3Server::prefix());
    let password = Password::from("four writers");
    init(open(&server.endpoint(), &place), &password).unwrap();
    // Half of each is the same for all of them.
    let content = |writer: u64| [noise(2 << 20, 77), noise(2 << 20, writer)].concat();
    let barrier = Barrier::new(4);
    let backups: Vec<Backup> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (place, password, barrier) = (&place, &password, &barrier);
                scope.spawn(move || {
                    // Each as a process of its own would: storage, handle and index.
                    let storage = Arc::new(open(&server.endpoint(), place));
                    let repository = Repository::open(storage, &Credential::from(password), environment()).unwrap();
                    barrier.wait();
                    store(&repository, "stream", &content(writer)).unwrap()
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let storage = Arc::new(open(&server.endpoint(), &place));
    let repository = Repository::open(storage, &Credential::from(&password), environment()).unwrap();
    assert_eq!(repository.backups().unwrap().len(), 4);
    for (writer, backup) in (0..WRITERS).zip(&backups) {
        assert!(restored(&repository, backup, "stream") == content(writer), "writer {writer}");
    }
    verify(&repository);
}

/// Four writers make backup after backup, while somebody forgets the first ones and collects.
#[test]
fn four_writers_and_a_collector() {
    const WRITERS: u64 = 4;
    const ROUNDS: u64 = 3;
    let Some(server) = S3Server::get() else { return };
    let place = format!("bucket/{}", S3Server::prefix());
    let password = Password::from("four writers and a collector");
    init(open(&server.endpoint(), &place), &password).unwrap();
    let another = || {
        let storage = Arc::new(open(&server.endpoint(), &place));
        Repository::open(storage, &Credential::from(&password), environment()).unwrap()
    };
    // A third is the same for all of them, a third for all rounds of one.
    let content = |writer: u64, round: u64| {
        [noise(1 << 20, 77), noise(1 << 20, writer), noise(1 << 20, 100 * (writer + 1) + round)].concat()
    };
    let running = AtomicU64::new(WRITERS);
    let write = |writer: u64| {
        let repository = another();
        let made: Vec<(u64, u64, Backup)> = (0..ROUNDS)
            .map(|round| {
                let made = store(&repository, "stream", &content(writer, round));
                (writer, round, made.unwrap_or_else(|error| panic!("writer {writer}: {}", chain(&error))))
            })
            .collect();
        running.fetch_sub(1, Ordering::SeqCst);
        made
    };
    let (made, forgotten, collections) = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let write = &write;
                scope.spawn(move || write(writer))
            })
            .collect();
        let maintainer = scope.spawn(|| {
            let repository = another();
            let options = CollectOptions::default().with_open_sessions(OpenSessions::Wait);
            let (mut forgotten, mut collections) = (Vec::new(), 0);
            while running.load(Ordering::SeqCst) > 0 {
                let shown = repository.backups().unwrap();
                if shown.is_empty() {
                    // Bodies without any commit look like lost commits: nothing would be collected.
                    thread::yield_now();
                    continue;
                }
                // Forgets the oldest while there are others.
                if let [oldest, _, ..] = shown.as_slice()
                    && forgotten.len() < 4
                {
                    repository.forget(&[oldest.id], &control()).unwrap();
                    forgotten.push(oldest.id);
                }
                let report =
                    repository.collect(&options, &control()).unwrap_or_else(|error| panic!("{}", chain(&error)));
                collections += u32::from(report.state == CollectionState::Finished);
            }
            (forgotten, collections)
        });
        let made: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        let (forgotten, collections) = maintainer.join().unwrap();
        (made, forgotten, collections)
    });
    let repository = another();
    let last = repository.collect(&CollectOptions::default(), &control()).unwrap();
    assert_eq!(last.state, CollectionState::Finished);
    println!("{} backups, {} forgotten, {} collections", made.len(), forgotten.len(), collections + 1);
    let shown: Vec<_> = repository.backups().unwrap().iter().map(|backup| backup.id).collect();
    assert_eq!(shown.len() + forgotten.len(), made.len());
    for (writer, round, backup) in &made {
        assert_ne!(shown.contains(&backup.id), forgotten.contains(&backup.id), "{writer} {round}");
        if shown.contains(&backup.id) {
            assert!(restored(&repository, backup, "stream") == content(*writer, *round), "{writer} {round}");
        }
    }
    verify(&repository);
    let empty = repository.collect(&CollectOptions::default(), &control()).unwrap();
    assert_eq!(empty.deleted.packs, 0, "the collection before left something: {empty:?}");
}

#[test]
fn a_backup_survives_a_bad_network() {
    let Some(server) = S3Server::get() else { return };
    let network = Network::to(server);
    let password = Password::from("bad network");
    let repository = init(fresh(&network.endpoint()), &password).unwrap();
    let content = noise(5 << 20, 9);
    // Every third request fails, each in another way.
    network.script(|number| match number % 12 {
        1 => Fate::CutRequest(200 + usize::try_from(number).unwrap() * 1000),
        4 => Fate::CutAnswer(0),
        7 => Fate::Answer(503, "SlowDown"),
        10 => Fate::CutAnswer(120),
        _ => Fate::Pass,
    });
    let backup = store(&repository, "stream", &content).unwrap();
    assert!(network.requests() > 20, "{} requests", network.requests());
    assert!(restored(&repository, &backup, "stream") == content);
    verify(&repository);
    assert_eq!(repository.backups().unwrap().len(), 1);
}

/// The network goes away at some request and stays away: an error, and nothing that hinders the next backup.
#[test]
fn a_backup_that_was_cut_off_can_be_made_again() {
    let Some(server) = S3Server::get() else { return };
    let network = Network::to(server);
    let password = Password::from("cut off");
    let repository = init(fresh(&network.endpoint()), &password).unwrap();
    let content = noise(3 << 20, 10);
    let (mut failed, mut listed) = (0, 0);
    for after in [0, 1, 2, 3, 5, 8, 12, 16, 20, 25, 30] {
        network.script(move |number| if number < after { Fate::Pass } else { Fate::CutAnswer(0) });
        let result = store(&repository, "stream", &[&content[..], &after.to_le_bytes()].concat());
        network.script(|_| Fate::Pass);
        let now = repository.backups().unwrap().len();
        match result {
            Ok(_) => assert_eq!(now, listed + 1, "cut after {after} requests"),
            Err(error) => {
                failed += 1;
                let text = chain(&error);
                assert!(text.contains("the connection failed") || text.contains("outcome of"), "{text}");
                assert!(error.is_transient(), "{error:?}");
                // The answer of the deciding put may have been lost; then the backup is there.
                let is_open = matches!(error, backup_core::Error::UnknownOutcome { .. });
                assert!(now == listed || (is_open && now == listed + 1), "cut after {after} requests: {text}");
            }
        }
        listed = now;
    }
    assert!(failed >= 8, "only {failed} backups were cut off");
    let backup = store(&repository, "stream", &content).unwrap();
    assert!(restored(&repository, &backup, "stream") == content);
    verify(&repository);
}
