//! Cutting content into chunks.
