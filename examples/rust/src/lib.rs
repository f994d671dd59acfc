//! Examples of the backup engine; run them with `cargo run --release --example NAME`.
