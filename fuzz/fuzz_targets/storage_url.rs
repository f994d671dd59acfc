#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| backup_adapters::storage_url_property(bytes));
