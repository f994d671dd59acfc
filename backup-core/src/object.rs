//! Sealing and opening one encrypted object: the only place where format, cryptography and storage names meet.
