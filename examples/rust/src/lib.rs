//! The programs in `examples/` show one use each; `cargo run --release --example quickstart` is the first to try.
//!
//! The README is part of this documentation so that its Rust is compiled and run by the tests.
#![doc = include_str!("../../../README.md")]
