//! Key slots.

use backup_core::storage::{Key, Storage};

use crate::cases::{Cases, Expected};
use crate::support::forger::{get, overwrite};

pub(crate) fn add(cases: &mut Cases) {
    let slot = cases.first("keys/", "");
    let damaged: Expected = ("open", "damaged");
    let limit: Expected = ("open", "limit-exceeded");
    cases.rule(3);
    let mut patch = |name, rule, expected, at: usize, bytes: &[u8]| {
        cases.edit(name, rule, expected, &slot, |slot| slot[at..at + bytes.len()].copy_from_slice(bytes));
    };
    patch("slot-magic", "key slot: it begins with the magic bytes", damaged, 1, b"b");
    patch("slot-version", "key slot: the version is 1", ("open", "unsupported"), 8, &[2]);
    patch("slot-derivation", "key slot: the derivation is known", ("open", "unsupported"), 9, &[3]);
    patch("slot-reserved", "key slot: reserved bytes are zero", damaged, 10, &[1]);
    patch("slot-reserved-60", "key slot: reserved bytes are zero", damaged, 63, &[1]);
    patch("slot-reserved-160", "key slot: reserved bytes are zero", damaged, 175, &[1]);
    patch("slot-flags", "key slot: flags are zero", ("open", "unsupported"), 15, &[0x80]);
    patch("slot-repository", "key slot: it is of this repository", damaged, 16, &[0; 16]);
    patch("slot-id", "key slot: it stands under its id", damaged, 32, &[0; 16]);
    patch("slot-memory", "key slot: memory is at most 1 GiB", limit, 48, &[0xff; 4]);
    patch("slot-memory-above", "key slot: memory is at most 1 GiB", limit, 48, &((1 << 20) + 1u32).to_le_bytes());
    patch("slot-passes", "key slot: passes are at most 16", limit, 52, &[0xff; 4]);
    patch("slot-passes-above", "key slot: passes are at most 16", limit, 52, &17u32.to_le_bytes());
    patch("slot-lanes", "key slot: lanes are at most 16", limit, 56, &17u32.to_le_bytes());
    // 1 GiB and 5 passes.
    patch("slot-work", "key slot: memory times passes is at most 4 GiB", limit, 48, &[0, 0, 16, 0, 5, 0, 0, 0]);
    patch("slot-passes-zero", "key slot: at least one pass", ("open", "invalid-argument"), 52, &[0; 4]);
    patch("slot-lanes-zero", "key slot: at least one lane", ("open", "invalid-argument"), 56, &[0; 4]);
    patch("slot-memory-zero", "key slot: at least 8 KiB of memory a lane", ("open", "invalid-argument"), 48, &[0; 4]);
    patch("slot-recovery-parameters", "key slot: no parameters for a recovery key", damaged, 9, &[2]);
    patch("slot-label-length", "key slot: a label has at most 63 bytes", damaged, 96, &[64]);
    patch("slot-label-tail", "key slot: zeros behind the label", damaged, 159, &[1]);
    patch("slot-label-control", "key slot: no control characters in the label", damaged, 97, &[0x1b]);
    patch("slot-label-c1", "key slot: no control characters in the label", damaged, 97, &[0xc2, 0x9b]);
    patch("slot-label-text", "key slot: the label is UTF-8", damaged, 97, &[0xff]);
    patch("slot-commitment", "key slot: the key is committed to", ("open", "wrong-password"), 180, &[0]);
    patch("slot-wrapped", "key slot: the wrapped key is authentic", ("open", "wrong-password"), 255, &[0]);
    patch("slot-salt", "key slot: every byte is bound to the key", ("open", "wrong-password"), 64, &[0; 32]);
    cases.edit("slot-cut", "key slot: 256 bytes", damaged, &slot, |bytes| bytes.truncate(255));
    cases.edit("slot-long", "key slot: 256 bytes", damaged, &slot, |bytes| bytes.push(0));
    cases.add("slot-missing", "key slot: one that opens", ("open", "damaged"), |storage, _| {
        storage.delete(&slot).unwrap();
        "keys/".to_owned()
    });
    cases.add(
        "slot-beside",
        "key slot: a damaged one is reported and keeps none from opening",
        ("verify", "record"),
        |storage, _| {
            let key = Key::new("keys/00000000000000000000000000000000").unwrap();
            overwrite(storage, &key, &get(storage, &slot)[..200]);
            key.to_string()
        },
    );
}
