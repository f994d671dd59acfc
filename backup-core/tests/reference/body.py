"""docs/format.md, "Backup body" and "Closures"."""

import re
from dataclasses import dataclass

from .cbor import Item, decode
from .config import Config
from .errors import Damaged, LimitExceeded
from .keys import BODY, Keys
from .pages import PageReference
from .records import Commit
from .sealed import open_bytes
from .storage import MAXIMUM_BODY, MAXIMUM_CLOSURE, Storage, named

MAXIMUM_ORIGINS = 64
_KIND = re.compile(r"[a-z0-9._-]{1,64}\Z")


@dataclass(frozen=True)
class Body:
    place: str
    kind: str
    host: str
    tags: list[str]
    labels: list[tuple[str, str]]
    started: tuple[int, int]
    finished: tuple[int, int]
    parent: bytes | None
    catalogue: PageReference
    height: int
    entries: int
    amounts: list[int]
    problems: list[tuple[str, str]]
    problem_count: int
    origins: list[tuple[bytes, bytes]]


def read_body(storage: Storage, config: Config, keys: Keys, commit: Commit) -> Body:
    """Step 6 of "Reading a backup"."""
    place = f"bodies/{commit.body.hex()}"
    data = named(place, commit.body, storage.get(place, MAXIMUM_BODY))
    document = open_bytes(place, data, config.repository, BODY, keys.base_key, MAXIMUM_BODY)
    fields = decode(place, "the backup body", document)
    kind = fields.required(1).text()
    if not _KIND.match(kind):
        raise Damaged(place, "a kind of backup with impossible characters")
    parent = fields.optional(9)
    origins = fields.optional(14)
    height, page, length, entries = fields.required(10).tuple(4)
    body = Body(
        place=place,
        kind=kind,
        host=fields.required(2).text(),
        tags=[item.text() for item in fields.required(3).array()],
        labels=[(pair.tuple(2)[0].text(), pair.tuple(2)[1].text()) for pair in fields.required(4).array()],
        started=fields.time(5),
        finished=fields.time(7),
        parent=None if parent is None else parent.identifier(),
        catalogue=PageReference.of(page, length),
        height=height.unsigned(1, 8),
        entries=entries.unsigned(),
        amounts=[item.unsigned() for item in fields.required(11).tuple(8)],
        problems=[(pair.tuple(2)[0].text(), pair.tuple(2)[1].text()) for pair in fields.required(12).array()],
        problem_count=fields.required(13).unsigned(),
        origins=[] if origins is None else [_origin(item) for item in origins.array(1, MAXIMUM_ORIGINS)],
    )
    fields.close()
    return body


def _origin(item: Item) -> tuple[bytes, bytes]:
    repository, backup = item.tuple(2)
    return repository.identifier(16), backup.identifier()


def read_closure(storage: Storage, commit: Commit) -> dict[bytes, int]:
    """Name and size of every pack that the backup needs. No key is needed for that."""
    place = f"closures/{commit.closure.hex()}"
    data = named(place, commit.closure, storage.get(place, MAXIMUM_CLOSURE))
    count = int.from_bytes(data[8:16], "little")
    if count > 2**24:
        raise LimitExceeded(place, "more than 2^24 packs")
    if len(data) < 16 or data[0:8] != b"BCL1\0\0\0\0" or len(data) != 16 + 40 * count:
        raise Damaged(place, "no closure, or its length does not fit its count")
    packs: dict[bytes, int] = {}
    last = b""
    for start in range(16, len(data), 40):
        name = data[start : start + 32]
        if name <= last:
            raise Damaged(place, "packs that are not in order")
        packs[name] = int.from_bytes(data[start + 32 : start + 40], "little")
        last = name
    if len(packs) != commit.closure_packs or sum(packs.values()) != commit.closure_bytes:
        raise Damaged(place, "it does not fit the numbers of the commit")
    return packs
