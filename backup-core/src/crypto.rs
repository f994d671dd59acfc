//! Keys, hashes, signatures and authenticated encryption: thin, typed faces of well-known primitives.
