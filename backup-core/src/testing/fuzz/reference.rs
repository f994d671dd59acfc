//! A second decoder of structured bodies, written from `docs/format.md` ("Structured bodies") as simply as
//! possible and sharing nothing with the first: what the two disagree about is a defect of one of them.

use crate::limits::CBOR_DEPTH;

/// Everything that the profile can express.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Unsigned(u64),
    /// `-1 - n`, for n up to 2^63 - 1.
    Negative(u64),
    Bool(bool),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Item>),
    Map(Vec<(u64, Item)>),
}

impl Item {
    /// The one item that `bytes` are, where they keep to the profile.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let item = Self::read(&mut rest, 0)?;
        rest.is_empty().then_some(item)
    }

    fn read(rest: &mut &[u8], depth: usize) -> Option<Self> {
        let (first, behind) = rest.split_first()?;
        *rest = behind;
        let (major, short) = (first >> 5, first & 31);
        if major == 7 {
            return match short {
                20 => Some(Self::Bool(false)),
                21 => Some(Self::Bool(true)),
                _ => None,
            };
        }
        let number = match short {
            0..=23 => u64::from(short),
            24 => u64::from(u8::from_be_bytes(take(rest)?)),
            25 => u64::from(u16::from_be_bytes(take(rest)?)),
            26 => u64::from(u32::from_be_bytes(take(rest)?)),
            27 => u64::from_be_bytes(take(rest)?),
            _ => return None,
        };
        let shortest = match number {
            0..24 => short < 24,
            24..0x100 => short == 24,
            0x100..0x1_0000 => short == 25,
            0x1_0000..0x1_0000_0000 => short == 26,
            _ => short == 27,
        };
        if !shortest {
            return None;
        }
        match major {
            0 => Some(Self::Unsigned(number)),
            1 => (number < 1 << 63).then_some(Self::Negative(number)),
            2 | 3 => {
                let (taken, behind) = rest.split_at_checked(usize::try_from(number).ok()?)?;
                *rest = behind;
                if major == 2 {
                    Some(Self::Bytes(taken.to_vec()))
                } else {
                    String::from_utf8(taken.to_vec()).ok().map(Self::Text)
                }
            }
            4 | 5 if depth == CBOR_DEPTH => None,
            4 => {
                let mut items = Vec::new();
                for _ in 0..number {
                    items.push(Self::read(rest, depth + 1)?);
                }
                Some(Self::Array(items))
            }
            5 => {
                let mut fields: Vec<(u64, Self)> = Vec::new();
                for _ in 0..number {
                    let Self::Unsigned(key) = Self::read(rest, depth + 1)? else { return None };
                    if fields.last().is_some_and(|(last, _)| *last >= key) {
                        return None;
                    }
                    fields.push((key, Self::read(rest, depth + 1)?));
                }
                Some(Self::Map(fields))
            }
            _ => None,
        }
    }

    /// The one encoding.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Unsigned(number) => head(out, 0, *number),
            Self::Negative(number) => head(out, 1, *number),
            Self::Bool(value) => out.push(if *value { 0xf5 } else { 0xf4 }),
            Self::Bytes(bytes) => {
                head(out, 2, length(bytes.len()));
                out.extend(bytes);
            }
            Self::Text(text) => {
                head(out, 3, length(text.len()));
                out.extend(text.bytes());
            }
            Self::Array(items) => {
                head(out, 4, length(items.len()));
                items.iter().for_each(|item| item.write(out));
            }
            Self::Map(fields) => {
                head(out, 5, length(fields.len()));
                for (key, item) in fields {
                    head(out, 0, *key);
                    item.write(out);
                }
            }
        }
    }

    /// The same without the fields that a reader may ignore: what a reader that knows all others writes again.
    pub(crate) fn without_ignorable(self) -> Self {
        match self {
            Self::Array(items) => Self::Array(items.into_iter().map(Self::without_ignorable).collect()),
            Self::Map(fields) => Self::Map(
                fields
                    .into_iter()
                    .filter(|(key, _)| *key < 128)
                    .map(|(key, item)| (key, item.without_ignorable()))
                    .collect(),
            ),
            other => other,
        }
    }
}

/// `bytes` without fields that may be ignored. They must be a document of the profile.
pub(crate) fn without_ignorable(bytes: &[u8]) -> Vec<u8> {
    Item::decode(bytes)
        .expect("the two decoders disagree: an accepted document is refused")
        .without_ignorable()
        .encode()
}

fn head(out: &mut Vec<u8>, major: u8, number: u64) {
    let bytes = number.to_be_bytes();
    // How many bytes follow the first one, and how that is said.
    let (short, count) = match number {
        0..24 => (bytes[7], 0),
        24..0x100 => (24, 1),
        0x100..0x1_0000 => (25, 2),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 8),
    };
    out.push(major << 5 | short);
    out.extend(&bytes[8 - count..]);
}

fn length(length: usize) -> u64 {
    u64::try_from(length).expect("64 bits are enough for a length in memory")
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*taken)
}
