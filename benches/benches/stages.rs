//! Each stage of the engine alone, on little data: `cargo bench -p backup-bench`.
//!
//! Fast enough to run before and after a change; `backup-bench primitives` and `engine` measure real inputs.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use backup_bench::generate::Random;
use backup_core::content::{Entry, EntryKind, EntryPath};
use backup_core::crypto::{AeadProvider, AesGcm, AwsLcRs};
use backup_core::entropy::SeededEntropy;
use backup_core::id::{ChunkId, ObjectName};
use backup_core::testing::stages::{
    ChunkIndex, Chunker, Compression, Ids, Pages, Sealing, build_pack, index_segment, parse_pack,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const MIB: usize = 1 << 20;
/// Chunks that an index is measured with.
const CHUNKS: usize = 1 << 16;
/// Chunks of a pack.
const PACK: usize = 16;

/// Text that compresses to about a third.
fn text(length: usize) -> Vec<u8> {
    let mut random = Random::new(1);
    let mut out = Vec::with_capacity(length + 40);
    while out.len() < length {
        let (name, value) = (random.small_below(500), random.below(1000));
        out.extend_from_slice(format!("row {name:>8} = {value};\n").as_bytes());
    }
    out.truncate(length);
    out
}

fn noise(length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    Random::new(2).fill(&mut out);
    out
}

fn ids(count: usize, seed: u64) -> Vec<ChunkId> {
    let mut random = Random::new(seed);
    let id = |_| {
        let mut id = [0; 32];
        random.fill(&mut id);
        ChunkId::new(id)
    };
    (0..count).map(id).collect()
}

fn packs(seed: u64) -> Vec<(ObjectName, Vec<ChunkId>)> {
    let names = ids(CHUNKS / PACK, seed + 1);
    let chunks = ids(CHUNKS, seed);
    names
        .iter()
        .zip(chunks.chunks(PACK))
        .map(|(name, part)| (ObjectName::new(*name.as_bytes()), part.to_vec()))
        .collect()
}

fn chunks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunk");
    let input = noise(8 * MIB);
    let mut table = [0; 2048];
    Random::new(3).fill(&mut table);
    let chunker = Chunker::new(&table).expect("a chunker");
    group.throughput(Throughput::Bytes(input.len() as u64));
    group.bench_function("boundaries", |bencher| {
        bencher.iter(|| {
            let mut rest = input.as_slice();
            while !rest.is_empty() {
                rest = &rest[chunker.cut(rest)..];
            }
        });
    });
    let ids = Ids::new(&[1; 32]).expect("keys");
    group.throughput(Throughput::Bytes(MIB as u64));
    group.bench_function("id", |bencher| bencher.iter(|| ids.of(black_box(&input[..MIB]))));
    group.finish();
}

fn compression(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compress");
    group.throughput(Throughput::Bytes(MIB as u64));
    let (text, noise) = (text(MIB), noise(MIB));
    let mut compression = Compression::new(3).expect("a compressor");
    group.bench_function("text", |bencher| bencher.iter(|| compression.compress(black_box(&text))));
    group.bench_function("noise, probed", |bencher| bencher.iter(|| compression.compress(black_box(&noise))));
    let (compressed, stored) = compression.compress(&text);
    group.bench_function("decompress text", |bencher| {
        bencher.iter(|| compression.decompress(compressed, black_box(&stored), MIB as u32).expect("the text"));
    });
    group.finish();
}

fn objects(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("object");
    let body = noise(8 * MIB);
    group.throughput(Throughput::Bytes(body.len() as u64));
    let providers: [Arc<dyn AeadProvider>; 2] = [Arc::new(AesGcm), Arc::new(AwsLcRs)];
    for provider in providers {
        let name = provider.name();
        let sealing = Sealing::new(provider, Arc::new(SeededEntropy::new(1))).expect("keys");
        group.bench_function(format!("seal, {name}"), |bencher| {
            bencher.iter(|| sealing.seal(&[black_box(&body)]).expect("an object"));
        });
        let object = sealing.seal(&[&body]).expect("an object");
        group.bench_function(format!("open, {name}"), |bencher| {
            bencher.iter(|| sealing.open(black_box(&object)).expect("the body"));
        });
    }
    group.finish();
}

