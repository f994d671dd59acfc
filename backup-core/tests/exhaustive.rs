//! Small decoders over all of their small inputs.

#![expect(clippy::disallowed_methods, reason = "the rule that the core reads no files is not for its tests")]

use backup_core::testing::fuzz;

/// Every structured body of up to three bytes: the decoder agrees with the one that was written apart from it, and what
/// it accepts has no other encoding.
#[test]
fn every_structured_body_of_up_to_three_bytes() {
    fuzz::cbor(&[]);
    for first in 0..=255 {
        fuzz::cbor(&[first]);
        for second in 0..=255 {
            fuzz::cbor(&[first, second]);
            for third in 0..=255 {
                fuzz::cbor(&[first, second, third]);
            }
        }
    }
}

/// Every head of an item with every argument that decides over its length, alone and before bytes that could be its
/// content: numbers and lengths at the ends of 1, 2, 4 and 8 bytes.
#[test]
fn every_head_with_numbers_at_the_limits() {
    let limits: Vec<u64> = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1, !0 << bit]).collect();
    for first in 0..=255u8 {
        for number in &limits {
            for width in [1, 2, 4, 8] {
                let argument = &number.to_be_bytes()[8 - width..];
                for content in [&[][..], &[0x00], &[0x61], &[0x00, 0x00], &[0x00; 30], &[0x61; 300]] {
                    fuzz::cbor(&[&[first], argument, content].concat());
                }
            }
        }
    }
}

/// Every nesting of arrays and maps up to ten levels: eight are allowed.
#[test]
fn every_nesting_of_ten_levels() {
    for shape in 0..1u32 << 10 {
        for levels in 0..=10 {
            let mut bytes = Vec::new();
            for level in 0..levels {
                if shape >> level & 1 == 0 { bytes.push(0x81) } else { bytes.extend([0xa1, 0x00]) }
            }
            bytes.push(0x00);
            fuzz::cbor(&bytes);
            assert_eq!(fuzz::is_structured(&bytes), levels <= 8, "{bytes:02x?}");
        }
    }
}

/// Every value of every byte of real objects, one at a time.
#[test]
fn every_byte_of_the_corpus_of_small_objects() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    for (target, property) in
        [("closure", fuzz::closure as fn(&[u8])), ("config", fuzz::config), ("keyring", fuzz::keyring)]
    {
        for file in std::fs::read_dir(corpus.join(target)).unwrap() {
            let original = std::fs::read(file.unwrap().path()).unwrap();
            if original.len() > 300 {
                continue;
            }
            for position in 0..original.len() {
                for byte in 0..=255 {
                    let mut changed = original.clone();
                    changed[position] = byte;
                    property(&changed);
                }
            }
        }
    }
}
