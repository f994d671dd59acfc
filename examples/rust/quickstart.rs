//! Backs up real data twice, verifies it at every level, restores it and compares every byte.
//!
//! The data is the directory that it is started in (this checkout) and a disk image of 512 MiB that is mostly
//! holes. Everything is written to a temporary directory that is removed at the end.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use backup_adapters::tree::{OverwritePolicy, SinkOptions, SourceOptions};
use backup_adapters::{FileSink, FileTreeSink, FileTreeSource, ImageSource, OsClock, create_url};
use backup_core::content::EntryPath;
use backup_core::entropy::OsEntropy;
use backup_core::keys::Credential;
use backup_core::repository::{
    Backup, BackupKind, BackupOptions, Control, Environment, InitOptions, LockedRepository, Repository, Selection,
    VerifyLevel, VerifyOptions,
};
use backup_core::secret::Password;

/// Length of the disk image.
const IMAGE: u64 = 512 << 20;

fn main() -> Result<()> {
    let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
    let tree = copy_of_checkout(scratch.path())?;
    let image = scratch.path().join("disk.img");
    write_image(&image)?;

    // A repository needs a place, a password, a clock and randomness; nothing is taken from the surroundings.
    let storage = create_url(&scratch.path().join("repository").to_string_lossy())?;
    let environment = Environment::new(Arc::new(OsClock), Arc::new(OsEntropy));
    let password = Password::from("a password that is not in the source code of a real program");
    let credential = Credential::from(&password);
    let repository = Repository::init(Arc::clone(&storage), &credential, &InitOptions::default(), environment.clone())?;

    let control = Control::default().with_threads(std::thread::available_parallelism().map_or(1, usize::from));
    println!("{:<22} {:>12} {:>12} {:>12} {:>9} {:>10}", "", "content", "new", "stored", "seconds", "MB/s");
    report("first backup", || back_up(&repository, &tree, &image, &control))?;

    // The next day: a file more, a file less, one changed, and a few bytes of the disk.
    fs::write(tree.join("NEW"), "a new file\n")?;
    fs::remove_file(tree.join("Cargo.lock"))?;
    fs::write(tree.join("Cargo.toml"), "# changed\n")?;
    File::options().write(true).open(&image)?.write_all_at(b"changed", 200 << 20)?;
    let second = report("next backup", || back_up(&repository, &tree, &image, &control))?;

    // What a site without the password can check, and what only its owner can.
    let locked = LockedRepository::open(Arc::clone(&storage), environment.clone())?;
    for level in [VerifyLevel::Presence, VerifyLevel::Bytes] {
        let verified = locked.verify(&VerifyOptions::new(level), &control)?;
        ensure!(verified.ok, "{:?}", verified.findings);
        println!("verified {level:?} without the password: {} objects", verified.objects_checked);
    }
    let repository = Repository::open(storage, &credential, environment)?;
    for level in [VerifyLevel::Structure, VerifyLevel::Content] {
        let verified = repository.verify(&VerifyOptions::new(level), None, &control)?;
        ensure!(verified.ok, "{:?}", verified.findings);
        println!("verified {level:?}: {} entries, {} chunks", verified.entries_checked, verified.chunks_checked);
    }

    let started = Instant::now();
    let restored = scratch.path().join("restored");
    let sink = FileTreeSink::new(&restored, SinkOptions::default())?;
    let disk = EntryPath::try_from("disk.img")?;
    let files: Vec<EntryPath> = repository
        .entries(&second)?
        .filter_map(|entry| entry.ok().filter(|entry| entry.path != disk).map(|entry| entry.path))
        .collect();
    let result = repository.restore_tree(&second, &Selection::within(files), &sink, &control)?;
    ensure!(result.is_complete(), "{:?}", result.problems);
    let restored_image = scratch.path().join("restored.img");
    let target = FileSink::create(&restored_image, OverwritePolicy::Refuse)?;
    repository.restore_blocks(&repository.entry(&second, &disk)?, &target, &control)?;
    println!("restored {} entries and the image in {:.2} s", result.entries, started.elapsed().as_secs_f64());

    let below = restored.join(tree.strip_prefix("/").unwrap_or(&tree));
    let compared = compare_trees(&tree, &below)?;
    compare_files(&image, &restored_image)?;
    let (allocated, length) = (fs::metadata(&restored_image)?.blocks() * 512, fs::metadata(&restored_image)?.len());
    ensure!(allocated < length / 4, "the restored image has no holes: {allocated} of {length} bytes");
    println!("compared {compared} files and the image byte for byte: the same, holes are holes");

    let sizes = repository.statistics()?;
    println!(
        "repository: {} MB stored for {} MB of content, dedup {:.1}, compression {:.1}",
        sizes.stored_bytes / 1_000_000,
        sizes.logical_bytes / 1_000_000,
        sizes.dedup_ratio,
        sizes.compression_ratio
    );
    Ok(())
}

