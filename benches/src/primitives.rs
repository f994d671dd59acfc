//! The speed of what everything is made of, on one core and on all threads.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use backup_core::crypto::{AeadProvider, AesGcm, AwsLcRs};
use backup_core::testing::stages::Chunker;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::arguments::{Aead, Primitives};
use crate::efficiency::Rates;
use crate::input::{Input, Kind, scratch};
use crate::sample::Sample;
use crate::table::Table;

/// A frame of a large object.
const FRAME: usize = 64 << 10;
/// A stage is repeated until it took that long, or three times.
const ENOUGH: Duration = Duration::from_millis(700);

/// How fast a primitive is.
#[derive(Clone, Debug, Serialize)]
pub struct Primitive {
    /// What it is.
    pub name: String,
    /// GB (10^9 bytes) a second on one core.
    pub one: f64,
    /// GB a second on all threads together.
    pub all: f64,
    /// GB for each second of CPU, with all threads at work: what other programs do meanwhile changes it least.
    pub each_cpu_second: f64,
}

/// The primitives on one input.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The input.
    pub input: Input,
    /// Bytes of it that were measured.
    pub sample: u64,
    /// The threads of "all".
    pub threads: usize,
    /// What was measured.
    pub primitives: Vec<Primitive>,
}

/// What a thread does with a piece of the sample; returns how many bytes count.
type Work = Box<dyn FnMut(&[u8]) -> Result<usize>>;

/// `primitives`
///
/// # Errors
///
/// Where files cannot be read or written.
pub fn run(arguments: &Primitives) -> Result<Vec<Report>> {
    let scratch = scratch(arguments.common.directory.as_deref())?;
    let inputs = Input::all(arguments.file.as_deref(), None, false, &arguments.common, scratch.path())?;
    inputs.into_iter().map(|input| report(input, arguments, scratch.path())).collect()
}

/// The reports as tables.
#[must_use]
pub fn show(reports: &[Report]) -> String {
    let mut out = String::new();
    for report in reports {
        let (kind, megabytes) = (report.input.kind.name(), report.sample / 1_000_000);
        let all = format!("{} threads", report.threads);
        let mut table = Table::new(&[&format!("{kind}, {megabytes} MB; GB/s"), "one core", &all, "CPU second"]);
        for primitive in &report.primitives {
            let rates = [primitive.one, primitive.all, primitive.each_cpu_second];
            let mut row = vec![primitive.name.clone()];
            row.extend(rates.map(|rate| format!("{rate:.2}")));
            table.push(row);
        }
        out.push_str(&table.render());
        out.push('\n');
    }
    out
}

fn report(input: Input, arguments: &Primitives, scratch: &Path) -> Result<Report> {
    let threads = arguments.common.threads();
    let sample = Sample::read(&input.file, arguments.sample)?;
    let bench = Bench { sample: &sample, threads, scratch, file: &input.file };
    let mut primitives = vec![
        bench.primitive("BLAKE3 keyed, 1 MiB chunks", &hash(1 << 20))?,
        bench.primitive("BLAKE3 keyed, 64 KiB chunks", &hash(FRAME))?,
        bench.primitive_of_segments("chunking by content", &chunk)?,
        bench.primitive("AES-256-GCM seal, aes-gcm", &seal(&AesGcm))?,
        bench.primitive("AES-256-GCM seal, aws-lc-rs", &seal(&AwsLcRs))?,
        bench.primitive("AES-256-GCM open, aes-gcm", &open(&AesGcm))?,
        bench.primitive("AES-256-GCM open, aws-lc-rs", &open(&AwsLcRs))?,
    ];
    for level in [-5, -1, 1, 3, 5] {
        primitives.push(bench.primitive(&format!("zstd {level}, 1 MiB chunks"), &compress(level))?);
    }
    primitives.push(bench.decompression()?);
    primitives.push(bench.reading()?);
    primitives.push(bench.writing()?);
    Ok(Report { sample: sample.bytes(), input, threads, primitives })
}

/// What the limits of the engine's operations are computed from: bytes a second on all threads together, and bytes for
/// each second of CPU.
///
/// # Errors
///
/// Where files cannot be read or written.
pub fn rates(
    input: &Input,
    sample: u64,
    threads: usize,
    level: i32,
    aead: Aead,
    scratch: &Path,
) -> Result<(Rates, Rates)> {
    let sample = Sample::read(&input.file, sample)?;
    let bench = Bench { sample: &sample, threads, scratch, file: &input.file };
    let provider: &'static dyn AeadProvider = match aead {
        Aead::AesGcm => &AesGcm,
        Aead::AwsLcRs => &AwsLcRs,
    };
    let all = |pieces: &[&[u8]], work: &(dyn Fn() -> Result<Work> + Sync)| throughput(pieces, threads, work);
    let (chunks, segments) = (bench.chunks(), bench.segments());
    // Cutting at multiples of a number costs nothing.
    let nothing = Rate { wall: f64::INFINITY, cpu: f64::INFINITY };
    let chunk = if input.kind == Kind::Image { nothing } else { all(&segments, &chunk)? };
    let hash = all(&chunks, &hash(1 << 20))?;
    let compress = all(&chunks, &compress(level))?;
    let (seal, open) = (all(&chunks, &seal(provider))?, all(&chunks, &open(provider))?);
    let (decompress, write) = (bench.decompression_on(threads)?, bench.write(threads)?);
    let of = |rate: fn(Rate) -> f64| Rates {
        chunk: rate(chunk),
        hash: rate(hash),
        compress: rate(compress),
        seal: rate(seal),
        open: rate(open),
        decompress: rate(decompress),
        write: rate(write),
    };
    Ok((of(|rate| rate.wall), of(|rate| rate.cpu)))
}

