//! What stands where in the data of an archive, known before the first byte is written.

use crate::archive::block::PAYLOAD;
use crate::archive::geometry::{Geometry, Profile};
use crate::archive::record::{self, Placed, Record};
use crate::error::{Error, Result};
use crate::id::Digest;

/// Bytes of data after which what everything depends on is repeated.
pub(crate) const REPEAT: u64 = 1 << 30;
/// Bytes of the mark at the end of the data.
const END: u64 = 64;

/// The records of an archive in order.
pub(crate) struct Layout {
    /// Without the tables of contents.
    pub(crate) records: Vec<Placed>,
    /// The table of contents: it says of all records where they are, those behind it too.
    pub(crate) table: Vec<u8>,
    /// Where the tables begin.
    pub(crate) tables: [u64; 2],
    pub(crate) geometry: Geometry,
}

/// A record to write.
pub(crate) enum Step<'l> {
    /// An object.
    Object(&'l Placed),
    /// The table of contents.
    Table,
}

struct Builder {
    position: u64,
    records: Vec<Placed>,
}

impl Builder {
    fn add(&mut self, record: &Record) {
        self.records.push(Placed { offset: self.position, record: record.clone() });
        self.position = self.position.saturating_add(record.length());
    }
}

impl Layout {
    /// The layout of `critical` objects, which are repeated, and `others`.
    pub(crate) fn new(critical: &[Record], others: &[Record], profile: Profile) -> Result<Self> {
        let mut builder = Builder { position: 0, records: Vec::new() };
        critical.iter().for_each(|record| builder.add(record));
        let mut next = REPEAT;
        for record in others {
            if builder.position >= next {
                critical.iter().for_each(|record| builder.add(record));
                next = builder.position.saturating_add(REPEAT);
            }
            builder.add(record);
        }
        // The length of the table depends on nothing but the keys.
        let twice = critical.iter().chain(critical).filter_map(|record| record.key.as_ref());
        let keys = builder.records.iter().filter_map(|placed| placed.record.key.as_ref()).chain(twice);
        let size = record::table_length(keys);
        if size > record::MOST_TABLE {
            return Err(Error::limit("size of the table of contents", size, record::MOST_TABLE));
        }
        let length = table_record(size, Digest::new([0; 32])).length();
        let mut tables = [0; 2];
        for table in &mut tables {
            *table = builder.position;
            builder.position = builder.position.saturating_add(length);
            critical.iter().for_each(|record| builder.add(record));
        }
        let geometry = profile.geometry(builder.position.saturating_add(END).div_ceil(PAYLOAD))?;
        let table = record::encode_table(&builder.records);
        Ok(Self { records: builder.records, table, tables, geometry })
    }

    /// Everything in the order of its place.
    pub(crate) fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        let mut tables = self.tables.iter().peekable();
        let mut records = self.records.iter().peekable();
        std::iter::from_fn(move || {
            let record = records.peek().map(|placed| placed.offset);
            match tables.peek() {
                Some(table) if record.is_none_or(|offset| **table < offset) => {
                    tables.next();
                    Some(Step::Table)
                }
                _ => records.next().map(Step::Object),
            }
        })
    }

    /// Bytes of data, with the zeros that fill the last block.
    pub(crate) fn length(&self) -> u64 {
        self.geometry.data.saturating_mul(PAYLOAD)
    }
}

/// The record of a table of contents.
pub(crate) const fn table_record(size: u64, hash: Digest) -> Record {
    Record { key: None, size, hash }
}
