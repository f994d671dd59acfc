//! Keys, hashes, signatures and authenticated encryption: thin, typed faces of well-known primitives.
//!
//! Nothing here is of this project's own making: AES-256-GCM, HKDF-SHA256, BLAKE3, Ed25519 and Argon2id.
//! How they are put together is said in `docs/format.md`, "Keys".

mod aead;
mod aes_gcm;
#[cfg(feature = "aws-lc-rs")]
mod aws_lc;
pub(crate) mod hash;
pub(crate) mod kdf;
mod password;
mod sign;

pub use self::aead::{AeadKey, AeadProvider};
pub use self::aes_gcm::AesGcm;
#[cfg(feature = "aws-lc-rs")]
pub use self::aws_lc::AwsLcRs;
pub use self::password::Argon2Parameters;
pub use self::sign::VerifyingKey;
pub(crate) use self::sign::{SIGNATURE_LENGTH, SigningKey};