/// Bytes a second.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    /// Of all threads together, by the clock.
    wall: f64,
    /// For each second of CPU.
    cpu: f64,
}

impl Rate {
    fn best(self, other: Self) -> Self {
        Self { wall: self.wall.max(other.wall), cpu: self.cpu.max(other.cpu) }
    }
}

struct Bench<'a> {
    sample: &'a Sample,
    threads: usize,
    scratch: &'a Path,
    file: &'a Path,
}

impl Bench<'_> {
    fn chunks(&self) -> Vec<&[u8]> {
        self.sample.chunks().collect()
    }

    fn segments(&self) -> Vec<&[u8]> {
        self.sample.segments.iter().map(Vec::as_slice).collect()
    }

    fn primitive(&self, name: &str, work: &(dyn Fn() -> Result<Work> + Sync)) -> Result<Primitive> {
        self.both(name, |threads| throughput(&self.chunks(), threads, work))
    }

    fn primitive_of_segments(&self, name: &str, work: &(dyn Fn() -> Result<Work> + Sync)) -> Result<Primitive> {
        self.both(name, |threads| throughput(&self.segments(), threads, work))
    }

    fn both(&self, name: &str, measure: impl Fn(usize) -> Result<Rate>) -> Result<Primitive> {
        let (one, all) = (measure(1)?, measure(self.threads)?);
        let name = name.to_owned();
        Ok(Primitive { name, one: one.wall / 1e9, all: all.wall / 1e9, each_cpu_second: all.cpu / 1e9 })
    }

    fn decompression(&self) -> Result<Primitive> {
        self.both("zstd 3 decompression (bytes out)", |threads| self.decompression_on(threads))
    }

    fn decompression_on(&self, threads: usize) -> Result<Rate> {
        let mut zstd = zstd::bulk::Compressor::new(3)?;
        let compressed = self.sample.chunks().map(|chunk| zstd.compress(chunk)).collect::<Result<Vec<_>, _>>()?;
        let pieces: Vec<&[u8]> = compressed.iter().map(Vec::as_slice).collect();
        throughput(&pieces, threads, &|| {
            let mut zstd = zstd::bulk::Decompressor::new()?;
            let mut out = Vec::with_capacity(crate::sample::CHUNK);
            Ok(Box::new(move |piece| {
                out.clear();
                Ok(zstd.decompress_to_buffer(piece, &mut out)?)
            }))
        })
    }

    fn reading(&self) -> Result<Primitive> {
        let file = File::open(self.file).with_context(|| format!("cannot open {}", self.file.display()))?;
        let ranges = crate::input::data_of(self.file)?;
        let mut offsets = Vec::new();
        for range in ranges {
            offsets.extend((range.start..range.end).step_by(1 << 20).map(|at| (at, (range.end - at).min(1 << 20))));
        }
        offsets.truncate((self.sample.bytes() >> 20).max(1) as usize);
        self.both("reading the file", |threads| {
            concurrently(offsets.len(), threads, &|| {
                let mut buffer = vec![0; 1 << 20];
                let (file, offsets) = (&file, &offsets);
                Ok(Box::new(move |number: usize| {
                    let (at, length) = offsets[number];
                    file.read_exact_at(&mut buffer[..length as usize], at)?;
                    Ok(length as usize)
                }))
            })
        })
    }

    fn writing(&self) -> Result<Primitive> {
        self.both("writing a file", |threads| self.write(threads))
    }

    /// Into a new file every time: its pages have to be found and cleared, as in a restore.
    fn write(&self, threads: usize) -> Result<Rate> {
        let path = self.scratch.join("written");
        let chunks = self.chunks();
        let mut best = Rate::default();
        for _ in 0..2 {
            rustix::fs::syncfs(File::open(self.scratch)?)?;
            let file = OpenOptions::new().write(true).create_new(true).open(&path).context("cannot create a file")?;
            let rate = one_pass(chunks.len(), threads, &|| {
                let (file, chunks) = (&file, &chunks);
                Ok(Box::new(move |number: usize| {
                    file.write_all_at(chunks[number], number as u64 * crate::sample::CHUNK as u64)?;
                    Ok(chunks[number].len())
                }))
            })?;
            best = best.best(rate.0);
            std::fs::remove_file(&path)?;
        }
        Ok(best)
    }
}

