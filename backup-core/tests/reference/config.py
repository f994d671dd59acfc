"""docs/format.md, "Config"."""

import re
from dataclasses import dataclass
from itertools import pairwise

from .cbor import U32, Item, decode
from .ed25519 import usable_point
from .errors import Damaged, Unsupported
from .storage import KIB, MAXIMUM_CONFIG, MIB, Storage

PLACE = "config"
_WORD = re.compile(r"[a-z0-9-]{1,64}\Z")


@dataclass(frozen=True)
class Config:
    document: bytes
    repository: bytes
    writer_key: bytes
    maintenance_key: bytes


def _features(item: Item) -> list[str]:
    words = [word.text() for word in item.array(0, 64)]
    if not all(_WORD.match(word) for word in words) or any(a >= b for a, b in pairwise(words)):
        raise item.fail("a list of feature words in order")
    return words


def read_config(storage: Storage) -> Config:
    document = storage.get(PLACE, MAXIMUM_CONFIG)
    fields = decode(PLACE, "the config", document)
    if fields.required(0).text() != "backup repository":
        raise Damaged(PLACE, "it is not the config of a repository")
    version = fields.required(1).unsigned()
    if version != 1:
        raise Unsupported(PLACE, f"version {version}")
    repository = fields.required(2).identifier(16)
    _features(fields.required(3))
    _features(fields.required(4))
    # Version 1 defines no feature: every incompatible one is unknown.
    for word in _features(fields.required(5)):
        raise Unsupported(PLACE, f"incompatible feature {word}")
    fields.required(6).boolean()

    chunking = fields.required(7).fields()
    fixed, minimum, average, maximum = (chunking.required(n).unsigned(0, U32) for n in (1, 2, 3, 4))
    chunking.close()
    if not 64 * KIB <= fixed <= 4 * MIB or fixed.bit_count() != 1:
        raise Damaged(PLACE, f"chunks of a fixed size of {fixed} bytes")
    if not KIB <= minimum < average < maximum <= 16 * MIB or average.bit_count() != 1:
        raise Damaged(PLACE, f"chunks of streams of {minimum}, {average} and {maximum} bytes")

    fields.required(8).unsigned(64 * KIB, 128 * MIB)
    if fields.required(9).unsigned() > 1:
        raise Unsupported(PLACE, "unknown padding")
    fields.required(10).signed(-7, 19)
    keys = [fields.required(number).identifier() for number in (11, 12)]
    fields.close()
    for key in keys:
        if not usable_point(key):
            raise Damaged(PLACE, "a public key that cannot be used")
    return Config(document, repository, keys[0], keys[1])
