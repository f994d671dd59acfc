//! Pages of catalogues and contents, and the paths in them.

use backup_core::testing;

use crate::cases::Cases;
use crate::entries::{directory, file, known_chunk};
use crate::support::cbor::{Item, list, map};
use crate::support::forger::Draft;
use crate::support::vectors::hex;

/// The root of a catalogue: height, id, length, entries.
pub(crate) fn root(height: u64, page: [Item; 2], entries: u64) -> Vec<Item> {
    let [id, length] = page;
    vec![height.into(), id, length, entries.into()]
}

/// A page of a tree.
fn page(tree: u64, height: u64, items: impl Into<Item>) -> Item {
    map(vec![(1, tree.into()), (2, height.into()), (3, items.into())])
}

/// Paths as they stand in a leaf: bytes that are shared, the rest.
fn leaf(paths: &[(u64, &[u8])]) -> Item {
    Draft::leaf(&paths.iter().map(|(shared, rest)| (*shared, *rest, directory())).collect::<Vec<_>>())
}

fn node(height: u64, children: &[([Item; 2], u64, &[u8])]) -> Item {
    let items = children
        .iter()
        .flat_map(|([id, length], entries, first)| [id.clone(), length.clone(), (*entries).into(), (*first).into()]);
    page(2, height, items.collect::<Vec<Item>>())
}

fn id(page: &[Item; 2]) -> String {
    hex(page[0].bytes())
}

pub(crate) fn add(cases: &mut Cases) {
    catalogue(cases);
    paths(cases);
    content(cases);
}

