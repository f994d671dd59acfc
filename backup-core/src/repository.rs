//! The engine: one operation a file.