/// One backup of the tree and the image. Nothing of it is visible before `commit`.
fn back_up(repository: &Repository, tree: &Path, image: &Path, control: &Control) -> Result<Backup> {
    let options = BackupOptions::new(BackupKind::Data).with_tag("quickstart").with_control(control.clone());
    let mut session = repository.begin(options)?;
    session.add_tree(&mut FileTreeSource::new([tree], SourceOptions::default())?)?;
    session.add_blocks(EntryPath::try_from("disk.img")?, &ImageSource::open(image)?)?;
    let backup = session.commit()?;
    ensure!(backup.is_complete(), "{:?}", backup.problems);
    Ok(backup)
}

fn report(name: &str, run: impl FnOnce() -> Result<Backup>) -> Result<Backup> {
    let started = Instant::now();
    let backup = run().with_context(|| format!("{name} failed"))?;
    let (seconds, amounts) = (started.elapsed().as_secs_f64(), backup.statistics);
    println!(
        "{name:<22} {:>12} {:>12} {:>12} {seconds:>9.2} {:>10.0}",
        amounts.bytes_logical,
        amounts.bytes_new,
        amounts.bytes_stored,
        amounts.bytes_logical as f64 / 1e6 / seconds
    );
    Ok(backup)
}

/// The checkout without what building leaves in it, so that it can be changed.
fn copy_of_checkout(scratch: &Path) -> Result<PathBuf> {
    let target = scratch.join("checkout");
    copy(Path::new("."), &target)?;
    Ok(target)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for item in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let item = item?;
        let (kind, name) = (item.file_type()?, item.file_name());
        if kind.is_dir() && name != "target" && name != ".git" {
            copy(&item.path(), &to.join(name))?;
        } else if kind.is_file() {
            fs::copy(item.path(), to.join(name))?;
        }
    }
    Ok(())
}

/// A disk with a little data here and there.
fn write_image(path: &Path) -> Result<()> {
    let file = File::create(path)?;
    file.set_len(IMAGE)?;
    let mut state = 1u64;
    for block in 0..24 {
        let mut data = vec![0; 1 << 20];
        for byte in data.chunks_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Half random, half not: it compresses like real data.
            byte[..4].copy_from_slice(&state.to_le_bytes()[4..]);
        }
        file.write_all_at(&data, block * (20 << 20) + 4096)?;
    }
    file.sync_all()?;
    Ok(())
}

fn compare_trees(left: &Path, right: &Path) -> Result<u64> {
    let names = |path: &Path| -> Result<Vec<_>> {
        let mut names = fs::read_dir(path)
            .with_context(|| format!("cannot list {}", path.display()))?
            .map(|item| item.map(|item| item.file_name()))
            .collect::<std::io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    };
    ensure!(names(left)? == names(right)?, "{} and {} differ", left.display(), right.display());
    let mut compared = 0;
    for name in names(left)? {
        let (left, right) = (left.join(&name), right.join(&name));
        let (one, two) = (fs::symlink_metadata(&left)?, fs::symlink_metadata(&right)?);
        ensure!(one.mode() == two.mode(), "{} has another mode", right.display());
        if one.is_dir() {
            compared += compare_trees(&left, &right)?;
        } else {
            compare_files(&left, &right)?;
            compared += 1;
        }
    }
    Ok(compared)
}

fn compare_files(left: &Path, right: &Path) -> Result<()> {
    let (mut one, mut two) = (File::open(left)?, File::open(right)?);
    ensure!(one.metadata()?.len() == two.metadata()?.len(), "{} has another length", right.display());
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = one.read(&mut a)?;
        if count == 0 {
            return Ok(());
        }
        two.read_exact(&mut b[..count])?;
        ensure!(a[..count] == b[..count], "{} differs", right.display());
    }
}
