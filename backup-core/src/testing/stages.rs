//! The stages of the engine one by one, for measurements (`benches`).

use std::fmt;

use crate::chunk::{Gear, GearTable};
use crate::error::Result;
use crate::format::config::ChunkingParameters;

/// The chunker of streams, with lengths as in a new repository.
pub struct Chunker(Gear);

impl Chunker {
    /// A chunker with this table.
    ///
    /// # Errors
    ///
    /// None that is expected.
    pub fn new(table: &[u8; 2048]) -> Result<Self> {
        let sizes = ChunkingParameters::default();
        Gear::new(GearTable::new(table), sizes.stream_min, sizes.stream_avg, sizes.stream_max).map(Self)
    }

    /// Length of the first chunk of `input`, behind which nothing follows; 0 where that is empty.
    #[must_use]
    pub fn cut(&self, input: &[u8]) -> usize {
        self.0.cut(input, true).unwrap_or(0)
    }
}

impl fmt::Debug for Chunker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
