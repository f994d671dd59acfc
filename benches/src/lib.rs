//! Measurements of the backup engine. `cargo run --release -p backup-bench -- help` lists them.
//!
//! What is compared is always measured in the same run, on the same input: this machine is faster today
//! than it will be tomorrow.
#![forbid(unsafe_code)]

pub mod arguments;
pub mod changes;
pub mod compare;
pub mod efficiency;
pub mod engine;
pub mod generate;
pub mod index;
pub mod input;
pub mod measure;
pub mod operation;
pub mod primitives;
pub mod requests;
pub mod sample;
pub mod table;
pub mod tools;
