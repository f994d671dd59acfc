//! Structured bodies as values that can be changed, and written as they are, right or wrong.

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Unsigned(u64),
    /// `-1 - n`.
    Negative(u64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Item>),
    /// In the order that is given.
    Map(Vec<(u64, Item)>),
    Boolean(bool),
    /// Bytes that are written as they are.
    Raw(Vec<u8>),
}

impl From<u64> for Item {
    fn from(number: u64) -> Self {
        Self::Unsigned(number)
    }
}

impl From<&[u8]> for Item {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl<const N: usize> From<[u8; N]> for Item {
    fn from(bytes: [u8; N]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Item {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<&str> for Item {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<Item>> for Item {
    fn from(items: Vec<Item>) -> Self {
        Self::Array(items)
    }
}

fn head(major: u8, number: u64) -> Vec<u8> {
    let major = major << 5;
    let bytes = number.to_be_bytes();
    match number {
        0..24 => vec![major | bytes[7]],
        24..0x100 => vec![major | 24, bytes[7]],
        0x100..0x1_0000 => [&[major | 25], &bytes[6..]].concat(),
        0x1_0000..0x1_0000_0000 => [&[major | 26], &bytes[4..]].concat(),
        _ => [&[major | 27], &bytes[..]].concat(),
    }
}

impl Item {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Unsigned(number) => head(0, *number),
            Self::Negative(number) => head(1, *number),
            Self::Bytes(bytes) => [head(2, bytes.len() as u64), bytes.clone()].concat(),
            Self::Text(text) => [head(3, text.len() as u64), text.as_bytes().to_vec()].concat(),
            Self::Array(items) => {
                items.iter().fold(head(4, items.len() as u64), |out, item| [out, item.encode()].concat())
            }
            Self::Map(fields) => fields
                .iter()
                .fold(head(5, fields.len() as u64), |out, (key, item)| [out, head(0, *key), item.encode()].concat()),
            Self::Boolean(value) => vec![0xf4 | u8::from(*value)],
            Self::Raw(bytes) => bytes.clone(),
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut rest = bytes;
        let item = Self::read(&mut rest);
        assert!(rest.is_empty());
        item
    }

    fn read(rest: &mut &[u8]) -> Self {
        let (major, number) = Self::read_head(rest);
        let take = |rest: &mut &[u8]| {
            let (taken, behind) = rest.split_at(number as usize);
            *rest = behind;
            taken.to_vec()
        };
        match major {
            0 => Self::Unsigned(number),
            1 => Self::Negative(number),
            2 => Self::Bytes(take(rest)),
            3 => Self::Text(String::from_utf8(take(rest)).unwrap()),
            4 => Self::Array((0..number).map(|_| Self::read(rest)).collect()),
            5 => Self::Map((0..number).map(|_| (Self::read_head(rest).1, Self::read(rest))).collect()),
            _ => Self::Boolean(number == 21),
        }
    }

    fn read_head(rest: &mut &[u8]) -> (u8, u64) {
        let first = rest[0];
        let length = match first & 31 {
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            _ => 0,
        };
        let number = rest[1..=length].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        *rest = &rest[1 + length..];
        (first >> 5, if length == 0 { u64::from(first & 31) } else { number })
    }

    fn fields(&mut self) -> &mut Vec<(u64, Item)> {
        match self {
            Self::Map(fields) => fields,
            other => panic!("{other:?} is no map"),
        }
    }

    pub fn get(&self, key: u64) -> &Item {
        match self {
            Self::Map(fields) => &fields.iter().find(|(known, _)| *known == key).unwrap().1,
            other => panic!("{other:?} is no map"),
        }
    }

    /// The field of a map with this key, if there is one.
    pub fn find(&self, key: u64) -> Option<&Item> {
        match self {
            Self::Map(fields) => fields.iter().find(|(known, _)| *known == key).map(|(_, item)| item),
            other => panic!("no map: {other:?}"),
        }
    }

    /// Replaces a field or puts a new one at its place.
    pub fn set(&mut self, key: u64, item: impl Into<Item>) {
        let fields = self.fields();
        match fields.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(at) => fields[at].1 = item.into(),
            Err(at) => fields.insert(at, (key, item.into())),
        }
    }

    pub fn with(mut self, key: u64, item: impl Into<Item>) -> Self {
        self.set(key, item);
        self
    }

    pub fn without(mut self, key: u64) -> Self {
        self.fields().retain(|(known, _)| *known != key);
        self
    }

    pub fn array(&self) -> &[Item] {
        match self {
            Self::Array(items) => items,
            other => panic!("{other:?} is no array"),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            other => panic!("{other:?} are no bytes"),
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }

    pub fn number(&self) -> u64 {
        match self {
            Self::Unsigned(number) => *number,
            other => panic!("{other:?} is no number"),
        }
    }
}

pub fn map(fields: Vec<(u64, Item)>) -> Item {
    Item::Map(fields)
}

pub fn list<const N: usize>(items: [Item; N]) -> Item {
    Item::Array(items.into())
}
