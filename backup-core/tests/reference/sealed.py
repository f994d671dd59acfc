"""docs/format.md, "Sealed objects"."""

import hmac
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import Damaged, Foreign, LimitExceeded, Unsupported
from .keys import KEYRING, SUITE, key_iv_commitment
from .storage import GIB

_MAGIC = b"\x89BKUP\r\n\x1a"
_HEADER = 128
_TAG = 16

# From (object type, generation) to the base key, or nothing.
BaseKey = Callable[[int, int], bytes | None]
# From (offset, length) to the bytes of the object; fewer where it ends.
ReadBytes = Callable[[int, int], bytes]


class SealedObject:
    """A sealed object whose header was checked. Bytes of the body are only had from frames that verified."""

    def __init__(
        self, place: str, read: ReadBytes, size: int, repository: bytes, types: tuple[int, ...], base_key: BaseKey
    ) -> None:
        """Checks in the order that the section gives."""
        self.place = place
        self._read = read
        if size < _HEADER:
            raise Damaged(place, "too short for a sealed object")
        header = read(0, _HEADER)
        if len(header) != _HEADER or header[0:8] != _MAGIC:
            raise Damaged(place, "no sealed object")
        if header[8] != 1:
            raise Unsupported(place, f"version {header[8]}")
        if any(header[12:16]):
            raise Unsupported(place, "flags")
        if header[10] != SUITE:
            raise Unsupported(place, f"suite {header[10]}")
        if any(header[56:58]):
            raise Unsupported(place, "an envelope")
        if any(header[58:64]):
            raise Damaged(place, "reserved bytes that are not zero")
        exponent = header[11]
        self._frames = int.from_bytes(header[36:40], "little")
        if not 12 <= exponent <= 20 or not 1 <= self._frames <= 4096:
            raise Damaged(place, f"{self._frames} frames of 2^{exponent} bytes")
        self._exponent = exponent
        self._frame_size = 1 << exponent
        if size != _HEADER + self._frames * (self._frame_size + _TAG):
            raise Damaged(place, f"{size} bytes are not what its header says")
        if size > 4 * GIB:
            raise LimitExceeded(place, "longer than 4 GiB")
        if header[16:32] != repository:
            bits = (int.from_bytes(header[16:32], "big") ^ int.from_bytes(repository, "big")).bit_count()
            raise (Foreign if bits >= 24 else Damaged)(place, "an object of another repository")
        self.type = header[9]
        if self.type not in types:
            raise Damaged(place, f"an object of type {self.type}")
        generation = int.from_bytes(header[32:36], "little")
        base = base_key(self.type, generation)
        if base is None:
            raise Damaged(place, f"root key generation {generation} is not in the keyring")
        if self.type == KEYRING and any(header[40:56]):
            raise Damaged(place, "a keyring with a session")

        blank = header[:96] + bytes(32)
        key, self._iv, commitment = key_iv_commitment(header[64:96], base, b"backup/v1/object", blank)
        if not hmac.compare_digest(commitment, header[96:128]):
            raise Damaged(place, "the key is not the one that the header commits to")
        self._cipher = AESGCM(key)
        # The frame that was read last: chunks are mostly read one behind the other.
        self._last: tuple[int, bytes] = (-1, b"")
        self.body_length = int.from_bytes(self._frame(0)[:8], "little")
        if self.body_length > self._frames * self._frame_size - 8:
            raise Damaged(place, "a body that is longer than its frames")

    def _frame(self, index: int) -> bytes:
        if self._last[0] != index:
            stored = self._frame_size + _TAG
            sealed = self._read(_HEADER + index * stored, stored)
            last = index == self._frames - 1
            mask = bytes(3) + bytes([last]) + index.to_bytes(8, "big")
            nonce = bytes(a ^ b for a, b in zip(self._iv, mask, strict=True))
            try:
                self._last = (index, self._cipher.decrypt(nonce, sealed, None))
            except (InvalidTag, ValueError):
                raise Damaged(self.place, f"frame {index} is not authentic") from None
        return self._last[1]

    def _plaintext(self, start: int, end: int) -> bytes:
        first = start >> self._exponent
        frames = b"".join(self._frame(i) for i in range(first, (end - 1 >> self._exponent) + 1))
        return frames[start - (first << self._exponent) : end - (first << self._exponent)]

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the body, from the frames that cover them; the length of the body stands before it."""
        if offset < 0 or length < 0 or offset + length > self.body_length:
            raise Damaged(self.place, "bytes outside of the body")
        return self._plaintext(offset + 8, offset + 8 + length) if length else b""

    def whole(self, limit: int) -> bytes:
        """All of the body. Bytes behind it are zero."""
        if self.body_length > limit:
            raise LimitExceeded(self.place, f"a body of more than {limit} bytes")
        plaintext = self._plaintext(0, self._frames * self._frame_size)
        if any(plaintext[8 + self.body_length :]):
            raise Damaged(self.place, "padding that is not zero")
        return plaintext[8 : 8 + self.body_length]


def open_bytes(place: str, data: bytes, repository: bytes, object_type: int, base_key: BaseKey, limit: int) -> bytes:
    """The body of a sealed object that was read whole."""

    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    return SealedObject(place, read, len(data), repository, (object_type,), base_key).whole(limit)
