"""docs/format.md, "Pages", "Content" and "Catalogue": trees, and what is in their leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from .cbor import Item, decode
from .errors import Damaged, shown
from .packs import PAGE, Chunks
from .storage import MIB

_CONTENT_TREE, _CATALOGUE_TREE = 1, 2
_MAXIMUM_ITEMS = 1024
_MAXIMUM_PAGE = 8 * MIB
_MAXIMUM_CHUNK = 16 * MIB
_MAXIMUM_CONTENT = 2**62
_MAXIMUM_PATH = 65536
_MAXIMUM_COMPONENT = 4096


@dataclass(frozen=True, slots=True)
class PageReference:
    identifier: bytes
    length: int

    @staticmethod
    def of(identifier: Item, length: Item) -> PageReference:
        return PageReference(identifier.identifier(), length.unsigned(1, _MAXIMUM_PAGE))


def _read_page(chunks: Chunks, place: str, page: PageReference, tree: int, height: int) -> list[Item]:
    """The items of a page that is what its parent says. `place` is what the tree belongs to."""
    document = chunks.read(place, page.identifier, page.length, PAGE)
    name = f"page {page.identifier.hex()}"
    fields = decode(place, name, document)
    if fields.required(1).unsigned() != tree:
        raise Damaged(place, f"{name} belongs to another kind of tree")
    if fields.required(2).unsigned() != height:
        raise Damaged(place, f"{name} has another height")
    items = fields.required(3).array()
    fields.close()
    return items


def _groups(place: str, items: list[Item], size: int) -> list[list[Item]]:
    """Items of several fields each, which stand flat in the array."""
    if len(items) % size or len(items) > size * _MAXIMUM_ITEMS:
        raise Damaged(place, f"a page with {len(items)} fields, for items of {size}")
    return [items[i : i + size] for i in range(0, len(items), size)]


# "Content"


@dataclass(frozen=True, slots=True)
class Stored:
    identifier: bytes
    length: int


@dataclass(frozen=True, slots=True)
class Hole:
    length: int


ChunkReference = Stored | Hole


def read_references(items: list[Item]) -> list[ChunkReference]:
    references: list[ChunkReference] = []
    for item in items:
        if isinstance(item.value, list):
            identifier, length = item.tuple(2)
            references.append(Stored(identifier.identifier(), length.unsigned(1, _MAXIMUM_CHUNK)))
            continue
        if references and isinstance(references[-1], Hole):
            raise item.fail("allowed: a hole follows a hole")
        references.append(Hole(item.unsigned(1, _MAXIMUM_CONTENT)))
    return references


def content_tree(chunks: Chunks, place: str, page: PageReference, height: int, length: int) -> Iterator[ChunkReference]:
    """The references below a page, which cover `length` bytes."""
    items = _read_page(chunks, place, page, _CONTENT_TREE, height)
    if height == 1:
        references = read_references([item for (item,) in _groups(place, items, 1)])
        _check_sum(place, page, [reference.length for reference in references], length)
        yield from references
        return
    children = [
        (PageReference.of(identifier, size), covered.unsigned(1, _MAXIMUM_CONTENT))
        for identifier, size, covered in _groups(place, items, 3)
    ]
    _check_sum(place, page, [covered for _, covered in children], length)
    for child, covered in children:
        yield from content_tree(chunks, place, child, height - 1, covered)


def _check_sum(place: str, page: PageReference, parts: list[int], whole: int) -> None:
    if sum(parts) != whole:
        raise Damaged(place, f"page {page.identifier.hex()} has {sum(parts)} where its parent says {whole}")


# "Catalogue"


def sort_key(path: bytes) -> bytes:
    """The order of paths: a directory stands directly before what is in it."""
    return path.replace(b"/", b"\0")


def check_path(place: str, path: bytes) -> bytes:
    components = path.split(b"/")
    if (
        not 1 <= len(path) <= _MAXIMUM_PATH
        or b"\0" in path
        or any(component in (b"", b".", b"..") or len(component) > _MAXIMUM_COMPONENT for component in components)
    ):
        raise Damaged(place, f"an impossible path, {shown(path[:200])}")
    return path


def catalogue(
    chunks: Chunks,
    place: str,
    page: PageReference,
    height: int,
    entries: int,
    first: bytes | None = None,
    bound: bytes | None = None,
) -> Iterator[tuple[bytes, bytes]]:
    """Paths and encoded entries below a page: `entries` of them, from `first` on, all before `bound`."""
    items = _read_page(chunks, place, page, _CATALOGUE_TREE, height)
    if height == 1:
        yield from _catalogue_leaf(place, items, page, entries, first, bound)
        return
    children = [
        (PageReference.of(identifier, length), below.unsigned(1), check_path(place, path.octets()))
        for identifier, length, below, path in _groups(place, items, 4)
    ]
    if not children:
        raise Damaged(place, f"page {page.identifier.hex()} has no children")
    _check_sum(place, page, [below for _, below, _ in children], entries)
    paths = [path for _, _, path in children]
    _check_order(place, paths, first, bound)
    for (child, below, path), end in zip(children, [*paths[1:], bound], strict=True):
        yield from catalogue(chunks, place, child, height - 1, below, path, end)


def _catalogue_leaf(
    place: str, items: list[Item], page: PageReference, entries: int, first: bytes | None, bound: bytes | None
) -> Iterator[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    before = b""
    for shared_item, rest, entry in _groups(place, items, 3):
        shared = shared_item.unsigned(0, len(before))
        path = check_path(place, before[:shared] + rest.octets())
        if shared < len(before) and path[shared : shared + 1] == before[shared : shared + 1]:
            raise Damaged(place, f"{shown(path)} shares more with the path before than it says")
        found.append((path, entry.octets()))
        before = path
    _check_sum(place, page, [1] * len(found), entries)
    _check_order(place, [path for path, _ in found], first, bound)
    yield from found


def _check_order(place: str, paths: list[bytes], first: bytes | None, bound: bytes | None) -> None:
    if first is not None and (not paths or paths[0] != first):
        raise Damaged(place, f"a page that does not begin with {shown(first)}")
    for path, following in pairwise(paths if bound is None else [*paths, bound]):
        if sort_key(path) >= sort_key(following):
            raise Damaged(place, f"{shown(path)} does not stand before {shown(following)}")
