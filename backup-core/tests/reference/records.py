"""docs/format.md, "Signed records", "Commits" and "Collections and forgetting": what is signed."""

from dataclasses import dataclass
from itertools import pairwise

from blake3 import blake3

from .cbor import U32, Fields, Item, decode
from .config import Config
from .ed25519 import verify
from .errors import Damaged

COMMIT = "backup/v1/commit"
REVOKE = "backup/v1/revoke"
FORGET = "backup/v1/forget"
MARK = "backup/v1/collection-mark"
FINAL = "backup/v1/collection-final"
ABORT = "backup/v1/collection-abort"

MAXIMUM_REPLACED = 256


def read_record(place: str, data: bytes, config: Config, labels: tuple[str, ...]) -> tuple[str, Fields]:
    """Label and payload of a genuine record of this repository."""
    record = decode(place, "the record", data)
    label = record.required(1).text()
    payload = record.required(2).octets()
    signature = record.required(3).identifier(64)
    record.close()
    if label not in labels:
        raise Damaged(place, "a record whose label does not belong here")
    key = config.writer_key if label == COMMIT else config.maintenance_key
    if not verify(key, label.encode("ascii") + b"\0" + blake3(payload).digest(), signature):
        raise Damaged(place, "the signature is not valid")
    fields = decode(place, "the payload", payload)
    if fields.required(1).identifier(16) != config.repository:
        raise Damaged(place, "a record of another repository")
    return label, fields


@dataclass(frozen=True)
class Commit:
    # Where it was read: its slot, or the outcome of a collection with a checkpoint.
    place: str
    backup: bytes
    session: bytes
    generation: int
    body: bytes
    indexes: list[bytes]
    closure: bytes
    closure_packs: int
    closure_bytes: int
    config: bytes
    heads: list[bytes]
    time: tuple[int, int]
    replaces: list[bytes]

    @property
    def ids(self) -> list[bytes]:
        """All that the backup was ever called, as far as this commit knows, the first one first."""
        return [*self.replaces, self.backup]


def read_commit(place: str, data: bytes, fields: Fields) -> Commit:
    earlier = fields.optional(13)
    commit = Commit(
        place=place,
        backup=blake3(data).digest(),
        session=fields.required(2).identifier(16),
        generation=fields.required(3).unsigned(0, U32),
        body=fields.required(4).identifier(),
        indexes=[item.identifier() for item in fields.required(5).array()],
        closure=fields.required(6).identifier(),
        closure_packs=fields.required(7).unsigned(),
        closure_bytes=fields.required(8).unsigned(),
        config=fields.required(9).identifier(),
        heads=[item.identifier() for item in fields.required(10).array()],
        time=fields.time(11),
        replaces=[item.identifier() for item in earlier.array()] if earlier else [],
    )
    fields.close()
    if earlier and not 1 <= len(commit.replaces) <= MAXIMUM_REPLACED:
        raise Damaged(place, "it replaces none or too many")
    if len(set(commit.replaces)) != len(commit.replaces):
        raise Damaged(place, "it replaces a commit twice")
    return commit


def names(item: Item) -> list[bytes]:
    """Object names one behind the other, strictly ascending."""
    joined = item.octets()
    result = [joined[i : i + 32] for i in range(0, len(joined), 32)]
    if len(joined) % 32 or any(a >= b for a, b in pairwise(result)):
        raise item.fail("a list of names in order")
    return result


@dataclass(frozen=True)
class Final:
    place: str
    number: int
    checkpoint: list[bytes]
    indexes: list[bytes]


def read_final(place: str, fields: Fields) -> Final:
    number = fields.required(2).unsigned(0, U32)
    names(fields.required(3))
    checkpoint = [item.octets() for item in fields.required(4).array()]
    indexes = names(fields.required(5))
    fields.close()
    return Final(place, number, checkpoint, indexes)
