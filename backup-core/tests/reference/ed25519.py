"""docs/format.md, "Signed records" and "Config": strict Ed25519.

RFC 8032 leaves open what to do with points that are not canonical or of small order; the format rejects
them. The equation itself, and that the scalar is reduced, are checked by the library.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_ONE = pow(2, (_P - 1) // 4, _P)


def _decompress(encoding: bytes) -> tuple[int, int] | None:
    """The point (x, y), or nothing where the encoding is not the canonical one of a point (RFC 8032, 5.1.3)."""
    number = int.from_bytes(encoding, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if len(encoding) != 32 or y >= _P:
        return None
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * pow(v, 3, _P) * pow(u * pow(v, 7, _P), (_P - 5) // 8, _P) % _P
    if v * x * x % _P != u:
        x = x * _ROOT_OF_MINUS_ONE % _P
    if v * x * x % _P != u or (x == 0 and sign == 1):
        return None
    return (x if x & 1 == sign else _P - x), y


def _double(point: tuple[int, int]) -> tuple[int, int]:
    x, y = point
    product = _D * x * x * y * y % _P
    return (
        2 * x * y * pow(1 + product, -1, _P) % _P,
        (y * y + x * x) * pow(1 - product, -1, _P) % _P,
    )


def usable_point(encoding: bytes) -> bool:
    """A canonical encoding of a point that is not of small order: eight times the point is not the identity."""
    point = _decompress(encoding)
    return point is not None and _double(_double(_double(point))) != (0, 1)


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    if not usable_point(public_key) or not usable_point(signature[:32]):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def public_key(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
