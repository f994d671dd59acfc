//! Made-up inputs: a sparse disk image and a database dump, each with its next day. The same on every machine and
//! every run, and like real ones in what matters: how well they compress, how they repeat, what changes.

mod dump;
mod image;

pub use self::dump::write_dump;
pub use self::image::write_image;

/// Numbers that look random and are always the same (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// A number below `end`, small ones far more often than large ones, as words in a language.
    pub const fn small_below(&mut self, end: u64) -> u64 {
        let (one, two) = (self.below(end), self.below(end));
        one * two / end * self.below(end) / end
    }

    /// Fills a buffer.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for part in buffer.chunks_mut(8) {
            part.copy_from_slice(&self.number().to_le_bytes()[..part.len()]);
        }
    }
}

/// The words of made-up text: `count` of them, 2 to 12 letters.
fn words(count: usize) -> Vec<String> {
    const SYLLABLES: [&str; 24] = [
        "an", "be", "con", "der", "en", "for", "gra", "hin", "ing", "ka", "lo", "men", "na", "or", "pre", "qui", "re",
        "sta", "tion", "un", "ver", "wa", "xi", "zo",
    ];
    let mut random = Random::new(7);
    let syllable = |random: &mut Random| SYLLABLES[random.below(24) as usize];
    (0..count).map(|_| (0..=random.below(3)).map(|_| syllable(&mut random)).collect()).collect()
}
