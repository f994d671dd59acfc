use proptest::prelude::*;

use super::writer::Output;
use super::*;
use crate::error::{Error, Result};
use crate::length::to_u64;

/// Everything the profile can express.
#[derive(Clone, Debug, PartialEq)]
enum Tree {
    Number(i128),
    Bool(bool),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Tree>),
    Map(std::collections::BTreeMap<u64, Tree>),
}

impl Tree {
    fn of(value: Value<'_>) -> Self {
        if let Ok(number) = value.u64() {
            Self::Number(number.into())
        } else if let Ok(number) = value.i64() {
            Self::Number(number.into())
        } else if let Ok(bool) = value.bool() {
            Self::Bool(bool)
        } else if let Ok(bytes) = value.bytes() {
            Self::Bytes(bytes.to_vec())
        } else if let Ok(text) = value.text() {
            Self::Text(text.to_owned())
        } else if let Ok(array) = value.array() {
            let count = array.remaining();
            let items: Vec<_> = array.map(Self::of).collect();
            assert_eq!(to_u64(items.len()), count);
            Self::Array(items)
        } else {
            let mut map = value.map().unwrap();
            let mut fields = std::collections::BTreeMap::new();
            while let Some((key, _, _)) = map.peek().unwrap() {
                fields.insert(key, Self::of(map.required(key).unwrap()));
            }
            map.finish().unwrap();
            Self::Map(fields)
        }
    }

    fn write(&self, output: &mut Output) {
        match self {
            Self::Number(number) => match u64::try_from(*number) {
                Ok(number) => output.u64(number),
                Err(_) => output.i64(i64::try_from(*number).unwrap()),
            },
            Self::Bool(bool) => output.bool(*bool),
            Self::Bytes(bytes) => output.bytes(bytes),
            Self::Text(text) => output.text(text),
            Self::Array(items) => output.array(|array| items.iter().for_each(|item| item.write(array.item()))),
            Self::Map(fields) => output.map(|map| fields.iter().for_each(|(key, item)| item.write(map.key(*key)))),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut output = Output { bytes: Vec::new(), depth: 0, invalid: false };
        self.write(&mut output);
        assert!(!output.invalid);
        output.bytes
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        (-1i128 - i128::from(i64::MAX)..=i128::from(u64::MAX)).prop_map(Tree::Number),
        (-300i128..300).prop_map(Tree::Number),
        any::<bool>().prop_map(Tree::Bool),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Tree::Bytes),
        ".{0,12}".prop_map(Tree::Text),
    ];
    leaf.prop_recursive(5, 60, 30, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..30).prop_map(Tree::Array),
            proptest::collection::btree_map(prop_oneof![any::<u64>(), 0u64..300], inner, 0..30).prop_map(Tree::Map),
        ]
    })
}

