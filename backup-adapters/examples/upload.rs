//! How fast a bucket takes objects through `ObjectStorage`, and through the client of `object_store` alone: the measure for
//! what a backup or copy to object storage can reach. See `docs/performance.md`.
//!
//! ```sh
//! cargo run --release -p backup-adapters --features s3 --example upload -- s3://bucket/prefix 500 16 4 3
//! ```
//!
//! Megabytes in all, megabytes an object, requests at once, rounds. Settings and credentials come from the environment.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use backup_adapters::object::{Address, ObjectOptions, ObjectStorage};
use backup_core::storage::{Key, PutMode, Storage, StorageError};
use bytes::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ObjectStore, PutOptions, PutPayload};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, total, each, at_once, rounds] = arguments.as_slice() else {
        return Err("usage: upload s3://bucket/prefix MEGABYTES MEGABYTES-PER-OBJECT REQUESTS-AT-ONCE ROUNDS".into());
    };
    let address = Address::parse(url)?.ok_or("not the address of a bucket")?;
    let (total, each, at_once): (usize, usize, usize) = (total.parse()?, each.parse()?, at_once.parse()?);
    let objects: Vec<Bytes> = (0..total / each.max(1)).map(|number| noise(each << 20, number)).collect();
    let megabytes = (objects.len() * each) as f64 * 1.048_576;
    for round in 0..rounds.parse::<u32>()? {
        // Which comes first changes, as servers get slower or faster.
        for first in [round % 2 == 0, round % 2 != 0] {
            let place = format!("round-{round}");
            let begin = Instant::now();
            if first {
                plain(&address, &objects, at_once, &place)?;
            } else {
                adapted(&address, &objects, at_once, &place)?;
            }
            let seconds = begin.elapsed().as_secs_f64();
            let what = if first { "the client alone" } else { "ObjectStorage   " };
            println!("{what}  {megabytes:.0} MB in {seconds:.2} s, {:.0} MB/s", megabytes / seconds);
        }
    }
    Ok(())
}

/// As a program would that has nothing but the client: unconditional puts, so many at once.
fn plain(address: &Address, objects: &[Bytes], at_once: usize, place: &str) -> Result<(), Failure> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(&address.bucket);
    if let Some(endpoint) = &address.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &address.region {
        builder = builder.with_region(region);
    }
    let client = Arc::new(builder.build()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let next = Arc::new(AtomicUsize::new(0));
    let objects: Arc<[Bytes]> = objects.into();
    let (sender, receiver) = mpsc::channel();
    for _ in 0..at_once {
        let (client, next, objects, sender) =
            (Arc::clone(&client), Arc::clone(&next), Arc::clone(&objects), sender.clone());
        let prefix = format!("{}/{place}/plain", address.prefix);
        runtime.spawn(async move {
            while let Some((number, object)) = take(&next, &objects) {
                let path = Path::from(format!("{prefix}/{number:08}"));
                let put = client.put_opts(&path, PutPayload::from_bytes(object), PutOptions::default());
                if let Err(error) = put.await {
                    let _ = sender.send(error);
                }
            }
        });
    }
    drop(sender);
    receiver.recv().map_or(Ok(()), |error| Err(error.into()))
}

/// As the engine does it: each object created, on threads that wait.
fn adapted(address: &Address, objects: &[Bytes], at_once: usize, place: &str) -> Result<(), Failure> {
    let storage = ObjectStorage::open(address, &ObjectOptions::from_environment())?;
    let next = AtomicUsize::new(0);
    let put = || {
        while let Some((number, object)) = take(&next, objects) {
            let key = Key::new(format!("{place}/adapted/{number:08}"))
                .map_err(|error| StorageError::Other(Box::new(error)))?;
            storage.put(&key, object, PutMode::Create)?;
        }
        Ok::<(), StorageError>(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(put)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?.map_err(Into::into))
    })
}

fn take(next: &AtomicUsize, objects: &[Bytes]) -> Option<(usize, Bytes)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    objects.get(number).map(|object| (number, object.clone()))
}

/// Bytes that no server compresses.
fn noise(length: usize, seed: usize) -> Bytes {
    let mut content = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut content);
    content.into()
}
