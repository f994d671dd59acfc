//! Backs up real data, changes it, backs it up again, verifies, restores and compares every byte.
//!
//! The data is a copy of this checkout (without what building leaves in it) and a disk image of 512 MiB, three
//! quarters of it holes. Everything happens in a temporary directory that is removed at the end.
//!
//! ```sh
//! cargo run --release --example quickstart
//! ```

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use backup_adapters::tree::{OverwritePolicy, SinkOptions, SourceOptions};
use backup_adapters::{FileSink, FileTreeSink, FileTreeSource, ImageSource, OsClock, create_url, open_url};
use backup_core::content::EntryPath;
use backup_core::entropy::OsEntropy;
use backup_core::keys::Credential;
use backup_core::repository::{
    Backup, BackupKind, BackupOptions, Control, Environment, InitOptions, LockedRepository, Parent, Repository,
    Selection, VerifyLevel, VerifyOptions,
};
use backup_core::secret::Password;

const MIB: u64 = 1 << 20;

fn main() -> Result<()> {
    let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
    let data = Data::generate(scratch.path()).context("cannot prepare the data")?;

    // The engine takes nothing from its surroundings: storage, clock, randomness and password are given to it.
    let url = scratch.path().join("repository").display().to_string();
    let environment = Environment::new(Arc::new(OsClock), Arc::new(OsEntropy));
    let password = Password::from("in a real program, not in its source");
    let credential = Credential::from(&password);
    let repository = Repository::init(create_url(&url)?, &credential, &InitOptions::default(), environment.clone())
        .context("cannot create the repository")?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let control = Control::default().with_threads(threads);

    println!("{:<26}{:>10}{:>10}{:>10}{:>10}{:>10}{:>8}", "", "content", "read", "new", "stored", "seconds", "MB/s");
    let first = timed_backup("first backup", || back_up(&repository, &data, Parent::None, None, &control))?;

    // The next day nobody knows what has changed: files are recognized by size, times and inode, the image is read.
    data.change_files()?;
    data.change_image(100 * MIB, 5 * MIB)?;
    let parent = Parent::Backup(first.id);
    let second = timed_backup("next backup", || back_up(&repository, &data, parent, None, &control))?;

    // Hypervisors and block maps know what has changed: then only that is read.
    let changed = data.change_image(300 * MIB, 3 * MIB)?;
    let parent = Parent::Backup(second.id);
    let third = timed_backup("with a change map", || back_up(&repository, &data, parent, Some(changed), &control))?;
    drop(repository);

    // Whoever stores the repository can check, without the password, that nothing is missing or damaged.
    println!();
    let locked = LockedRepository::open(open_url(&url)?, environment.clone())?;
    for (level, name) in [(VerifyLevel::Presence, "presence"), (VerifyLevel::Bytes, "bytes")] {
        let started = Instant::now();
        let report = locked.verify(&VerifyOptions::new(level), &control).with_context(|| format!("verify {name}"))?;
        ensure!(report.ok, "verify {name}: {:?}", report.findings);
        let checked = format!("{} objects, no password", report.objects_checked);
        print_line(&format!("verify {name}"), &checked, report.bytes_checked, started);
    }
    // With the password, that every backup can be restored whole.
    let repository =
        Repository::open(open_url(&url)?, &credential, environment).context("cannot open the repository")?;
    for (level, name) in [(VerifyLevel::Structure, "structure"), (VerifyLevel::Content, "content")] {
        let started = Instant::now();
        let options = VerifyOptions::new(level);
        let report = repository.verify(&options, None, &control).with_context(|| format!("verify {name}"))?;
        ensure!(report.ok, "verify {name}: {:?}", report.findings);
        let checked = format!("{} entries, {} chunks", report.entries_checked, report.chunks_checked);
        print_line(&format!("verify {name}"), &checked, report.bytes_checked, started);
    }

    // Restore into new places, and compare with the data.
    let newest = repository.find_backup("latest")?;
    ensure!(newest.id == third.id, "the newest backup is not the last one that was made");
    let started = Instant::now();
    let target = Data::below(&scratch.path().join("restored"))?;
    let entries = restore(&repository, &newest, &data, &target, &control)?;
    print_line("restore", &format!("{entries} entries"), target.allocated()?, started);
    let started = Instant::now();
    let files = data.compare(&target)?;
    print_line("compare with the data", &format!("{files} files, all the same"), target.allocated()?, started);
    check_holes(&data.image, &target.image)?;

    // The first backup is still what it was: no backup depends on another.
    let old = Data::below(&scratch.path().join("restored-first"))?;
    restore(&repository, &first, &data, &old, &control)?;
    ensure!(data.compare(&old).is_err(), "the first backup has the changes of the following days");

    let sizes = repository.statistics()?;
    println!(
        "\n{} backups of {} in {}: deduplication {:.1} to 1 (holes included), compression {:.1} to 1",
        sizes.backups,
        megabytes(sizes.logical_bytes),
        megabytes(sizes.stored_bytes),
        sizes.dedup_ratio,
        sizes.compression_ratio,
    );
    Ok(())
}