fn hash(length: usize) -> impl Fn() -> Result<Work> + Sync {
    move || {
        let mut seen = 0u8;
        Ok(Box::new(move |piece| {
            for part in piece.chunks(length) {
                seen ^= blake3::keyed_hash(&[7; 32], part).as_bytes()[0];
            }
            std::hint::black_box(seen);
            Ok(piece.len())
        }))
    }
}

fn chunk() -> Result<Work> {
    let mut table = [0; 2048];
    crate::generate::Random::new(9).fill(&mut table);
    let chunker = Chunker::new(&table)?;
    Ok(Box::new(move |segment| {
        let mut rest = segment;
        while !rest.is_empty() {
            rest = &rest[chunker.cut(rest)..];
        }
        Ok(segment.len())
    }))
}

/// In place, frame by frame. What is encrypted does not matter to the speed, so it is always the same buffer.
fn seal(provider: &'static dyn AeadProvider) -> impl Fn() -> Result<Work> + Sync {
    move || {
        let key = provider.key(&[3; 32])?;
        let mut buffer = vec![0; FRAME];
        let mut nonce = 0u64;
        Ok(Box::new(move |piece| {
            for part in piece.chunks(FRAME) {
                nonce += 1;
                let mut bytes = [0; 12];
                bytes[4..].copy_from_slice(&nonce.to_be_bytes());
                std::hint::black_box(key.seal(&bytes, &mut buffer[..part.len()])?);
            }
            Ok(piece.len())
        }))
    }
}

/// In place, frame by frame; copying the ciphertext there first is part of it, and a small one.
fn open(provider: &'static dyn AeadProvider) -> impl Fn() -> Result<Work> + Sync {
    move || {
        let key = provider.key(&[3; 32])?;
        let mut sealed = vec![5; FRAME];
        let tag = key.seal(&[1; 12], &mut sealed)?;
        let mut buffer = vec![0; FRAME];
        Ok(Box::new(move |piece| {
            let frames = piece.len().div_ceil(FRAME);
            for _ in 0..frames {
                buffer.copy_from_slice(&sealed);
                ensure!(key.open(&[1; 12], &mut buffer, &tag), "a frame cannot be opened");
            }
            Ok(frames * FRAME)
        }))
    }
}

fn compress(level: i32) -> impl Fn() -> Result<Work> + Sync {
    move || {
        let mut zstd = zstd::bulk::Compressor::new(level)?;
        let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(crate::sample::CHUNK));
        Ok(Box::new(move |piece| {
            out.clear();
            zstd.compress_to_buffer(piece, &mut out)?;
            Ok(piece.len())
        }))
    }
}

/// Bytes a second of `work` on `pieces`, by `threads` threads.
fn throughput(pieces: &[&[u8]], threads: usize, work: &(dyn Fn() -> Result<Work> + Sync)) -> Result<Rate> {
    concurrently(pieces.len(), threads, &|| {
        let mut work = work()?;
        Ok(Box::new(move |number: usize| work(pieces[number])))
    })
}

type NumberedWork<'a> = Box<dyn FnMut(usize) -> Result<usize> + 'a>;

/// Bytes a second over the numbers below `count`: the best of up to three passes.
fn concurrently<'a>(
    count: usize,
    threads: usize,
    work: &(dyn Fn() -> Result<NumberedWork<'a>> + Sync),
) -> Result<Rate> {
    let (mut best, mut spent) = (Rate::default(), Duration::ZERO);
    for _ in 0..3 {
        let (rate, time) = one_pass(count, threads, work)?;
        best = best.best(rate);
        spent += time;
        if spent > ENOUGH {
            break;
        }
    }
    Ok(best)
}

fn one_pass<'a>(
    count: usize,
    threads: usize,
    work: &(dyn Fn() -> Result<NumberedWork<'a>> + Sync),
) -> Result<(Rate, Duration)> {
    let next = AtomicUsize::new(0);
    // Buffers are made before anybody begins.
    let ready = Barrier::new(threads);
    std::thread::scope(|scope| {
        let spawn = |_| {
            scope.spawn(|| -> Result<(usize, [Instant; 2], Duration)> {
                let work = work();
                ready.wait();
                let (started, cpu) = (Instant::now(), thread_cpu());
                let mut work = work?;
                let mut bytes = 0;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Ok((bytes, [started, Instant::now()], thread_cpu().saturating_sub(cpu)));
                    }
                    bytes += work(number)?;
                }
            })
        };
        let workers: Vec<_> = (0..threads).map(spawn).collect();
        let mut done = Vec::with_capacity(threads);
        for worker in workers {
            done.push(worker.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
        }
        // From when the first began until the last ended.
        let started = done.iter().map(|(_, [started, _], _)| *started).min().context("no threads")?;
        let ended = done.iter().map(|(_, [_, ended], _)| *ended).max().context("no threads")?;
        let (time, cpu) = (ended.duration_since(started), done.iter().map(|(.., cpu)| *cpu).sum());
        let bytes = done.iter().map(|(bytes, ..)| bytes).sum::<usize>() as f64;
        let per = |time: Duration| bytes / time.as_secs_f64().max(1e-9);
        Ok((Rate { wall: per(time), cpu: per(cpu) }, time))
    })
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
