#![no_main]
#![allow(dead_code, reason = "a part of what the tests of the engine share")]

#[path = "../../backup-core/tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| support::mutation::repository(bytes));
