//! A sparse disk image.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::generate::{Random, words};

const BLOCK: u64 = 4096;

/// What stands in a file of the file system in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// Words and punctuation.
    Text,
    /// Programs and tables: short patterns that recur, with numbers between them.
    Binary,
    /// What is compressed or encrypted already.
    Incompressible,
    /// Allocated, but zero.
    Zero,
}

/// A run of blocks with a file in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    offset: u64,
    length: u64,
    content: Content,
    seed: u64,
}

/// Writes an image of `length` bytes, a quarter of it data. Day 0 is the first; on day 1 a twelfth of the data is new.
///
/// # Errors
///
/// Where the file cannot be written.
pub fn write_image(path: &Path, length: u64, day: u64) -> io::Result<()> {
    let file = File::create(path)?;
    file.set_len(length)?;
    let mut writer = Writer::new();
    for extent in extents(length, day) {
        let bytes = writer.content(&extent);
        file.write_all_at(bytes, extent.offset)?;
    }
    Ok(())
}

/// Files of 4 KiB to 16 MiB, most of them small, most of the data in large ones; three times as much room between them.
fn extents(length: u64, day: u64) -> Vec<Extent> {
    let mut random = Random::new(1);
    let mut changes = Random::new(0x00c4_a6e5);
    let mut extents = Vec::new();
    let mut offset = 0;
    loop {
        let length_of_it = BLOCK << random.below(13);
        let length_of_it = length_of_it - random.below(length_of_it / BLOCK) / 2 * BLOCK;
        let content = match random.below(20) {
            0..7 => Content::Text,
            7..16 => Content::Binary,
            16..19 => Content::Incompressible,
            _ => Content::Zero,
        };
        let seed = random.number();
        // Files end anywhere, extents at a block.
        let space = length_of_it * 2 + random.below(2 * length_of_it / BLOCK) * BLOCK;
        if offset + length_of_it > length {
            return extents;
        }
        let changed = changes.below(12) == 0 && day > 0;
        extents.push(Extent { offset, length: length_of_it, content, seed: if changed { !seed } else { seed } });
        offset += length_of_it + space;
    }
}

struct Writer {
    words: Vec<String>,
    patterns: Vec<[u8; 12]>,
    buffer: Vec<u8>,
}

impl Writer {
    fn new() -> Self {
        let mut random = Random::new(3);
        let pattern = |_| {
            let mut pattern = [0; 12];
            random.fill(&mut pattern);
            pattern
        };
        Self { words: words(2000), patterns: (0..4096).map(pattern).collect(), buffer: Vec::new() }
    }

    fn content(&mut self, extent: &Extent) -> &[u8] {
        let length = extent.length as usize;
        let mut random = Random::new(extent.seed);
        self.buffer.clear();
        match extent.content {
            Content::Text => {
                while self.buffer.len() < length {
                    let word = &self.words[random.small_below(self.words.len() as u64) as usize];
                    self.buffer.extend_from_slice(word.as_bytes());
                    self.buffer.extend_from_slice(match random.below(16) {
                        0 => b",\n    ",
                        1 => b"(",
                        2 => b" = ",
                        _ => b" ",
                    });
                }
            }
            Content::Binary => {
                while self.buffer.len() < length {
                    let pattern = &self.patterns[random.small_below(self.patterns.len() as u64) as usize];
                    self.buffer.extend_from_slice(&pattern[..4 + random.below(9) as usize]);
                    if random.below(3) == 0 {
                        self.buffer.extend_from_slice(&random.number().to_le_bytes()[..3]);
                    }
                }
            }
            Content::Incompressible => {
                self.buffer.resize(length, 0);
                random.fill(&mut self.buffer);
            }
            Content::Zero => self.buffer.resize(length, 0),
        }
        self.buffer.truncate(length);
        &self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_data_and_a_twelfth_changes() {
        let length = 4 << 30;
        let (first, next) = (extents(length, 0), extents(length, 1));
        let sum = |extents: &[Extent]| extents.iter().map(|extent| extent.length).sum::<u64>();
        let share = sum(&first) as f64 / length as f64;
        assert!((0.2..0.3).contains(&share), "{share}");
        assert!(first.is_sorted_by(|one, two| one.offset + one.length <= two.offset));
        let changed: Vec<Extent> = next.iter().zip(&first).filter(|(a, b)| a != b).map(|(a, _)| *a).collect();
        let share = sum(&changed) as f64 / sum(&first) as f64;
        assert!((0.04..0.14).contains(&share), "{share}");
    }

    #[test]
    fn contents_compress_as_their_kinds_do() {
        let mut writer = Writer::new();
        let mut ratio = |content| {
            let bytes = writer.content(&Extent { offset: 0, length: 1 << 20, content, seed: 5 });
            bytes.len() as f64 / zstd::bulk::compress(bytes, 3).unwrap().len() as f64
        };
        let (text, binary) = (ratio(Content::Text), ratio(Content::Binary));
        assert!((2.0..6.0).contains(&text), "{text}");
        assert!((1.3..3.5).contains(&binary), "{binary}");
        assert!(ratio(Content::Incompressible) < 1.01);
        assert!(ratio(Content::Zero) > 1000.0);
    }

    #[test]
    fn images_are_always_the_same() {
        let here = tempfile::tempdir().unwrap();
        let digest = |day| {
            let path = here.path().join("image");
            write_image(&path, 8 << 20, day).unwrap();
            let bytes = std::fs::read(path).unwrap();
            assert_eq!(bytes.len(), 8 << 20);
            blake3::hash(&bytes).to_hex()[..16].to_owned()
        };
        assert_eq!([digest(0), digest(0), digest(1)], ["aa2c478822401e0a", "aa2c478822401e0a", "a32659d28527f24b"]);
    }
}
