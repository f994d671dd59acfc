//! The config, and with it the profile of structured bodies and the verifying keys.

use crate::cases::Cases;
use crate::support::cbor::{Item, list, map};

/// The order of the field is 2^255 - 19.
fn field_prime() -> [u8; 32] {
    let mut bytes = [0xff; 32];
    (bytes[0], bytes[31]) = (0xed, 0x7f);
    bytes
}

pub(crate) fn add(cases: &mut Cases) {
    let key = cases.first("config", "");
    let config = Item::decode(&cases.golden[&key]);
    let damaged = ("open", "damaged");

    cases.rule(1);
    cases.edit("config-long", "config: at most 64 KiB", ("open", "limit-exceeded"), &key, |bytes| {
        bytes.resize(65_537, 0);
    });
    cases.add("config-missing", "config: without it there is no repository", ("open", "damaged"), |storage, _| {
        backup_core::storage::Storage::delete(&**storage, &key).unwrap();
        key.to_string()
    });

    // The profile, shown with fields that a reader would otherwise ignore: all of a document is checked.
    cases.rule(4);
    let mut profile = |name, rule, raw: &[u8]| {
        let changed = config.clone().with(128, Item::Raw(raw.to_vec())).encode();
        cases.edit(name, rule, damaged, &key, |bytes| *bytes = changed);
    };
    profile("cbor-integer-long", "profile: integers are in their shortest form", &[0x18, 0x17]);
    profile("cbor-integer-long-16", "profile: integers are in their shortest form", &[0x19, 0, 0xff]);
    profile("cbor-integer-long-32", "profile: integers are in their shortest form", &[0x1a, 0, 0, 0xff, 0xff]);
    profile(
        "cbor-integer-long-64",
        "profile: integers are in their shortest form",
        &[0x1b, 0, 0, 0, 0, 255, 255, 255, 255],
    );
    profile("cbor-length-long", "profile: lengths are in their shortest form", &[0x58, 1, 0]);
    profile("cbor-negative-large", "profile: negative integers are from -2^63 on", &[0x3b, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    profile("cbor-indefinite-bytes", "profile: lengths are definite", &[0x5f, 0x41, 0, 0xff]);
    profile("cbor-indefinite-array", "profile: lengths are definite", &[0x9f, 0xff]);
    profile("cbor-indefinite-map", "profile: lengths are definite", &[0xbf, 0xff]);
    profile("cbor-float-16", "profile: no floats", &[0xf9, 0, 0]);
    profile("cbor-float-64", "profile: no floats", &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0]);
    profile("cbor-tag", "profile: no tags", &[0xc0, 0x60]);
    profile("cbor-null", "profile: no null", &[0xf6]);
    profile("cbor-undefined", "profile: no undefined", &[0xf7]);
    profile("cbor-simple", "profile: no other simple values", &[0xe0]);
    profile("cbor-reserved", "profile: no reserved heads", &[0x1c]);
    profile("cbor-text", "profile: text is UTF-8", &[0x62, 0xc3, 0x28]);
    profile("cbor-text-surrogate", "profile: text is UTF-8", &[0x63, 0xed, 0xa0, 0x80]);
    profile("cbor-map-text-key", "profile: map keys are unsigned integers", &[0xa1, 0x61, b'a', 0]);
    profile("cbor-map-order", "profile: map keys ascend", &[0xa2, 2, 0, 1, 0]);
    profile("cbor-map-duplicate", "profile: map keys are strictly ascending", &[0xa2, 1, 0, 1, 0]);
    profile("cbor-depth", "profile: at most 8 deep", &[&[0x81; 7][..], &[0x80]].concat());
    profile("cbor-count", "profile: counts fit what is left", &[0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    profile("cbor-map-count", "profile: counts fit what is left", &[0xbb, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    profile("cbor-length", "profile: lengths fit what is left", &[0x5b, 0x7f, 255, 255, 255, 255, 255, 255, 255]);

    let mut edit = |name, rule, expect, changed: Vec<u8>| {
        cases.edit(name, rule, ("open", expect), &key, |bytes| *bytes = changed);
    };
    let bytes = config.encode();
    edit("config-cut", "config: nothing is missing", "damaged", bytes[..40].to_vec());
    edit("config-tail", "config: nothing follows", "damaged", [&bytes[..], &[0]].concat());
    edit("config-array", "config: a map", "damaged", Item::Array(vec![config.clone()]).encode());
    edit("config-missing-field", "config: no field is missing", "damaged", config.clone().without(6).encode());
    edit("config-unknown-field", "config: fields below 128 are known", "damaged", config.clone().with(127, 0).encode());
    edit("config-chunking-unknown-field", "config: fields below 128 are known", "damaged", {
        let chunking = config.get(7).clone().with(5, 0);
        config.clone().with(7, chunking).encode()
    });
    let mut with =
        |name, rule, expect, field, item: Item| edit(name, rule, expect, config.clone().with(field, item).encode());
    with("config-type", "config: fields have their type", "damaged", 6, 0.into());
    with("config-repository-short", "config: a repository id has 16 bytes", "damaged", 2, [0; 15].into());
    with("config-magic", "config: it begins with the magic text", "damaged", 0, "backup repositorY".into());
    with("config-version", "config: the version is 1", "unsupported", 1, 2.into());
    with("config-feature", "config: incompatible features are known", "unsupported", 5, list(["other-pack".into()]));
    with("config-feature-order", "config: features ascend", "damaged", 3, list(["b".into(), "a".into()]));
    with("config-feature-twice", "config: features ascend strictly", "damaged", 3, list(["a".into(), "a".into()]));
    with("config-feature-word", "config: features are words of a-z 0-9 -", "damaged", 4, list(["Word".into()]));
    with(
        "config-feature-long",
        "config: features have at most 64 characters",
        "damaged",
        4,
        list(["a".repeat(65).as_str().into()]),
    );
    with("config-feature-empty", "config: features have at least 1 character", "damaged", 3, list(["".into()]));
    let many: Vec<Item> = (0..65).map(|number| format!("w{number:02}").as_str().into()).collect();
    with("config-features", "config: at most 64 features in a list", "damaged", 3, many.into());
    let chunking = |fixed: u64, min: u64, average: u64, max: u64| {
        map(vec![(1, fixed.into()), (2, min.into()), (3, average.into()), (4, max.into())])
    };
    for (name, rule, item) in [
        ("config-fixed-power", "config: the fixed size is a power of two", chunking(65_537, 4096, 16_384, 65_536)),
        ("config-fixed-large", "config: the fixed size is at most 4 MiB", chunking(8 << 20, 4096, 16_384, 65_536)),
        ("config-chunks", "config: the average is a power of two", chunking(65_536, 4096, 16_640, 65_536)),
        (
            "config-stream-minimum",
            "config: the stream minimum is at least 1 KiB",
            chunking(65_536, 512, 16_384, 65_536),
        ),
        ("config-stream-order", "config: minimum < average < maximum", chunking(65_536, 4096, 16_384, 16_384)),
        (
            "config-stream-maximum",
            "config: the stream maximum is at most 16 MiB",
            chunking(65_536, 4096, 16_384, (16 << 20) + 1),
        ),
    ] {
        with(name, rule, "damaged", 7, item);
    }
    with("config-pack-target", "config: the pack target is at least 64 KiB", "damaged", 8, 65_535.into());
    with(
        "config-pack-target-large",
        "config: the pack target is at most 128 MiB",
        "damaged",
        8,
        ((128u64 << 20) + 1).into(),
    );
    with("config-padding", "config: the padding is known", "unsupported", 9, 2.into());
    with("config-level", "config: the level is at most 19", "damaged", 10, 20.into());
    with("config-level-low", "config: the level is at least -7", "damaged", 10, Item::Negative(7));

    cases.rule(5);
    cases.edit("config-other", "config: the keyring names its hash", damaged, &key, |bytes| {
        *bytes = config.clone().with(6, Item::Boolean(true)).encode();
    });

    cases.rule(15);
    let mut identity = [0; 32];
    identity[0] = 1;
    // A point of order 8.
    let eighth = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ];
    // y = 3 written as y + p.
    let mut beyond = field_prime();
    beyond[0] += 3;
    let mut negative_zero = identity;
    negative_zero[31] = 0x80;
    for (name, rule, field, bytes) in [
        ("config-key-identity", "verifying key: not of small order", 11, identity),
        ("config-key-order-8", "verifying key: not of small order", 11, eighth),
        ("config-key-order-4", "verifying key: not of small order", 12, [0; 32]),
        ("config-key-not-canonical", "verifying key: y is below the prime", 12, beyond),
        ("config-key-prime", "verifying key: y is below the prime", 11, field_prime()),
        ("config-key-negative-zero", "verifying key: one encoding of a point", 12, negative_zero),
        ("config-key-no-point", "verifying key: a point of the curve", 11, {
            let mut no = [0; 32];
            no[0] = 2;
            no
        }),
    ] {
        let changed = config.clone().with(field, bytes).encode();
        cases.edit(name, rule, damaged, &key, |bytes| *bytes = changed);
    }
}
