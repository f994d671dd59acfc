//! Properties of what reads catalogue pages and entries.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a property that does not hold must stop the program"
)]

use crate::content::catalogue::page::{CatalogueChild, CatalogueRoot, Expected, encode_leaf, read_leaf, read_node};
use crate::content::catalogue::{CatalogueReader, record};
use crate::content::entry::{ContentRoot, EntryKind};
use crate::content::path::EntryPath;
use crate::content::properties::{OnePage, items_of};
use crate::content::tree::Child;
use crate::limits;
use crate::testing::fuzz::{Item, judged, without_ignorable};

/// An entry without its path.
pub fn entry(bytes: &[u8]) {
    let path = EntryPath::new(*b"directory/file").expect("a valid path");
    let Some(entry) = judged(record::decode(path.clone(), bytes)) else { return };
    let again = record::encode(&entry).expect("what was read can be written");
    assert_eq!(again, without_ignorable(bytes));
    assert_eq!(record::decode(path, &again).expect("what was written can be read"), entry);
    assert!(entry.size() <= limits::CONTENT);
    assert!(entry.kind.has_content() || entry.size() == 0);
    if let ContentRoot::Inline(refs) = &entry.content.root {
        assert_eq!(refs.iter().map(|reference| u128::from(reference.length())).sum::<u128>(), u128::from(entry.size()));
    }
    if let EntryKind::Symlink { target } = &entry.kind {
        assert!(!target.is_empty() && !target.contains(&0));
    }
}

pub(in crate::content) fn catalogue_page(bytes: &[u8], height: u8, deviation: u64) {
    let (source, page) = OnePage::new(bytes);
    let items = items_of(bytes);
    let number = |item: &Item| if let Item::Unsigned(number) = item { *number } else { 0 };
    let entries = match height {
        1 => u64::try_from(items.len() / 3).expect("a count in memory"),
        _ => items.iter().skip(2).step_by(4).fold(0u64, |sum, item| sum.saturating_add(number(item))),
    };
    let entries = entries.wrapping_add(deviation);
    let expected = Expected { page, height, entries, first: None, end: None };
    if height == 1 {
        let Some(leaf) = judged(read_leaf(&source, &expected)) else { return };
        assert_eq!(encode_leaf(&leaf).expect("what was read can be written"), without_ignorable(bytes));
    } else if let Some(children) = judged(read_node(&source, &expected)) {
        // Every child is told where the next one begins.
        for pair in children.windows(2) {
            assert_eq!(pair[0].end, pair[1].first);
        }
        let children: Vec<CatalogueChild> = children
            .into_iter()
            .map(|Expected { page, entries, first, .. }| CatalogueChild { page, entries, first: first.unwrap() })
            .collect();
        let again = CatalogueChild::encode(&children, height).expect("what was read can be written");
        assert_eq!(again, without_ignorable(bytes));
        return;
    } else {
        return;
    }
    // Read as a catalogue of this one page: all entries, each found again by its path, in order.
    let root = CatalogueRoot { height, page, entries };
    let reader = CatalogueReader::new(root, &source);
    let mut last: Option<EntryPath> = None;
    let mut count = 0u64;
    for entry in reader.entries(None) {
        count += 1;
        let Some(entry) = judged(entry) else { continue };
        assert!(last.as_ref().is_none_or(|last| *last < entry.path), "entries are not in order");
        assert_eq!(judged(reader.get(&entry.path)).flatten(), Some(entry.clone()));
        last = Some(entry.path);
    }
    assert_eq!(count, entries);
}