/// One backup of files and image. Nothing of it is visible before `commit` has returned.
fn back_up(
    repository: &Repository,
    data: &Data,
    parent: Parent,
    changed: Option<Range<u64>>,
    control: &Control,
) -> Result<Backup> {
    let options =
        BackupOptions::new(BackupKind::Data).with_host("quickstart").with_parent(parent).with_control(control.clone());
    let mut session = repository.begin(options)?;
    session.add_tree(&mut FileTreeSource::new([&data.files], SourceOptions::default())?)?;
    let mut image = ImageSource::open(&data.image).with_context(|| format!("cannot open {}", data.image.display()))?;
    if let Some(changed) = changed {
        image = image.with_changes([changed]);
    }
    session.add_blocks(EntryPath::try_from("disk.img")?, &image)?;
    let backup = session.commit()?;
    ensure!(backup.is_complete(), "something could not be read: {:?}", backup.problems);
    Ok(backup)
}

/// Restores files and image of `backup`, which was made of `data`, into `target`.
fn restore(repository: &Repository, backup: &Backup, data: &Data, target: &Data, control: &Control) -> Result<u64> {
    // Entries of the root /a/b are called a/b; the sink puts them below its directory under these names.
    let root = EntryPath::try_from(relative(&data.files).to_string_lossy().as_ref())?;
    let sink = FileTreeSink::new(&target.place, SinkOptions::default())?;
    let report = repository.restore_tree(backup, &Selection::within(vec![root]), &sink, control)?;
    ensure!(report.is_complete(), "something could not be restored: {:?}", report.problems);
    fs::rename(target.place.join(relative(&data.files)), &target.files).context("cannot move the restored files")?;

    let entry = repository.entry(backup, &EntryPath::try_from("disk.img")?)?;
    let sink = FileSink::create(&target.image, OverwritePolicy::Refuse)
        .with_context(|| format!("cannot create {}", target.image.display()))?;
    repository.restore_blocks(&entry, &sink, control)?;
    Ok(report.entries + 1)
}

/// The data that is protected: a directory with files and a disk image.
struct Data {
    place: PathBuf,
    files: PathBuf,
    image: PathBuf,
}

impl Data {
    fn below(place: &Path) -> Result<Self> {
        fs::create_dir_all(place).with_context(|| format!("cannot make {}", place.display()))?;
        // Without links: a tree source takes its roots as they are.
        let place = fs::canonicalize(place)?;
        Ok(Self { files: place.join("checkout"), image: place.join("disk.img"), place })
    }

    /// A copy of the checkout, because it is going to be changed, and an image.
    fn generate(scratch: &Path) -> Result<Self> {
        let data = Self::below(&scratch.join("data"))?;
        copy_tree(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")), &data.files)?;
        let image = File::create(&data.image)?;
        image.set_len(512 * MIB)?;
        // 32 pieces of 4 MiB: random, text-like, and every fourth one a copy of the first.
        for piece in 0..32 {
            let bytes = match piece % 4 {
                0 => noise(piece, 4 * MIB),
                3 => noise(0, 4 * MIB),
                _ => text(piece, 4 * MIB),
            };
            image.write_all_at(&bytes, piece * 16 * MIB)?;
        }
        image.sync_all()?;
        Ok(data)
    }

    /// A file more, one less, one changed, one with other permissions.
    fn change_files(&self) -> Result<()> {
        fs::write(self.files.join("a new file"), "Straße, 東京, \u{1f980}\n").context("cannot add a file")?;
        fs::write(self.files.join("Makefile"), "all:\n\ttrue\n").context("cannot change a file")?;
        fs::remove_file(self.files.join("deny.toml")).context("cannot remove a file")?;
        fs::set_permissions(self.files.join("Cargo.toml"), Permissions::from_mode(0o640))?;
        Ok(())
    }

    /// Overwrites a range of the image with other data and returns it.
    fn change_image(&self, offset: u64, length: u64) -> Result<Range<u64>> {
        let image = File::options().write(true).open(&self.image).context("cannot open the image")?;
        image.write_all_at(&noise(offset, length), offset).context("cannot change the image")?;
        Ok(offset..offset + length)
    }

    /// Compares files and image, and returns how many files there are.
    fn compare(&self, other: &Self) -> Result<u64> {
        let files = compare_trees(&self.files, &other.files)?;
        compare_contents(&self.image, &other.image)?;
        Ok(files + 1)
    }

    /// Bytes on disk of everything: holes do not count.
    fn allocated(&self) -> Result<u64> {
        Ok(allocated_below(&self.files)? + allocated(&self.image)?)
    }
}

/// Runs a backup, and prints its sizes and speed.
fn timed_backup(name: &str, run: impl FnOnce() -> Result<Backup>) -> Result<Backup> {
    let started = Instant::now();
    let backup = run().with_context(|| format!("{name} failed"))?;
    let seconds = started.elapsed().as_secs_f64();
    let amounts = backup.statistics;
    println!(
        "{name:<26}{:>10}{:>10}{:>10}{:>10}{seconds:>10.2}{:>8.0}",
        megabytes(amounts.bytes_logical),
        megabytes(amounts.bytes_read),
        megabytes(amounts.bytes_new),
        megabytes(amounts.bytes_stored),
        speed(amounts.bytes_read, seconds),
    );
    Ok(backup)
}

fn print_line(name: &str, what: &str, bytes: u64, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    print!("{name:<26}{what:<30}{:>10}{seconds:>10.2}", megabytes(bytes));
    println!("{:>8}", if bytes == 0 { String::from("-") } else { format!("{:.0}", speed(bytes, seconds)) });
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn speed(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / 1e6 / seconds.max(1e-6)
}

/// Copies directories, files and links, without what building leaves in a checkout.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for item in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let item = item?;
        let (source, target, kind) = (item.path(), to.join(item.file_name()), item.file_type()?);
        if item.file_name() == "target" || item.file_name() == ".git" {
            continue;
        }
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target).with_context(|| format!("cannot copy {}", source.display()))?;
        }
    }
    Ok(())
}