fn catalogue(cases: &mut Cases) {
    cases.rule(9);
    let mut forge = |name, rule, make: &dyn Fn(&mut Draft<'_>) -> (Vec<Item>, String)| {
        cases.add(name, rule, ("restore", "damaged"), |storage, repository| {
            let mut draft = Draft::new(repository);
            let (root, object) = make(&mut draft);
            draft.store(storage, root, |_, _| ());
            object
        });
    };
    let mut one_page = |name, rule, height: u64, page: Item, entries: u64| {
        forge(name, rule, &|draft| {
            let page = draft.page(&page);
            let name = id(&page);
            (root(height, page, entries), name)
        });
    };
    let good = leaf(&[(0, b"a"), (0, b"b")]);
    one_page("page-tree", "page: it is of the tree of its place", 1, good.clone().with(1, 1), 2);
    one_page("page-tree-unknown", "page: its tree is known", 1, good.clone().with(1, 3), 2);
    one_page("page-height", "page: it has the height that its parent says", 1, good.clone().with(2, 2), 2);
    one_page("page-height-zero", "catalogue: a height of at least 1", 0, good.clone().with(2, 0), 2);
    one_page("page-height-nine", "catalogue: a height of at most 8", 9, good.clone().with(2, 9), 2);
    one_page("page-items", "page: it has items", 1, good.clone().without(3), 2);
    one_page("page-unknown-field", "page: fields below 128 are known", 1, good.clone().with(4, 0), 2);
    one_page("page-item-cut", "page: items are whole", 1, page(2, 1, list([0.into(), b"a".to_vec().into()])), 1);
    one_page(
        "page-item-type",
        "page: items have their type",
        1,
        page(2, 1, list([0.into(), "a".into(), directory().into()])),
        1,
    );
    one_page(
        "page-form",
        "profile: integers are in their shortest form",
        1,
        good.clone().with(2, Item::Raw(vec![0x18, 1])),
        2,
    );
    one_page("page-tail", "profile: nothing follows", 1, Item::Raw([good.encode(), vec![0]].concat()), 2);
    one_page("catalogue-sum", "catalogue: as many entries as the parent says", 1, good.clone(), 3);
    one_page("catalogue-sum-low", "catalogue: as many entries as the parent says", 1, good.clone(), 1);
    one_page("catalogue-node-empty", "catalogue: a node has a child", 2, page(2, 2, list([])), 0);
    let many: Vec<Vec<u8>> =
        (0..1025u32).map(|number| vec![(number / 200) as u8 + b'a', (number % 200) as u8 + 50]).collect();
    let mut items: Vec<Item> = Vec::new();
    for (at, path) in many.iter().enumerate() {
        let shared = u64::from(at > 0 && many[at - 1][0] == path[0]);
        items.extend([shared.into(), path[shared as usize..].to_vec().into(), directory().into()]);
    }
    one_page("catalogue-many", "catalogue: at most 1024 entries in a leaf", 1, page(2, 1, items), 1025);

    forge("page-length", "page: it has the length that its parent says", &|draft| {
        let [id_item, _] = draft.page(&good);
        let name = id(&[id_item.clone(), 0.into()]);
        (root(1, [id_item, 7.into()], 2), name)
    });
    forge("page-length-zero", "page: no page is empty", &|draft| {
        let [id_item, _] = draft.page(&good);
        let name = id(&[id_item.clone(), 0.into()]);
        (root(1, [id_item, 0.into()], 2), name)
    });
    forge("page-nowhere", "page: it is in a pack", &|draft| {
        draft.page(&good);
        (root(1, [[0xcc; 32].into(), 40.into()], 2), "cc".repeat(32))
    });
    type Children<'c> = &'c [(&'c [(u64, &'c [u8])], u64, &'c [u8])];
    let mut children = |name, rule, entries: u64, blames_leaf: bool, list: Children<'_>| {
        forge(name, rule, &|draft| {
            let children: Vec<_> =
                list.iter().map(|(paths, entries, first)| (draft.page(&leaf(paths)), *entries, *first)).collect();
            let last = id(&children.last().unwrap().0);
            let top = draft.page(&node(2, &children));
            let name = if blames_leaf { last } else { id(&top) };
            (root(2, top, entries), name)
        });
    };
    let ab: &[(u64, &[u8])] = &[(0, b"a"), (0, b"b")];
    let mn: &[(u64, &[u8])] = &[(0, b"m"), (0, b"n")];
    let b: &[(u64, &[u8])] = &[(0, b"b")];
    children(
        "catalogue-node-sum",
        "catalogue: the entries of children add up",
        5,
        false,
        &[(ab, 2, b"a"), (mn, 2, b"m")],
    );
    children(
        "catalogue-child-sum",
        "catalogue: as many entries as the parent says",
        4,
        true,
        &[(ab, 2, b"a"), (b, 2, b"b\xff")],
    );
    children("catalogue-child-empty", "catalogue: no child is empty", 2, false, &[(ab, 2, b"a"), (&[], 0, b"m")]);
    children(
        "catalogue-child-first",
        "catalogue: a page begins with the path that its parent says",
        4,
        true,
        &[(ab, 2, b"a"), (mn, 2, b"l")],
    );
    children("catalogue-child-order", "catalogue: first paths ascend", 4, false, &[(mn, 2, b"m"), (ab, 2, b"a")]);
    children(
        "catalogue-child-twice",
        "catalogue: first paths ascend strictly",
        4,
        false,
        &[(ab, 2, b"a"), (ab, 2, b"a")],
    );
    children("catalogue-child-path", "path: not absolute", 4, false, &[(ab, 2, b"/a"), (mn, 2, b"m")]);
    forge("catalogue-child-overlap", "catalogue: a page ends before the first path of the next", &|draft| {
        let first = draft.page(&leaf(&[(0, b"a"), (0, b"z")]));
        let second = draft.page(&leaf(mn));
        let name = id(&first);
        let top = draft.page(&node(2, &[(first, 2, b"a"), (second, 2, b"m")]));
        (root(2, top, 4), name)
    });
    forge("catalogue-child-height", "page: it has the height that its parent says", &|draft| {
        let page = draft.page(&leaf(ab));
        let name = id(&page);
        let top = draft.page(&node(3, &[(page, 2, b"a")]));
        (root(3, top, 2), name)
    });
    forge("catalogue-circle-sum", "catalogue: sums do not overflow", &|draft| {
        let page = draft.page(&leaf(ab));
        let top = draft.page(&node(2, &[(page.clone(), u64::MAX, b"a"), (page, 3, b"m")]));
        let name = id(&top);
        (root(2, top, 2), name)
    });
}

