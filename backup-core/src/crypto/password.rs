//! Argon2id: from a password to a key, at a cost that is bounded on both sides.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroize;

use crate::error::{Error, Result};
use crate::length;
use crate::secret::{Password, Secret};

/// What one guess of a password costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[non_exhaustive]
pub struct Argon2Parameters {
    /// Memory in KiB. Default 196608 (192 MiB), so that a whole process stays below 256 MiB; at 3 iterations 3 times
    /// the second choice of RFC 9106 (64 MiB).
    pub memory_kib: u32,
    /// Passes over the memory. Default 3.
    pub iterations: u32,
    /// Lanes that may be computed at once. Default 4.
    pub parallelism: u32,
}

impl Argon2Parameters {
    /// The least memory that a new key slot may use: 64 MiB (RFC 9106, second recommended option).
    pub const FLOOR_KIB: u32 = 64 << 10;
    /// The most memory that opening a slot may use, whatever the caller allows: 1 GiB.
    pub const MAX_MEMORY_KIB: u32 = 1 << 20;
    /// The most passes.
    pub const MAX_ITERATIONS: u32 = 16;
    /// The most lanes.
    pub const MAX_PARALLELISM: u32 = 16;
    /// The most memory times passes: 4 GiB.
    pub const MAX_WORK_KIB: u64 = 4 << 20;

    /// Parameters for a new key slot.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] below the floor; [`Error::LimitExceeded`] above what opening allows.
    pub fn new(memory_kib: u32, iterations: u32, parallelism: u32) -> Result<Self> {
        let parameters = Self { memory_kib, iterations, parallelism };
        parameters.check_floor()?;
        parameters.check_limits(u64::from(Self::MAX_MEMORY_KIB) << 10)?;
        Ok(parameters)
    }

    /// Parameters that protect nothing but keep tests fast: 8 MiB, one pass.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub const fn minimum_for_tests() -> Self {
        Self { memory_kib: 8 << 10, iterations: 1, parallelism: 4 }
    }

    /// Whether a new slot may use these parameters.
    pub(crate) fn check_floor(&self) -> Result<()> {
        #[cfg(any(test, feature = "testing"))]
        if *self == Self::minimum_for_tests() {
            return Ok(());
        }
        if self.memory_kib < Self::FLOOR_KIB || self.iterations == 0 || self.parallelism == 0 {
            return Err(Error::invalid(
                "Argon2id parameters",
                format!("at least {} KiB, one pass and one lane are needed", Self::FLOOR_KIB),
            ));
        }
        Ok(())
    }

    /// Whether a slot with these parameters may be opened by a caller that allows `max_memory` bytes:
    /// the slot may come from somebody who wants to exhaust this machine.
    pub(crate) fn check_limits(&self, max_memory: u64) -> Result<()> {
        let memory = u64::from(self.memory_kib) << 10;
        let memory_limit = max_memory.min(u64::from(Self::MAX_MEMORY_KIB) << 10);
        let work = memory.saturating_mul(u64::from(self.iterations));
        for (what, value, limit) in [
            ("memory of a key slot in bytes", memory, memory_limit),
            ("passes of a key slot", self.iterations.into(), Self::MAX_ITERATIONS.into()),
            ("lanes of a key slot", self.parallelism.into(), Self::MAX_PARALLELISM.into()),
            ("memory times passes of a key slot in bytes", work, Self::MAX_WORK_KIB << 10),
        ] {
            if value > limit {
                return Err(Error::limit(what, value, limit));
            }
        }
        Ok(())
    }

    /// `Argon2id(NFC(password), salt, 32 bytes, secret = key file)`.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] where the memory cannot be had; [`Error::InvalidArgument`] where
    /// Argon2 has no such parameters.
    pub(crate) fn derive(&self, password: &Password, key_file: Option<&[u8]>, salt: &[u8; 32]) -> Result<Secret<32>> {
        let invalid = |error: argon2::Error| Error::invalid("Argon2id parameters", error.to_string());
        let parameters = Params::new(self.memory_kib, self.iterations, self.parallelism, Some(32)).map_err(invalid)?;
        let blocks = parameters.block_count();
        let argon2 =
            Argon2::new_with_secret(key_file.unwrap_or_default(), Algorithm::Argon2id, Version::V0x13, parameters)
                .map_err(invalid)?;
        let mut memory = Memory::new(blocks)?;
        let password = password.normalized();
        Secret::build(|key| argon2.hash_password_into_with_memory(&password, salt, key, &mut memory.0).map_err(invalid))
    }
}

impl Default for Argon2Parameters {
    fn default() -> Self {
        Self { memory_kib: 192 << 10, iterations: 3, parallelism: 4 }
    }
}

/// The working memory of one derivation, wiped when dropped.
struct Memory(Vec<Block>);

impl Memory {
    fn new(blocks: usize) -> Result<Self> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(blocks).map_err(|_| {
            let bytes = length::to_u64(blocks).saturating_mul(length::to_u64(Block::SIZE));
            Error::limit("memory of a key slot in bytes (more than the system has)", bytes, 0)
        })?;
        memory.resize(blocks, Block::new());
        Ok(Self(memory))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That it is Argon2id is checked by `tests/vectors/check.py` with the reference implementation.
    #[test]
    fn password_key_file_and_salt_all_matter() {
        let parameters = Argon2Parameters::minimum_for_tests();
        let derive = |password: &str, key_file: Option<&[u8]>, salt| {
            *parameters.derive(&Password::from(password), key_file, &[salt; 32]).unwrap().expose()
        };
        let base = derive("secret", None, 1);
        assert_eq!(base, derive("secret", None, 1));
        assert_eq!(base, derive("secret", Some(b""), 1));
        assert_ne!(base, derive("secres", None, 1));
        assert_ne!(base, derive("secret", Some(b"file"), 1));
        assert_ne!(base, derive("secret", None, 2));
    }

    #[test]
    fn parameters_are_bounded_on_both_sides() {
        assert!(Argon2Parameters::new(64 << 10, 1, 1).is_ok());
        assert!(Argon2Parameters::new((64 << 10) - 1, 1, 1).is_err());
        assert!(Argon2Parameters::new(64 << 10, 0, 1).is_err());
        assert!(Argon2Parameters::new(64 << 10, 1, 0).is_err());
        assert!(Argon2Parameters::new(1 << 20, 4, 1).is_ok());
        assert!(Argon2Parameters::new(1 << 20, 5, 1).is_err());
        assert!(Argon2Parameters::new((1 << 20) + 1, 1, 1).is_err());
        assert!(Argon2Parameters::new(64 << 10, 17, 1).is_err());
        assert!(Argon2Parameters::new(64 << 10, 1, 17).is_err());
        let default = Argon2Parameters::default();
        default.check_floor().unwrap();
        default.check_limits(256 << 20).unwrap();
        assert!(default.check_limits((192 << 20) - 1).is_err());
    }

    #[test]
    fn impossible_parameters_are_errors() {
        let parameters = Argon2Parameters { memory_kib: 8, iterations: 1, parallelism: 16 };
        assert!(parameters.derive(&Password::from("x"), None, &[0; 32]).is_err());
        let parameters = Argon2Parameters { memory_kib: 64, iterations: 0, parallelism: 1 };
        assert!(parameters.derive(&Password::from("x"), None, &[0; 32]).is_err());
    }
}
