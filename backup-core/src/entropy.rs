//! Randomness as an argument: the core has none of its own.

use crate::error::{Error, Result};

/// A source of cryptographically secure random bytes.
///
/// Sealing is hedged (`docs/format.md`, "Sealing"): the salt of an object also depends on its
/// content, so that a generator that repeats itself does not repeat a key for different contents.
pub trait Entropy: Send + Sync {
    /// Fills `buffer` with random bytes.
    ///
    /// # Errors
    ///
    /// Whatever keeps the generator from delivering; the operation that asked fails with it.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError>;
}

/// The generator could not deliver.
#[derive(Debug, thiserror::Error)]
#[error("the random number generator failed: {0}")]
pub struct EntropyError(pub String);

impl From<EntropyError> for Error {
    fn from(error: EntropyError) -> Self {
        Self::invalid("entropy", error.0)
    }
}

impl<E: Entropy + ?Sized> Entropy for &E {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        (**self).fill(buffer)
    }
}

impl<E: Entropy + ?Sized> Entropy for std::sync::Arc<E> {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        (**self).fill(buffer)
    }
}

/// The operating system's generator.
#[cfg(feature = "os-entropy")]
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

#[cfg(feature = "os-entropy")]
impl Entropy for OsEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(buffer).map_err(|error| EntropyError(error.to_string()))
    }
}

/// A deterministic generator (BLAKE3 in counter mode over a seed): for tests and vectors only.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug)]
pub struct SeededEntropy {
    seed: [u8; 32],
    position: std::sync::atomic::AtomicU64,
}

#[cfg(any(test, feature = "testing"))]
impl SeededEntropy {
    /// A generator that yields the same bytes for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut key = [0; 32];
        key.iter_mut().zip(seed.to_le_bytes()).for_each(|(out, byte)| *out = byte);
        Self { seed: key, position: std::sync::atomic::AtomicU64::new(0) }
    }
}

#[cfg(any(test, feature = "testing"))]
impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        let call = self.position.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(&call.to_le_bytes());
        hasher.finalize_xof().fill(buffer);
        Ok(())
    }
}