fn paths(cases: &mut Cases) {
    let mut paths = |number, name, rule, list: &[(u64, &[u8])]| {
        cases.rule(number);
        cases.add(name, rule, ("restore", "damaged"), |storage, repository| {
            let mut draft = Draft::new(repository);
            let page = draft.page(&leaf(list));
            let name = id(&page);
            draft.store(storage, root(1, page, list.len() as u64), |_, _| ());
            name
        });
    };
    paths(9, "catalogue-order", "catalogue: paths ascend", &[(0, b"b"), (0, b"a")]);
    paths(9, "catalogue-twice", "catalogue: paths ascend strictly", &[(0, b"a"), (1, b"")]);
    paths(9, "catalogue-order-slash", "catalogue: / sorts before every other byte", &[(0, b"a!"), (1, b"/b")]);
    paths(
        9,
        "catalogue-order-directory",
        "catalogue: a directory stands before what is in it",
        &[(0, b"a/b"), (1, b"")],
    );
    paths(9, "catalogue-prefix-first", "catalogue: the first path shares nothing", &[(1, b"a")]);
    paths(9, "catalogue-prefix-long", "catalogue: a prefix is of the path before", &[(0, b"a"), (2, b"b")]);
    paths(9, "catalogue-prefix-huge", "catalogue: a prefix is of the path before", &[(0, b"a"), (u64::MAX, b"b")]);
    paths(9, "catalogue-prefix-short", "catalogue: a prefix is the longest", &[(0, b"ab"), (0, b"ac")]);
    paths(11, "path-empty", "path: not empty", &[(0, b"")]);
    paths(11, "path-absolute", "path: not absolute", &[(0, b"/etc/passwd")]);
    paths(11, "path-parent", "path: no component ..", &[(0, b"../outside")]);
    paths(11, "path-parent-inside", "path: no component ..", &[(0, b"a/../../b")]);
    paths(11, "path-parent-last", "path: no component ..", &[(0, b"a/..")]);
    paths(11, "path-parent-in-parts", "path: no component .. by way of a prefix", &[(0, b"a/."), (3, b"./b")]);
    paths(11, "path-dot", "path: no component .", &[(0, b"./a")]);
    paths(11, "path-component-empty", "path: no empty component", &[(0, b"a//b")]);
    paths(11, "path-slash-last", "path: it does not end with /", &[(0, b"a/")]);
    paths(11, "path-nul", "path: no 00", &[(0, b"a\0b")]);
    paths(11, "path-component-long", "path: a component has at most 4096 bytes", &[(0, &[b'a'; 4097])]);
    let long = vec![b'a'; 4095].into_iter().chain([b'/']).collect::<Vec<u8>>().repeat(17);
    paths(11, "path-long", "path: at most 65536 bytes", &[(0, &long[..65_537])]);
}

