"""Records as docs/format.md says that they are made: for the states that the command does not make by itself."""

from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..cbor import decode
from ..config import read_config
from ..keys import KEYRING
from ..sealed import open_bytes
from ..slots import Credential, open_slot
from ..storage import MAXIMUM_KEYRING, Storage


def encode(value: Any) -> bytes:
    """ "Structured bodies": one encoding for each document."""

    def head(major: int, number: int) -> bytes:
        if number < 24:
            return bytes([major << 5 | number])
        for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
            if number < 1 << 8 * size:
                return bytes([major << 5 | code]) + number.to_bytes(size, "big")
        raise ValueError(number)

    match value:
        case bool():
            return b"\xf5" if value else b"\xf4"
        case int():
            return head(0, value) if value >= 0 else head(1, -1 - value)
        case bytes():
            return head(2, len(value)) + value
        case str():
            return head(3, len(value.encode())) + value.encode()
        case list():
            return head(4, len(value)) + b"".join(map(encode, value))
        case dict():
            return head(5, len(value)) + b"".join(encode(key) + encode(value[key]) for key in sorted(value))
    raise TypeError(value)


class Forger:
    """Signs with the keys of a repository that it can open."""

    def __init__(self, directory: Path, credential: Credential) -> None:
        self.storage = Storage(directory)
        self.config = read_config(self.storage)
        self.repository = self.config.repository
        keyring_key = open_slot(self.storage, self.repository, credential)
        place = self.storage.list("keyring/")[-1]
        data = self.storage.get(place, MAXIMUM_KEYRING)
        body = open_bytes(place, data, self.repository, KEYRING, lambda *_: keyring_key, MAXIMUM_KEYRING)
        fields = decode(place, "the keyring", body)
        self.writer = Ed25519PrivateKey.from_private_bytes(fields.required(4).identifier())
        self.maintenance = Ed25519PrivateKey.from_private_bytes(fields.required(5).identifier())

    def record(self, label: str, payload: dict[int, Any], by: Ed25519PrivateKey | None = None) -> bytes:
        body = encode({1: self.repository, **payload})
        key = by or (self.writer if label == "backup/v1/commit" else self.maintenance)
        return encode({1: label, 2: body, 3: key.sign(label.encode() + b"\0" + blake3(body).digest())})

    def put(self, key: str, data: bytes) -> None:
        path = self.storage.directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            file.write(data)