fn packing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pack");
    let small = 4096;
    let chunks: Vec<(ChunkId, Vec<u8>)> = ids(1024, 5).into_iter().map(|id| (id, vec![7; small])).collect();
    group.throughput(Throughput::Elements(chunks.len() as u64));
    group.bench_function("build", |bencher| {
        bencher.iter_batched(|| chunks.clone(), |chunks| build_pack(chunks).expect("a pack"), BatchSize::LargeInput);
    });
    let body = build_pack(chunks).expect("a pack");
    group.bench_function("parse", |bencher| bencher.iter(|| parse_pack(black_box(&body)).expect("a directory")));
    group.finish();
}

fn index(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("index");
    let packs = packs(10);
    let segment = index_segment(&packs).expect("a segment");
    group.throughput(Throughput::Elements(CHUNKS as u64));
    group.bench_function("build a segment", |bencher| {
        bencher.iter(|| index_segment(black_box(&packs)).expect("a segment"));
    });
    group.bench_function("load a segment", |bencher| {
        bencher.iter_batched(ChunkIndex::new, |mut index| index.load(&segment).map(|()| index), BatchSize::LargeInput);
    });
    group.bench_function("insert packs", |bencher| {
        let insert = |index: ChunkIndex| {
            packs.iter().for_each(|(name, chunks)| index.insert(*name, chunks).expect("room"));
            index
        };
        bencher.iter_batched(ChunkIndex::new, insert, BatchSize::LargeInput);
    });
    let mut index = ChunkIndex::new();
    index.load(&segment).expect("a segment");
    let (known, unknown) = (ids(CHUNKS, 10), ids(CHUNKS, 99));
    let find = |ids: &[ChunkId]| ids.iter().filter(|id| index.contains(id)).count();
    assert_eq!((find(&known), find(&unknown)), (CHUNKS, 0));
    group.bench_function("look up known", |bencher| bencher.iter(|| find(black_box(&known))));
    group.bench_function("look up unknown", |bencher| bencher.iter(|| find(black_box(&unknown))));
    group.finish();
}

fn pages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pages");
    let chunks = ids(1 << 14, 20);
    let pages = Pages::default();
    group.throughput(Throughput::Elements(chunks.len() as u64));
    group.bench_function("write a content", |bencher| {
        bencher.iter(|| pages.write_content(black_box(&chunks)).expect("a content"));
    });
    let content = pages.write_content(&chunks).expect("a content");
    group.bench_function("read a content", |bencher| bencher.iter(|| pages.read_content(&content).expect("pages")));

    let mut random = Random::new(6);
    let entry = |number: usize| {
        let path = format!("home/user-{}/directory-{}/file-{number}", random.below(20), random.below(50));
        Entry::new(EntryPath::try_from(path.as_str()).expect("a path"), EntryKind::File)
    };
    let entries: Vec<Entry> = (0..20_000).map(entry).collect();
    group.throughput(Throughput::Elements(entries.len() as u64));
    group.bench_function("sort and write a catalogue", |bencher| {
        bencher.iter(|| pages.write_catalogue(black_box(&entries)).expect("a catalogue"));
    });
    let catalogue = pages.write_catalogue(&entries).expect("a catalogue");
    group.bench_function("read a catalogue", |bencher| {
        bencher.iter(|| pages.read_catalogue(&catalogue).expect("pages"));
    });
    group.finish();
}

criterion_group! {
    name = stages;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(10);
    targets = chunks, compression, objects, packing, index, pages
}
criterion_main!(stages);
