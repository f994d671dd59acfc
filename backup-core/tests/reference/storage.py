"""docs/format.md, "Storage" and "Storage keys": a directory, each object a file under its key."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from .errors import Damaged, LimitExceeded, Missing

KIB, MIB, GIB = 2**10, 2**20, 2**30

# "Limits".
MAXIMUM_CONFIG = 64 * KIB
MAXIMUM_KEYRING = 64 * KIB
MAXIMUM_OUTCOME = 64 * KIB
MAXIMUM_FORGET = 64 * KIB
MAXIMUM_BODY = 16 * MIB
MAXIMUM_CLOSURE = 16 + 40 * 2**24
MAXIMUM_COLLECTION_RECORD = GIB
MAXIMUM_INDEX = 256 * MIB
MAXIMUM_PACK = 256 * MIB

_COMPONENT = re.compile(r"[a-z0-9_-][a-z0-9._-]{0,99}\Z")


class Storage:
    """What a repository lies on. Nothing that it says is trusted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def list(self, prefix: str) -> list[str]:
        """The keys that begin with a component and a slash, in ascending order of their bytes."""
        assert prefix.endswith("/")
        return sorted(self._walk(prefix), key=str.encode)

    def _walk(self, prefix: str) -> Iterator[str]:
        try:
            found = list(os.scandir(self.directory / prefix))
        except FileNotFoundError:
            return
        for item in found:
            # What is no component belongs to the storage and is no object; links are none either.
            if not _COMPONENT.match(item.name):
                continue
            if item.is_dir(follow_symlinks=False):
                yield from self._walk(f"{prefix}{item.name}/")
            elif item.is_file(follow_symlinks=False) and len(prefix) + len(item.name) <= 200:
                yield prefix + item.name

    def size(self, key: str) -> int:
        try:
            return os.stat(self.directory / key).st_size
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(key, "there is no such object") from None

    def get(self, key: str, limit: int) -> bytes:
        """A whole object; its size is compared with the limit before it is read."""
        if self.size(key) > limit:
            raise LimitExceeded(key, f"longer than {limit} bytes")
        data = self.read(key, 0, limit + 1)
        if len(data) > limit:
            raise LimitExceeded(key, f"longer than {limit} bytes")
        return data

    def read(self, key: str, offset: int, length: int) -> bytes:
        """Bytes of an object; fewer where it ends before."""
        try:
            with open(self.directory / key, "rb") as file:
                file.seek(offset)
                return file.read(length)
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(key, "there is no such object") from None


def named(place: str, name: bytes, data: bytes) -> bytes:
    """An object that is named by a hash must have that hash."""
    if blake3(data).digest() != name:
        raise Damaged(place, "its bytes do not have the hash that is its name")
    return data


def pack_key(name: bytes) -> str:
    return f"packs/{name.hex()[:2]}/{name.hex()}"


def number_text(number: int) -> str:
    return f"{number:08x}"


_PACK = re.compile(r"packs/([0-9a-f]{2})/(\1[0-9a-f]{62})\Z")


def pack_name(key: str) -> bytes | None:
    """The name in the key of a pack, or nothing for another key: readers ignore those."""
    match = _PACK.match(key)
    return bytes.fromhex(match[2]) if match else None
