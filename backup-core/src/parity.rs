//! Parity in a repository: objects beside the others that bring back what is damaged or lost of them
//! (`docs/format.md`, "Parity").
//!
//! [`scrub`] reads every object, compares it with its name, and repairs what it can; [`protect`] only makes parity of what is new. Both
//! need no password: parity is made of
//! ciphertext, and tells nothing that the objects do not.

mod create;
mod group;
mod mend;
mod protect;
mod report;
mod scrub;

#[cfg(any(test, feature = "testing"))]
pub(crate) use self::group::{property, seed};
pub use self::protect::{ProtectReport, protect};
pub use self::report::{ScrubFinding, ScrubReport};
pub use self::scrub::{ScrubOptions, scrub};
