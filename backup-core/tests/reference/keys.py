"""docs/format.md, "Keys": what is derived from what."""

import hashlib
import hmac

from blake3 import blake3

SUITE = 1
KEYRING, DATA_PACK, META_PACK, INDEX, BODY = 1, 2, 3, 4, 5


def extract(salt: bytes, key: bytes) -> bytes:
    """HKDF-Extract with SHA-256 (RFC 5869, 2.2)."""
    return hmac.digest(salt, key, hashlib.sha256)


def expand(pseudorandom_key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand with SHA-256 (RFC 5869, 2.3)."""
    output, block, counter = b"", b"", 0
    while len(output) < length:
        counter += 1
        block = hmac.digest(pseudorandom_key, block + info + bytes([counter]), hashlib.sha256)
        output += block
    return output[:length]


def key_iv_commitment(salt: bytes, base: bytes, label: bytes, header: bytes) -> tuple[bytes, bytes, bytes]:
    """What key slots and sealed objects have in common: both bind all of their header."""
    info = label + b"\0" + hashlib.sha256(header).digest()
    material = expand(extract(salt, base), info, 76)
    return material[:32], material[32:44], material[44:76]


class Keys:
    """The secrets of a keyring."""

    def __init__(self, repository: bytes, keyring_key: bytes, root_keys: dict[int, bytes], dedup_key: bytes) -> None:
        self._repository = repository
        self._keyring_key = keyring_key
        self._root_keys = root_keys
        dedup = extract(b"backup/v1/dedup", dedup_key)
        self._data = expand(dedup, b"backup/v1/chunk-id/data", 32)
        self._meta = expand(dedup, b"backup/v1/chunk-id/meta", 32)
        self._index = expand(dedup, b"backup/v1/index", 32)

    def base_key(self, object_type: int, generation: int) -> bytes | None:
        """The second table of "Keys"; nothing for a generation that the object cannot have."""
        if object_type == KEYRING:
            return self._keyring_key if generation == 0 else None
        if object_type == INDEX:
            return self._index if generation == 0 else None
        if generation not in self._root_keys:
            return None
        root = extract(self._repository, self._root_keys[generation])
        info = b"backup/v1/type\0" + bytes([object_type, SUITE]) + generation.to_bytes(4, "little")
        return expand(root, info, 32)

    def chunk_id(self, kind: int, plaintext: bytes) -> bytes:
        """Of content (kind 0) or of a page (kind 1)."""
        return blake3(plaintext, key=self._meta if kind == 1 else self._data).digest()
