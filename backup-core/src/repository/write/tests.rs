//! Backups of more entries than a test outside could look into.

use std::io;
use std::sync::Arc;

use crate::content::{EntryKind, EntryPath, WAITING};
use crate::crypto::Argon2Parameters;
use crate::entropy::SeededEntropy;
use crate::keys::Credential;
use crate::repository::{
    BackupKind, BackupOptions, Control, Environment, InitOptions, Parent, Repository, VerifyLevel, VerifyOptions,
};
use crate::secret::Password;
use crate::source::{BlockSource, FileContent, OpenContent, TreeNode, TreeProblem, TreeSource};
use crate::storage::MemoryStorage;
use crate::time::{FixedClock, Timestamp};

fn repository() -> Repository {
    let clock = FixedClock(Timestamp::from_unix(1_790_000_000, 0).unwrap());
    let environment = Environment::new(Arc::new(clock), Arc::new(SeededEntropy::new(1)));
    let options = InitOptions::default().with_argon2(Argon2Parameters::minimum_for_tests());
    let password = Password::from("correct horse");
    Repository::init(Arc::new(MemoryStorage::new()), &Credential::from(&password), &options, environment).unwrap()
}

fn options(threads: usize) -> BackupOptions {
    BackupOptions::new(BackupKind::Data)
        .with_parent(Parent::None)
        .with_control(Control::default().with_threads(threads))
}

/// Files of eight bytes, each another number, a thousand to a directory.
struct Numbers(std::ops::Range<u64>);

impl TreeSource for Numbers {
    fn next_node(&mut self) -> Option<Result<TreeNode, TreeProblem>> {
        let number = self.0.next()?;
        let path = format!("{:06}/{:03}", number / 1000, number % 1000);
        let mut node = TreeNode::new(path.parse::<EntryPath>().unwrap(), EntryKind::File);
        node.size = 8;
        node.content = Some(Box::new(Number(number)));
        Some(Ok(node))
    }
}

struct Number(u64);

impl OpenContent for Number {
    fn open(self: Box<Self>) -> io::Result<Box<dyn FileContent>> {
        Ok(self)
    }
}

impl BlockSource for Number {
    fn length(&self) -> u64 {
        8
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset != 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.copy_from_slice(&self.0.to_be_bytes());
        Ok(())
    }
}

impl FileContent for Number {
    fn is_image(&self) -> bool {
        false
    }
    fn is_unchanged(&self) -> io::Result<bool> {
        Ok(true)
    }
}

/// So many chunks that two half-filled packs hold more than one pack may.
#[test]
fn more_tiny_files_than_a_pack_has_entries() {
    const COUNT: u64 = 300_000;
    let repository = repository();
    let mut session = repository.begin(options(2)).unwrap();
    session.add_tree(&mut Numbers(0..COUNT)).unwrap();
    let most = session.collected.most_waiting();
    assert!(most <= WAITING, "{most} entries were in memory at once");
    let backup = session.commit().unwrap();
    assert_eq!((backup.statistics.entries, backup.statistics.chunks_new), (COUNT, COUNT));
    assert!(backup.is_complete());
    let report = repository.verify(&VerifyOptions::new(VerifyLevel::Content), None, &Control::default()).unwrap();
    assert!(report.ok, "{:#?}", report.findings);
}

/// In memory that does not grow with it, a backup gets the catalogue that it would get in order.
#[test]
fn trees_in_any_order_make_the_same_catalogue() {
    const COUNT: u64 = 150_000;
    let repository = repository();
    let mut roots = Vec::new();
    for parts in [vec![(0, COUNT)], vec![(100_000, COUNT), (50_000, 100_000), (0, 50_000)]] {
        let mut session = repository.begin(options(2)).unwrap();
        parts.into_iter().for_each(|(from, to)| session.add_tree(&mut Numbers(from..to)).unwrap());
        // One that belongs before everything that has long been written.
        session.add_stream("!".parse().unwrap(), &mut &b"first"[..]).unwrap();
        let most = session.collected.most_waiting();
        assert!(most <= WAITING, "{most} entries were in memory at once");
        let backup = session.commit().unwrap();
        assert_eq!(backup.statistics.entries, COUNT + 1);
        roots.push(backup.catalogue);
        let report = repository.verify(&VerifyOptions::new(VerifyLevel::Structure), None, &Control::default()).unwrap();
        assert!(report.ok, "{:#?}", report.findings);
    }
    assert_eq!(roots[0], roots[1]);
}
