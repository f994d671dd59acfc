//! Where chunks are.
