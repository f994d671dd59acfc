//! SIGKILL at random moments: what was committed is there, the rest is not.
//!
//! An ordinary run goes on until a few processes were killed before their end, `scripts/campaign.sh kill` until a hundred
//! were; with `KILL_SEED` it repeats one round.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Outcome, World, files, noise};

/// Bytes that are new in every backup.
const NEW: usize = 3 << 20;

/// A sequence of numbers that a seed decides.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % limit as u64) as usize
    }
}

/// What an environment variable says.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

/// How many files a directory has, those on their way to becoming objects included, and their bytes.
fn amount(directory: &Path) -> (usize, u64) {
    let (mut count, mut bytes, mut open) = (0, 0, vec![directory.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => open.push(entry.path()),
                Ok(metadata) => (count, bytes) = (count + 1, bytes + metadata.len()),
                Err(_) => {}
            }
        }
    }
    (count, bytes)
}

/// The repository and what is known of it.
struct Rounds {
    world: World,
    /// Backups that were acknowledged, and what they hold.
    committed: Vec<(String, u64)>,
    /// Files and bytes that one backup adds.
    one: (usize, u64),
    killed: usize,
}

fn content(number: u64) -> Vec<u8> {
    noise(NEW, 1000 + number)
}

impl Rounds {
    fn new() -> Self {
        let world = World::new();
        let mut rounds = Self { world, committed: Vec::new(), one: (0, 0), killed: 0 };
        rounds.back_up(0);
        // The first one has more to store.
        let before = amount(&rounds.world.repository());
        rounds.back_up(1);
        let after = amount(&rounds.world.repository());
        rounds.one = (after.0 - before.0, after.1 - before.1);
        rounds
    }

    fn source(&self, number: u64) {
        self.world.file("tree/new", content(number));
        self.world.file("tree/same", noise(NEW, 1));
        self.world.file("tree/number", number.to_string());
    }

    fn back_up(&mut self, number: u64) {
        self.source(number);
        let id = self.world.create(["tree"]);
        self.committed.push((id, number));
    }

    /// Kills a process at a random moment; `directory` is where it writes. Whether it was still alive.
    fn kill(&mut self, mut child: Child, directory: &Path, random: &mut Random) -> bool {
        let before = amount(directory);
        // When so many files or bytes are new, and a random while later.
        let (files, bytes) = self.one;
        let after = if random.below(2) == 0 {
            (before.0 + random.below(files + 1), u64::MAX)
        } else {
            (usize::MAX, before.1 + random.below(bytes as usize) as u64)
        };
        let while_later = random.below(3) * random.below(400);
        let mut reached = 0;
        let alive = loop {
            if child.try_wait().unwrap().is_some() {
                break false;
            }
            let now = amount(directory);
            reached += usize::from(now.0 >= after.0 || now.1 >= after.1);
            if reached > while_later / 100 {
                (0..while_later % 100 * 1000).for_each(|_| std::hint::spin_loop());
                kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
                break true;
            }
        };
        let outcome = Outcome::of(child.wait_with_output().unwrap());
        let killed = outcome.code.is_none();
        assert!(killed || outcome.code == Some(0), "{outcome:?}");
        self.killed += usize::from(killed);
        alive && killed
    }

    fn spawn<const N: usize>(&self, arguments: [&str; N]) -> Child {
        self.world.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// A backup is killed. It is there, whole, or not at all.
    fn round_of_backup(&mut self, seed: u64, random: &mut Random) {
        self.source(seed);
        let repository = self.world.repository();
        let child = self.spawn(["create", "tree"]);
        let killed = self.kill(child, &repository, random);
        let listed = self.world.backups();
        let known: Vec<&str> = self.committed.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(listed[..known.len()], known, "a backup is gone, or another one came before it");
        match &listed[known.len()..] {
            [] => assert!(killed, "it ended and is not there"),
            // It had committed and could not say so any more, or it ended before the moment came.
            [id] => self.committed.push((id.clone(), seed)),
            more => panic!("backups from nowhere: {more:?}"),
        }
    }

    /// A restore is killed. It changes nothing of the repository, and the next one works.
    fn round_of_restore(&mut self, random: &mut Random) {
        let before = self.world.repository_files();
        let target = self.world.path("out");
        let _ = fs::remove_dir_all(&target);
        let (id, number) = self.committed[random.below(self.committed.len())].clone();
        let child = self.spawn(["restore", &id, "--to", "out"]);
        self.kill(child, &target, random);
        self.world.run(["restore", &id, "--to", "out", "--overwrite"]).success();
        let restored = files(&target);
        let new = restored.iter().find(|(path, _)| path.ends_with("tree/new")).expect("the file was restored");
        assert!(new.1 == content(number), "{id}");
        assert!(self.world.repository_files() == before, "a restore changed the repository");
    }

    /// A change of the root key is killed.
    fn round_of_keys(&mut self, random: &mut Random) {
        let repository = self.world.repository();
        let one = std::mem::replace(&mut self.one, (1, 4240));
        let child = self.spawn(["key", "rotate"]);
        self.kill(child, &repository, random);
        self.one = one;
    }

    /// What holds between rounds.
    fn check(&mut self, random: &mut Random) {
        let (id, number) = &self.committed[random.below(self.committed.len())];
        let newest = self.committed.last().unwrap();
        for (id, number) in [(id, number), (&newest.0, &newest.1)] {
            let shown = self.world.json(["show", id]);
            let mut paths = shown["entries"].as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap());
            let path = paths.find(|path| path.ends_with("tree/new")).unwrap().to_owned();
            assert!(self.world.run(["cat", id, &path]).success().stdout == content(*number), "{id}");
        }
        self.world.run(["verify", "--level", "content"]).success();
    }
}

#[test]
fn killed_at_random_moments_it_loses_nothing() {
    let wanted = number("KILL_TIMES").unwrap_or(10) as usize;
    // Some processes end before the moment comes.
    let seeds = match number("KILL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 2..2 + 10 * wanted as u64,
    };
    let mut rounds = Rounds::new();
    let mut count = 0;
    for seed in seeds {
        if rounds.killed >= wanted {
            break;
        }
        count += 1;
        // What is printed is shown where a round fails.
        println!("KILL_SEED={seed}");
        let mut random = Random(seed);
        match seed % 10 {
            4 => rounds.round_of_restore(&mut random),
            8 => rounds.round_of_keys(&mut random),
            _ => rounds.round_of_backup(seed, &mut random),
        }
        rounds.check(&mut random);
        if seed % 5 == 0 {
            rounds.back_up(10_000 + seed);
            rounds.check(&mut random);
        }
    }
    rounds.back_up(100_000);
    for (id, number) in rounds.committed.clone() {
        let _ = fs::remove_dir_all(rounds.world.path("out"));
        rounds.world.run(["restore", &id, "--to", "out"]).success();
        let restored = files(&rounds.world.path("out"));
        let new = restored.iter().find(|(path, _)| path.ends_with("tree/new")).unwrap();
        assert!(new.1 == content(number), "{id}");
    }
    let (killed, backups) = (rounds.killed, rounds.committed.len());
    let _ =
        writeln!(std::io::stdout(), "{count} rounds: {killed} processes killed before their end, {backups} backups");
    assert!(killed >= wanted || number("KILL_SEED").is_some(), "processes end before they can be killed");
}
