//! How close an operation comes to what its primitives allow.

use serde::{Deserialize, Serialize};

/// Speeds of primitives on all threads together, in bytes a second. Infinite where nothing is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Finding where chunks end.
    pub chunk: f64,
    /// Keyed BLAKE3.
    pub hash: f64,
    /// zstd at the level of the repository.
    pub compress: f64,
    /// AES-256-GCM.
    pub seal: f64,
    /// The same, for reading.
    pub open: f64,
    /// zstd, bytes that come out.
    pub decompress: f64,
    /// Writing a new file.
    pub write: f64,
}

/// What an operation did, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Amounts {
    /// Content that was read from the source.
    pub read: u64,
    /// Content that the repository did not have.
    pub new: u64,
    /// What became of it, compressed.
    pub stored: u64,
    /// Content that came out of the repository.
    pub restored: u64,
    /// What it was there, compressed.
    pub fetched: u64,
    /// Content that was written to a file.
    pub written: u64,
    /// Objects that were hashed as they are.
    pub checked: u64,
}

impl Rates {
    /// The seconds that the primitives of an operation take at least: content that is read is chunked and hashed; what
    /// is new of it is compressed and sealed; what comes back is opened, decompressed and hashed, and written.
    #[must_use]
    pub fn seconds(&self, amounts: &Amounts) -> f64 {
        let part = |bytes: u64, rate: f64| bytes as f64 / rate;
        part(amounts.read, self.chunk)
            + part(amounts.read, self.hash)
            + part(amounts.new, self.compress)
            + part(amounts.stored, self.seal)
            + part(amounts.fetched, self.open)
            + part(amounts.restored, self.decompress)
            + part(amounts.restored, self.hash)
            + part(amounts.written, self.write)
            + part(amounts.checked, self.hash)
    }

    /// The share of `seconds` that the primitives take: 1 is the limit.
    #[must_use]
    pub fn efficiency(&self, amounts: &Amounts, seconds: f64) -> f64 {
        if seconds > 0.0 { self.seconds(amounts) / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates =
        Rates { chunk: 10.0, hash: 20.0, compress: 2.0, seal: 25.0, open: 50.0, decompress: 4.0, write: 5.0 };

    #[test]
    fn a_first_backup_is_the_sum_of_its_primitives() {
        let amounts = Amounts { read: 100, new: 100, stored: 50, ..Amounts::default() };
        assert_eq!(RATES.seconds(&amounts), 10.0 + 5.0 + 50.0 + 2.0);
        assert_eq!(RATES.efficiency(&amounts, 134.0), 0.5);
        let image = Rates { chunk: f64::INFINITY, ..RATES };
        assert_eq!(image.seconds(&amounts), 5.0 + 50.0 + 2.0);
    }

    #[test]
    fn a_rescan_is_chunked_and_hashed() {
        let amounts = Amounts { read: 100, ..Amounts::default() };
        assert_eq!(RATES.efficiency(&amounts, 15.0), 1.0);
    }

    #[test]
    fn a_restore_is_opened_decompressed_hashed_and_written() {
        let amounts = Amounts { restored: 100, fetched: 50, written: 100, ..Amounts::default() };
        assert_eq!(RATES.seconds(&amounts), 1.0 + 25.0 + 5.0 + 20.0);
        assert_eq!(RATES.efficiency(&amounts, 0.0), 0.0);
    }
}
