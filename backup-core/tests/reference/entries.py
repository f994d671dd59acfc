"""docs/format.md, "Entries"."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from blake3 import blake3

from .cbor import U32, Fields, decode, time
from .errors import Damaged, LimitExceeded, shown
from .packs import CONTENT, Chunks
from .pages import ChunkReference, Hole, PageReference, check_path, content_tree, read_references
from .storage import MIB

FILE, DIRECTORY, SYMLINK, FIFO, CHARACTER_DEVICE, BLOCK_DEVICE, STREAM, DISK = range(1, 9)
KIND_NAMES = {
    FILE: "file",
    DIRECTORY: "directory",
    SYMLINK: "symlink",
    FIFO: "fifo",
    CHARACTER_DEVICE: "character-device",
    BLOCK_DEVICE: "block-device",
    STREAM: "stream",
    DISK: "disk",
}
WITH_CONTENT = (FILE, STREAM, DISK)
_MAXIMUM_ENTRY = 4 * MIB
_ZEROS = bytes(MIB)


@dataclass(frozen=True)
class Entry:
    # The object that errors name, and the path that they name within it.
    place: str
    path: bytes
    kind: int
    target: bytes | None = None
    device: tuple[int, int] | None = None
    length: int = 0
    inline: list[ChunkReference] = field(default_factory=list)
    tree: tuple[int, PageReference] | None = None
    digest: bytes | None = None
    hard_link: bytes | None = None
    inconsistent: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    user: str | None = None
    group: str | None = None
    modified: tuple[int, int] | None = None
    changed: tuple[int, int] | None = None
    inode: int | None = None
    extended: list[tuple[bytes, bytes]] = field(default_factory=list)


def read_entry(body: str, path: bytes, document: bytes) -> Entry:
    place = f"{body}, entry {shown(path)}"
    if len(document) > _MAXIMUM_ENTRY:
        raise LimitExceeded(place, f"longer than {_MAXIMUM_ENTRY} bytes")
    fields = decode(place, "the entry", document)
    kind = fields.required(1).unsigned(FILE, DISK)
    target = device = None
    if kind == SYMLINK:
        target = fields.required(2).octets(1, 65536)
        if b"\0" in target:
            raise Damaged(place, "a target with a byte 00")
    if kind in (CHARACTER_DEVICE, BLOCK_DEVICE):
        major, minor = fields.required(3).tuple(2)
        device = (major.unsigned(0, U32), minor.unsigned(0, U32))
    # Fields of another kind are not asked for, so `close` rejects them.
    length, inline, tree, digest = _content(place, fields) if kind in WITH_CONTENT else (0, [], None, None)

    link = fields.optional(8)
    hard_link = None if link is None else check_path(place, link.octets())
    if hard_link == path:
        raise Damaged(place, "a hard link to itself")
    if hard_link is not None and length:
        raise Damaged(place, "a hard link with content of its own")
    inconsistent = fields.optional(9)
    if inconsistent is not None and not inconsistent.boolean():
        raise Damaged(place, "an `inconsistent` that is false")

    uid, gid, mode, inode = (fields.optional(number) for number in (17, 18, 16, 23))
    user, group = (fields.optional(number) for number in (19, 20))
    entry = Entry(
        place=place,
        path=path,
        kind=kind,
        target=target,
        device=device,
        length=length,
        inline=inline,
        tree=tree,
        digest=digest,
        hard_link=hard_link,
        inconsistent=inconsistent is not None,
        mode=None if mode is None else mode.unsigned(0, 0o7777),
        uid=None if uid is None else uid.unsigned(0, U32),
        gid=None if gid is None else gid.unsigned(0, U32),
        user=None if user is None else user.text(),
        group=None if group is None else group.text(),
        modified=_time(fields, 21),
        changed=_time(fields, 22),
        inode=None if inode is None else inode.unsigned(),
        extended=_extended(place, fields),
    )
    fields.close()
    return entry


def _content(
    place: str, fields: Fields
) -> tuple[int, list[ChunkReference], tuple[int, PageReference] | None, bytes | None]:
    length_item, inline_item, tree_item, digest = (fields.optional(number) for number in (4, 5, 6, 7))
    length = 0 if length_item is None else length_item.unsigned(1, 2**62)
    if (inline_item is not None) + (tree_item is not None) != (1 if length else 0):
        raise Damaged(place, "not exactly one description of its content")
    inline: list[ChunkReference] = []
    if inline_item is not None:
        inline = read_references(inline_item.array(1, 4))
        if sum(reference.length for reference in inline) != length:
            raise Damaged(place, "chunks that do not add up to its length")
    tree = None
    if tree_item is not None:
        height, identifier, size = tree_item.tuple(3)
        tree = (height.unsigned(1, 8), PageReference.of(identifier, size))
    return length, inline, tree, None if digest is None else digest.identifier()


def _time(fields: Fields, number: int) -> tuple[int, int] | None:
    item = fields.optional(number)
    if item is None:
        return None
    seconds, nanoseconds = item.tuple(2)
    return time(seconds, nanoseconds)


def _extended(place: str, fields: Fields) -> list[tuple[bytes, bytes]]:
    item = fields.optional(24)
    if item is None:
        return []
    flat = [value.octets() for value in item.array(2)]
    if len(flat) % 2:
        raise Damaged(place, "an extended attribute without a value")
    names, values = flat[0::2], flat[1::2]
    if any(not name or b"\0" in name for name in names):
        raise Damaged(place, "impossible names of extended attributes")
    if any(a >= b for a, b in pairwise(names)):
        raise Damaged(place, "extended attributes that are not in order")
    return list(zip(names, values, strict=True))


def references(chunks: Chunks, entry: Entry) -> Iterator[ChunkReference]:
    """Step 8 of "Reading a backup": from the entry, or from its tree."""
    if entry.tree is None:
        yield from entry.inline
    else:
        height, root = entry.tree
        yield from content_tree(chunks, entry.place, root, height, entry.length)


def content(chunks: Chunks, entry: Entry) -> Iterator[bytes | Hole]:
    """The content in order: bytes, and holes that stand for zeros. The digest is compared at the end."""
    hasher = blake3()
    for reference in references(chunks, entry):
        if isinstance(reference, Hole):
            if entry.digest is not None:
                for start in range(0, reference.length, len(_ZEROS)):
                    hasher.update(_ZEROS[: min(len(_ZEROS), reference.length - start)])
            yield reference
        else:
            plaintext = chunks.read(entry.place, reference.identifier, reference.length, CONTENT)
            if entry.digest is not None:
                hasher.update(plaintext)
            yield plaintext
    if entry.digest is not None and hasher.digest() != entry.digest:
        raise Damaged(entry.place, "its content does not have its digest")
