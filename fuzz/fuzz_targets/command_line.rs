#![no_main]
#![allow(dead_code, reason = "a part of the command, which is a program and no library")]

#[path = "../../backup-cli/src/selection/properties.rs"]
mod properties;
#[path = "../../backup-cli/src/selection.rs"]
mod selection;

/// What the command says where a text cannot be used.
mod exit {
    pub(crate) struct Failure;

    impl Failure {
        pub(crate) fn usage(_: impl Into<String>) -> Self {
            Self
        }
    }

    impl From<backup_core::Error> for Failure {
        fn from(_: backup_core::Error) -> Self {
            Self
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::command_line(bytes));
