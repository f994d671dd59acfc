//! Error-correcting codes beside each other, in GB (10^9 bytes) of data for each second of CPU on one core:
//! `cargo run --release -p backup-bench --example erasure`.

use std::hint::black_box;

use anyhow::{Context, Result, ensure};
use backup_bench::generate::Random;
use backup_core::testing::stages::ErrorCorrection;
use reed_solomon_erasure::galois_8::ReedSolomon;
use rustix::time::{ClockId, clock_gettime};

/// The payload of a block of an archive.
const LENGTH: usize = 65_472;
const ROUNDS: usize = 16;

/// Seconds of CPU that this thread has used.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// GB a second of `bytes` in each of several rounds; the best of three.
fn rate(bytes: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = 0.0f64;
    for _ in 0..3 {
        let begin = cpu();
        for _ in 0..ROUNDS {
            work()?;
        }
        best = best.max((bytes * ROUNDS) as f64 / (cpu() - begin) / 1e9);
    }
    Ok(best)
}

fn main() -> Result<()> {
    println!("| data + parity | this code | recovery with it | reed-solomon-simd | reed-solomon-erasure |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for (data, parity) in [(128u8, 4u8), (128, 8), (64, 16)] {
        let (k, m) = (usize::from(data), usize::from(parity));
        let mut random = Random::new(7);
        let mut blocks = vec![vec![0u8; LENGTH]; k];
        blocks.iter_mut().for_each(|block| random.fill(block));
        let slices: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
        let bytes = k * LENGTH;

        let own = ErrorCorrection::new(data, parity).context("the code fits the field")?;
        let mut made = vec![vec![0u8; LENGTH]; m];
        let encode = rate(bytes, || {
            made.iter_mut().for_each(|block| block.fill(0));
            own.encode(black_box(&slices), &mut made);
            Ok(())
        })?;
        let lost: Vec<u8> = (0..parity).map(|number| number * 3).collect();
        let of_parity: Vec<&[u8]> = made.iter().map(Vec::as_slice).collect();
        let recover = rate(bytes, || {
            let found = own.recover(black_box(&slices), &of_parity, &lost);
            ensure!(found.iter().zip(&lost).all(|(block, at)| *block == blocks[usize::from(*at)]), "a wrong block");
            Ok(())
        })?;
        let simd = rate(bytes, || {
            black_box(reed_solomon_simd::encode(k, m, black_box(&slices))?);
            Ok(())
        })?;
        let other = ReedSolomon::new(k, m)?;
        let mut shards = blocks.clone();
        shards.resize(k + m, vec![0u8; LENGTH]);
        let erasure = rate(bytes, || Ok(other.encode(black_box(&mut shards))?))?;
        println!("| {data} + {parity} | {encode:.2} | {recover:.2} | {simd:.2} | {erasure:.2} |");
    }
    Ok(())
}
