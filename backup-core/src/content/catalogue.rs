//! The catalogue: every entry of a backup, sorted by path, as a tree of pages.
//!
//! Pages end where a keyed hash of a path says so, so that unchanged runs of entries make the same
//! pages again and a backup writes metadata in proportion to what changed.

mod builder;
mod page;
#[cfg(any(test, feature = "testing"))]
pub(in crate::content) mod properties;
mod reader;
mod record;
mod sorter;

pub(crate) use self::page::{CatalogueRoot, Expected as CataloguePage};
pub(crate) use self::reader::{CatalogueBelow, CatalogueCursor, CatalogueEntries, CatalogueReader};
#[cfg(test)]
pub(crate) use self::sorter::WAITING;
pub(crate) use self::sorter::{EncodedEntry, EntrySorter};
