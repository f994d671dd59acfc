//! A storage in memory.

/// A storage in memory: for tests, examples and small caches.
#[derive(Debug, Default)]
pub struct MemoryStorage;