/// Trees of chunk references.
fn content(cases: &mut Cases) {
    cases.rule(9);
    let mut forge = |name, rule, make: &dyn Fn(&mut Draft<'_>, Item) -> (Item, u64, String)| {
        cases.add(name, rule, ("restore", "damaged"), |storage, repository| {
            let mut draft = Draft::new(repository);
            let (tree, length, object) = make(&mut draft, known_chunk(repository));
            let entry = map(vec![(1, 1.into()), (4, length.into()), (6, tree)]).encode();
            let page = draft.page(&Draft::leaf(&[(0, b"file", entry)]));
            draft.store(storage, root(1, page, 1), |_, _| ());
            object
        });
    };
    let tree = |height: u64, [id, length]: [Item; 2]| Item::Array(vec![height.into(), id, length]);
    let mut one_page = |name, rule, height: u64, length: u64, make: &dyn Fn(Item) -> Item| {
        forge(name, rule, &|draft, chunk| {
            let page = draft.page(&make(chunk));
            let name = id(&page);
            (tree(height, page), length, name)
        });
    };
    // The chunk has 12 bytes.
    let leaf = |items: Vec<Item>| page(1, 1, items);
    one_page("content-tree", "page: it is of the tree of its place", 1, 24, &|chunk| {
        page(2, 1, list([chunk.clone(), chunk]))
    });
    one_page("content-height", "page: it has the height that its parent says", 1, 24, &|chunk| {
        page(1, 2, list([chunk.clone(), chunk]))
    });
    one_page("content-sum", "content: references add up to the length", 1, 25, &|chunk| {
        leaf(vec![chunk.clone(), chunk])
    });
    one_page("content-sum-high", "content: references add up to the length", 1, 13, &|chunk| {
        leaf(vec![chunk.clone(), chunk])
    });
    one_page("content-leaf-empty", "content: references add up to the length", 1, 12, &|_| leaf(Vec::new()));
    one_page("content-holes", "content: two holes never follow each other", 1, 24, &|chunk| {
        leaf(vec![chunk, 6.into(), 6.into()])
    });
    one_page("content-hole-empty", "content: a hole has at least 1 byte", 1, 24, &|chunk| {
        leaf(vec![chunk.clone(), 0.into(), chunk])
    });
    one_page("content-hole-overflow", "content: sums do not overflow", 1, 24, &|chunk| {
        leaf(vec![u64::MAX.into(), chunk.clone(), 13.into(), chunk])
    });
    one_page("content-chunk-empty", "content: a chunk has at least 1 byte", 1, 12, &|chunk| {
        let id = chunk.array()[0].clone();
        leaf(vec![chunk, Item::Array(vec![id, 0.into()])])
    });
    one_page("content-chunk-large", "content: a chunk has at most 16 MiB", 1, 12 + (16 << 20) + 1, &|chunk| {
        let id = chunk.array()[0].clone();
        leaf(vec![chunk, Item::Array(vec![id, ((16u64 << 20) + 1).into()])])
    });
    one_page("content-chunk-items", "content: a chunk reference has two items", 1, 12, &|chunk| {
        leaf(vec![Item::Array([chunk.array(), &[0.into()]].concat())])
    });
    one_page("content-chunk-id", "content: an id has 32 bytes", 1, 12, &|_| {
        leaf(vec![Item::Array(vec![[0; 31].into(), 12.into()])])
    });
    one_page("content-many", "content: at most 1024 references in a leaf", 1, 12 * 1025, &|chunk| {
        leaf(vec![chunk; 1025])
    });
    one_page("content-unknown-field", "page: fields below 128 are known", 1, 12, &|chunk| leaf(vec![chunk]).with(5, 0));
    let child = |[id, length]: [Item; 2], covered: u64| [id, length, covered.into()];
    forge("content-node-sum", "content: children add up to what the parent says", &|draft, chunk| {
        let below = draft.page(&leaf(vec![chunk]));
        let top = draft.page(&page(1, 2, [child(below.clone(), 12), child(below, 12)].concat()));
        let name = id(&top);
        (tree(2, top), 25, name)
    });
    forge("content-child-sum", "content: a page covers what its parent says", &|draft, chunk| {
        let below = draft.page(&leaf(vec![chunk]));
        let name = id(&below);
        let top = draft.page(&page(1, 2, child(below, 13).to_vec()));
        (tree(2, top), 13, name)
    });
    forge("content-child-empty", "content: a child covers at least 1 byte", &|draft, chunk| {
        let below = draft.page(&leaf(vec![chunk]));
        let nothing = draft.page(&leaf(Vec::new()));
        let top = draft.page(&page(1, 2, [child(below, 12), child(nothing, 0)].concat()));
        let name = id(&top);
        (tree(2, top), 12, name)
    });
    forge("content-child-height", "page: it has the height that its parent says", &|draft, chunk| {
        let below = draft.page(&leaf(vec![chunk]));
        let name = id(&below);
        let top = draft.page(&page(1, 3, child(below, 12).to_vec()));
        (tree(3, top), 12, name)
    });
    forge("content-catalogue", "page: it is of the tree of its place", &|draft, _| {
        let page = draft.page(&Draft::leaf(&[(0, b"a", file(&map(vec![])))]));
        let name = id(&page);
        (tree(1, page), 12, name)
    });

    cases.rule(8);
    // The content of a page as the content of a file: ids of pages are no ids of content.
    cases.add("chunk-page", "chunk: a page is no content", ("restore", "damaged"), |storage, repository| {
        let mut draft = Draft::new(repository);
        let other = Draft::leaf(&[(0, b"other", directory())]);
        let [id_item, length] = draft.page(&other);
        let name = hex(id_item.bytes());
        let total = length.number();
        let entry = map(vec![(1, 1.into()), (4, total.into()), (5, list([Item::Array(vec![id_item, length])]))]);
        let page = draft.page(&Draft::leaf(&[(0, b"file", entry.encode())]));
        draft.store(storage, root(1, page, 1), |_, _| ());
        name
    });
    cases.add(
        "chunk-length",
        "chunk: it has the length that its reference says",
        ("restore", "damaged"),
        |storage, repository| {
            let mut draft = Draft::new(repository);
            let id = testing::chunk_id(repository, false, b"key = value\n");
            let references = vec![Item::Array(vec![id.into(), 11.into()])];
            let entry = map(vec![(1, 1.into()), (4, 11.into()), (5, references.into())]);
            let page = draft.page(&Draft::leaf(&[(0, b"file", entry.encode())]));
            draft.store(storage, root(1, page, 1), |_, _| ());
            hex(&id)
        },
    );
    cases.add("chunk-nowhere", "chunk: it is in a pack", ("restore", "damaged"), |storage, repository| {
        let mut draft = Draft::new(repository);
        let references = vec![Item::Array(vec![[0xdd; 32].into(), 11.into()])];
        let entry = map(vec![(1, 1.into()), (4, 11.into()), (5, references.into())]);
        let page = draft.page(&Draft::leaf(&[(0, b"file", entry.encode())]));
        draft.store(storage, root(1, page, 1), |_, _| ());
        "dd".repeat(32)
    });
}
