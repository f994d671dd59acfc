//! Properties of what reads pages and entries: see [`testing::fuzz`](crate::testing::fuzz).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a property that does not hold must stop the program"
)]

use bytes::Bytes;

pub use super::catalogue::properties::entry;
use crate::content::catalogue::properties::catalogue_page;
use crate::content::entry::PageRef;
use crate::content::page::{PageSource, Tree, encode_page, read_leaf, read_node, write_page_ref, write_refs};
use crate::error::Result;
use crate::id::ChunkId;
use crate::testing::fuzz::{Item, judged, without_ignorable};

/// A source that has one page, whoever asks.
pub(super) struct OnePage(Bytes);

impl OnePage {
    pub(super) fn new(bytes: &[u8]) -> (Self, PageRef) {
        let length = u32::try_from(bytes.len()).expect("a page has less than 4 GiB");
        (Self(Bytes::copy_from_slice(bytes)), PageRef { id: ChunkId::new([0x11; 32]), length })
    }
}

impl PageSource for OnePage {
    fn page(&self, _: &PageRef) -> Result<Bytes> {
        Ok(self.0.clone())
    }
}

/// Pages of contents and catalogues. The first byte chooses kind and height and how far what the parent says is from
/// what the page says; the rest is the page.
pub fn page(bytes: &[u8]) {
    let Some((selector, page)) = bytes.split_first() else { return };
    let height = (selector >> 1) & 7;
    let deviation = u64::from(selector >> 4);
    if selector & 1 == 0 { content_page(page, height, deviation) } else { catalogue_page(page, height, deviation) }
}

fn content_page(bytes: &[u8], height: u8, deviation: u64) {
    let (source, page) = OnePage::new(bytes);
    let covered = covered(&items_of(bytes), height).wrapping_add(deviation);
    let again = if height == 1 {
        let Some(refs) = judged(read_leaf(&source, &page, covered)) else { return };
        let sum: u128 = refs.iter().map(|reference| u128::from(reference.length())).sum();
        assert!(sum == u128::from(covered) || covered == u64::MAX, "a leaf covers {sum} instead of {covered}");
        encode_page(Tree::Content, height, |array| write_refs(array, &refs))
    } else {
        let Some(children) = judged(read_node(&source, &page, height, covered)) else { return };
        let sum: u128 = children.iter().map(|child| u128::from(child.covered)).sum();
        assert!(sum == u128::from(covered) || covered == u64::MAX, "a node covers {sum} instead of {covered}");
        encode_page(Tree::Content, height, |array| {
            for child in &children {
                write_page_ref(array, &child.page);
                array.u64(child.covered);
            }
        })
    };
    assert_eq!(again.expect("what was read can be written"), without_ignorable(bytes));
}

/// The items of a page.
pub(super) fn items_of(page: &[u8]) -> Vec<Item> {
    let Some(Item::Map(fields)) = Item::decode(page) else { return Vec::new() };
    let items = fields.into_iter().find_map(|(key, item)| match item {
        Item::Array(items) if key == 3 => Some(items),
        _ => None,
    });
    items.unwrap_or_default()
}

fn covered(items: &[Item], height: u8) -> u64 {
    let number = |item: &Item| match item {
        Item::Unsigned(number) => *number,
        Item::Array(pair) => pair.iter().map(|item| if let Item::Unsigned(number) = item { *number } else { 0 }).sum(),
        _ => 0,
    };
    let step = if height == 1 { 1 } else { 3 };
    items.iter().skip(step - 1).step_by(step).fold(0, |sum, item| number(item).saturating_add(sum))
}
