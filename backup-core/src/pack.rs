//! Chunks gathered into packs.
