//! Parity blocks of one stripe whose data comes block by block.

use crate::erasure::Code;

/// Data blocks that wait to be encoded together: sums of several are made once for all parity blocks.
const BATCH: usize = 16;

/// One stripe in the making.
#[derive(Debug)]
pub(crate) struct Encoder {
    code: Code,
    /// Data blocks that entered the parity.
    encoded: u8,
    waiting: Vec<Vec<u8>>,
    parity: Vec<Vec<u8>>,
}

impl Encoder {
    /// A stripe of blocks of `length` bytes.
    pub(crate) fn new(code: Code, length: usize) -> Self {
        let parity = vec![vec![0; length]; usize::from(code.parity)];
        Self { code, encoded: 0, waiting: Vec::new(), parity }
    }

    /// Takes the next data block.
    pub(crate) fn add(&mut self, block: Vec<u8>) {
        self.waiting.push(block);
        if self.waiting.len() >= BATCH {
            self.encode();
        }
    }

    /// The parity of all blocks that were taken.
    pub(crate) fn parity(&mut self) -> &[Vec<u8>] {
        self.encode();
        &self.parity
    }

    fn encode(&mut self) {
        let waiting: Vec<&[u8]> = self.waiting.iter().map(Vec::as_slice).collect();
        if !waiting.is_empty() {
            self.code.encoding(self.encoded, waiting.len()).add(&waiting, &mut self.parity);
            self.encoded = self.encoded.saturating_add(u8::try_from(waiting.len()).unwrap_or(u8::MAX));
            self.waiting.clear();
        }
    }
}