/// Names, kinds, permissions, times, links and contents.
fn compare_trees(one: &Path, two: &Path) -> Result<u64> {
    let names = names_in(one)?;
    ensure!(names == names_in(two)?, "{} and {} have other files", one.display(), two.display());
    let mut files = 0;
    for name in names {
        let (one, two) = (one.join(&name), two.join(&name));
        let (expected, found) = (fs::symlink_metadata(&one)?, fs::symlink_metadata(&two)?);
        ensure!(expected.mode() == found.mode(), "{}: mode {:o}", two.display(), found.mode());
        ensure!(expected.modified()? == found.modified()?, "{} has another time", two.display());
        if expected.is_dir() {
            files += compare_trees(&one, &two)?;
            continue;
        }
        if expected.is_symlink() {
            ensure!(fs::read_link(&one)? == fs::read_link(&two)?, "{} leads elsewhere", two.display());
        } else {
            compare_contents(&one, &two)?;
        }
        files += 1;
    }
    Ok(files)
}

fn compare_contents(one: &Path, two: &Path) -> Result<()> {
    let open = |path: &Path| File::open(path).with_context(|| format!("cannot open {}", path.display()));
    let (mut first, mut second) = (open(one)?, open(two)?);
    let length = first.metadata()?.len();
    ensure!(length == second.metadata()?.len(), "{} has another length", two.display());
    let (mut expected, mut found) = (vec![0; MIB as usize], vec![0; MIB as usize]);
    let mut offset = 0;
    while offset < length {
        let count = (length - offset).min(MIB);
        let (expected, found) = (&mut expected[..count as usize], &mut found[..count as usize]);
        first.read_exact(expected).with_context(|| format!("cannot read {}", one.display()))?;
        second.read_exact(found).with_context(|| format!("cannot read {}", two.display()))?;
        ensure!(expected == found, "{} differs between {offset} and {}", two.display(), offset + count);
        offset += count;
    }
    Ok(())
}

/// Holes of the original must be holes again, as far as the file system has holes.
fn check_holes(original: &Path, restored: &Path) -> Result<()> {
    let (before, after, length) = (allocated(original)?, allocated(restored)?, fs::metadata(original)?.len());
    if before >= length {
        println!("{:<26}this file system has none", "holes");
    } else if after > before + MIB {
        bail!("the restored image takes {} instead of {}", megabytes(after), megabytes(before));
    } else {
        println!("{:<26}{} of {} allocated, as before", "holes", megabytes(after), megabytes(length));
    }
    Ok(())
}

fn allocated(file: &Path) -> Result<u64> {
    let metadata = fs::symlink_metadata(file).with_context(|| format!("cannot look at {}", file.display()))?;
    Ok(metadata.blocks() * 512)
}

fn allocated_below(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    for name in names_in(directory)? {
        let path = directory.join(name);
        sum += if path.is_dir() && !path.is_symlink() { allocated_below(&path)? } else { allocated(&path)? };
    }
    Ok(sum)
}

fn names_in(directory: &Path) -> Result<Vec<std::ffi::OsString>> {
    let items = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut names = items.map(|item| item.map(|item| item.file_name())).collect::<std::io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Bytes that neither compress nor repeat (SplitMix64).
fn noise(seed: u64, length: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95);
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    (0..length / 8).flat_map(|_| next().to_le_bytes()).collect()
}

/// Bytes that compress like a log: words in random order.
fn text(seed: u64, length: u64) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "started ",
        "stopped ",
        "connection ",
        "from ",
        "user ",
        "error ",
        "retry ",
        "timeout ",
        "10.0.0.",
        "17 ",
        "2048 ",
        "ok\n",
        "failed\n",
        "systemd[1]: ",
        "kernel: ",
        "session ",
    ];
    let mut out: Vec<u8> =
        noise(seed, length / 4).into_iter().flat_map(|byte| WORDS[usize::from(byte % 16)].bytes()).collect();
    out.resize(length as usize, b'.');
    out
}
