//! A database dump.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::generate::{Random, words};

/// Writes a dump of about `length` bytes: rows of people's orders, as `pg_dump` writes them. On day 1 one row in a
/// hundred is updated, wherever it stands, and a few are new.
///
/// # Errors
///
/// Where the file cannot be written.
pub fn write_dump(path: &Path, length: u64, day: u64) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let words = words(500);
    let mut written = 0;
    let mut line = String::new();
    out.write_all(b"SET client_encoding = 'UTF8';\n\nCOPY public.orders (id, owner, place, amount, state, changed, reference) FROM stdin;\n")?;
    let mut number = 0;
    while written < length {
        row(&mut line, &words, number, day);
        out.write_all(line.as_bytes())?;
        number += 1;
        // The length is that of the first day.
        if day == 0 {
            written += line.len() as u64;
        } else {
            row(&mut line, &words, number - 1, 0);
            written += line.len() as u64;
        }
    }
    for added in 0..day * number / 500 {
        row(&mut line, &words, number + added, 0);
        out.write_all(line.as_bytes())?;
    }
    out.write_all(b"\\.\n")?;
    out.flush()
}

fn row(line: &mut String, words: &[String], number: u64, day: u64) {
    use std::fmt::Write as _;

    let mut random = Random::new(number.wrapping_mul(0x9e37_79b9));
    let updated = day > 0 && random.below(100) == 0;
    if day == 0 {
        random.number();
    }
    let word = |random: &mut Random| &words[random.small_below(words.len() as u64) as usize];
    let (first, last, street, town) = (word(&mut random), word(&mut random), word(&mut random), word(&mut random));
    let (house, cents, reference) = (random.below(200), random.below(100_000), random.number());
    let state = if updated { "updated" } else { ["open", "sent", "paid", "returned"][(reference % 4) as usize] };
    let seconds = 1_700_000_000 + number * 7 + if updated { 86_400 } else { 0 };
    line.clear();
    let written = writeln!(
        line,
        "{number}\t{first} {last}\t{street} street {house}, {town}\t{}.{:02}\t{state}\t{seconds}\t{reference:016x}",
        cents / 100,
        cents % 100
    );
    debug_assert!(written.is_ok(), "a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(day: u64) -> String {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("dump");
        write_dump(&path, 1 << 20, day).unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn rows_are_updated_all_over() {
        let (first, next) = (dump(0), dump(1));
        assert!((1 << 20..(1 << 20) + 1000).contains(&first.len()), "{}", first.len());
        let changed: Vec<usize> =
            first.lines().zip(next.lines()).enumerate().filter(|(_, (a, b))| a != b).map(|(at, _)| at).collect();
        let rows = first.lines().count();
        assert!((rows / 200..rows / 50).contains(&changed.len()), "{} of {rows}", changed.len());
        assert!(changed[0] < rows / 20);
        assert!(changed.iter().any(|at| (rows / 2..rows / 2 + rows / 20).contains(at)));
        assert!(next.lines().count() > rows);
        let ratio = first.len() as f64 / zstd::bulk::compress(first.as_bytes(), 3).unwrap().len() as f64;
        assert!((2.0..5.0).contains(&ratio), "{ratio}");
    }

    #[test]
    fn dumps_are_always_the_same() {
        let digest = |day| blake3::hash(dump(day).as_bytes()).to_hex()[..16].to_owned();
        assert_eq!([digest(0), digest(0), digest(1)], ["1ea9ca0432c8e396", "1ea9ca0432c8e396", "1227b9bca2180bd4"]);
    }
}
