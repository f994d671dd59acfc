//! The commit protocol: sessions, outcomes, validity.
