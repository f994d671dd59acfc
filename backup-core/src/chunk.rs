//! Cutting content into chunks.
//!
//! Two chunkers: fixed sizes for images (a multiplication, done where it is needed) and `gear` for
//! streams. A reader needs neither: content is a list of chunk references, however they were cut.

mod fixed;
mod gear;

pub(crate) use self::fixed::is_zero;
pub(crate) use self::gear::{Gear, GearTable};