/// What is accepted re-encodes to the same bytes: there is no second encoding of anything.
fn assert_canonical(bytes: &[u8]) {
    if let Ok(value) = decode(bytes, "test", &"t") {
        assert_eq!(Tree::of(value).encode(), bytes, "{bytes:02x?}");
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_is_read(tree in tree()) {
        let bytes = tree.encode();
        prop_assert_eq!(Tree::of(decode(&bytes, "test", &"t").unwrap()), tree);
    }

    #[test]
    fn a_changed_byte_is_rejected_or_another_canonical_document(
        tree in tree(), position in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = tree.encode();
        let position = position.index(bytes.len());
        bytes[position] = byte;
        assert_canonical(&bytes);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        assert_canonical(&bytes);
    }

    #[test]
    fn truncated_and_extended_documents_are_rejected(tree in tree(), more in any::<u8>()) {
        let mut bytes = tree.encode();
        for end in 0..bytes.len() {
            prop_assert!(validate(&bytes[..end]).is_err(), "{end}");
        }
        bytes.push(more);
        prop_assert!(validate(&bytes).is_err());
    }
}

#[test]
fn every_short_input_is_canonical_or_rejected() {
    for first in 0..=255 {
        assert_canonical(&[first]);
        for second in 0..=255 {
            assert_canonical(&[first, second]);
            for third in (0..=255).step_by(5) {
                assert_canonical(&[first, second, third]);
            }
        }
    }
}

#[test]
fn what_the_profile_excludes_is_rejected() {
    for (bytes, rule) in [
        ("", "nothing"),
        ("18 17", "23 in two bytes"),
        ("19 00ff", "255 in three bytes"),
        ("1a 0000ffff", "65535 in five bytes"),
        ("1b 00000000ffffffff", "2^32-1 in nine bytes"),
        ("38 17", "-24 in two bytes"),
        ("39 00ff", "-256 in three bytes"),
        ("3b ffffffffffffffff", "-2^64"),
        ("58 01 00", "length of a byte string in two bytes"),
        ("78 01 61", "length of a text in two bytes"),
        ("98 01 00", "count of an array in two bytes"),
        ("b8 01 00 00", "count of a map in two bytes"),
        ("5f 41 00 ff", "indefinite byte string"),
        ("7f 61 61 ff", "indefinite text"),
        ("9f 00 ff", "indefinite array"),
        ("bf 00 00 ff", "indefinite map"),
        ("f6", "null"),
        ("f7", "undefined"),
        ("f0", "simple value"),
        ("f8 20", "simple value in two bytes"),
        ("f8 14", "false in two bytes"),
        ("f9 0000", "half float"),
        ("fa 00000000", "float"),
        ("fb 0000000000000000", "double"),
        ("c0 61 61", "tag"),
        ("d8 2a 00", "tag in two bytes"),
        ("ff", "break"),
        ("1c", "reserved"),
        ("62 c3 28", "text that is not UTF-8"),
        ("61 ff", "text that is not UTF-8"),
        ("a2 01 00 01 00", "duplicate key"),
        ("a2 02 00 01 00", "descending keys"),
        ("a1 20 00", "negative key"),
        ("a1 61 61 00", "text key"),
        ("a1 40 00", "byte key"),
        ("a1 80 00", "array key"),
        ("a1 01", "key without a value"),
        ("82 00", "array that ends early"),
        ("41", "byte string that ends early"),
        ("00 00", "trailing byte"),
        ("9b 7fffffffffffffff 00", "2^63 items"),
        ("bb ffffffffffffffff 00 00", "2^64 fields"),
        ("5b 7fffffffffffffff 00", "2^63 bytes"),
        ("81 81 81 81 81 81 81 81 80", "depth of nine"),
        ("81 81 81 81 81 81 81 81 a0", "depth of nine"),
    ] {
        assert!(validate(&hex(bytes)).is_err(), "{rule}: {bytes}");
    }
    for bytes in ["00", "20", "40", "60", "80", "a0", "f4", "f5", "81 81 81 81 81 81 81 80", "a2 01 00 18 80 00"] {
        validate(&hex(bytes)).unwrap();
    }
}

#[test]
fn fields_are_read_in_order_and_unknown_ones_judged() {
    let bytes = encode_map(|map| {
        map.u64(1, 7);
        map.text(3, "three");
        map.i64(4, -5);
        map.bytes(5, b"12345678");
        map.array(6, |array| {
            array.u64(1);
            array.map(|inner| inner.bool(1, true));
        });
        map.u64(200, 1);
    })
    .unwrap();
    let read = |keys: &[u64]| -> Result<()> {
        let mut map = decode(&bytes, "test", &"t")?.map()?;
        for key in keys {
            map.required(*key)?;
        }
        map.finish()
    };
    read(&[1, 3, 4, 5, 6]).unwrap();
    read(&[1, 3, 4, 5, 6, 200]).unwrap();
    let reason = |keys: &[u64]| read(keys).unwrap_err().to_string();
    assert_eq!(reason(&[1, 2]), "damaged test t: field 2 is missing");
    assert_eq!(reason(&[1, 4]), "damaged test t: field 3 is unknown");
    assert_eq!(reason(&[1, 3, 4, 5]), "damaged test t: field 6 is unknown");
    assert_eq!(reason(&[1, 3, 4, 5, 6, 201]), "damaged test t: field 201 is missing");

    let mut map = decode(&bytes, "test", &"t").unwrap().map().unwrap();
    assert_eq!(map.required(1).unwrap().u64().unwrap(), 7);
    assert!(map.optional(2).unwrap().is_none());
    assert_eq!(map.required(3).unwrap().text().unwrap(), "three");
    let minus_five = map.required(4).unwrap();
    assert_eq!(minus_five.i64().unwrap(), -5);
    assert!(minus_five.u64().is_err() && minus_five.text().is_err() && minus_five.map().is_err());
    let eight = map.required(5).unwrap();
    assert_eq!(eight.fixed::<8>().unwrap(), *b"12345678");
    assert!(eight.fixed::<7>().is_err());
    let mut array = map.required(6).unwrap().array().unwrap();
    assert_eq!(array.required().unwrap().u8().unwrap(), 1);
    assert!(array.clone().finish().is_err());
    assert!(array.required().unwrap().map().unwrap().required(1).unwrap().bool().unwrap());
    assert!(array.required().is_err());
    array.finish().unwrap();
}

#[test]
fn heads_of_long_containers_are_put_in_place() {
    for count in [0u64, 1, 23, 24, 255, 256, 70_000] {
        let bytes = encode_map(|map| map.array(0, |array| (0..count).for_each(|number| array.u64(number)))).unwrap();
        let array = decode(&bytes, "test", &"t").unwrap().map().unwrap().required(0).unwrap().array().unwrap();
        assert_eq!(array.remaining(), count);
        assert!(array.map(|value| value.u64().unwrap()).eq(0..count));
    }
}

#[test]
fn writing_against_the_profile_is_an_error() {
    let descending = encode_map(|map| {
        map.u64(2, 0);
        map.u64(1, 0);
    });
    assert!(matches!(descending, Err(Error::Internal(_))));
    let twice = encode_map(|map| {
        map.u64(1, 0);
        map.u64(1, 0);
    });
    assert!(matches!(twice, Err(Error::Internal(_))));
    fn nest(array: &mut ArrayWriter<'_>, levels: usize) {
        if levels > 0 {
            array.array(|inner| nest(inner, levels - 1));
        }
    }
    assert!(encode_map(|map| map.array(0, |array| nest(array, 6))).is_ok());
    assert!(encode_map(|map| map.array(0, |array| nest(array, 7))).is_err());
}
