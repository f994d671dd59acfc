"""docs/format.md, "Key slots" and "Recovery key": from a password or a recovery key to `KK`."""

import hmac
import unicodedata
from dataclasses import dataclass

from argon2.low_level import ARGON2_VERSION, Type, core, error_to_str, ffi
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import Damaged, LimitExceeded, Missing, Rejected, Unsupported, UnusableCredential, WrongPassword
from .keys import key_iv_commitment
from .storage import GIB, KIB, Storage

_MAGIC = b"\x89BKEY\r\n\x1a"
_LENGTH = 256
_PASSWORD, _RECOVERY_KEY = 1, 2
_SLOTS_TRIED = 8
_SLOTS_READ = 64

# Of the Argon2 library.
_DEFAULT_FLAGS = 0
_OK = 0


@dataclass(frozen=True)
class Password:
    password: bytes
    key_file: bytes = b""
    # What the caller allows for Argon2id, in bytes; never more than 1 GiB.
    memory: int = GIB


@dataclass(frozen=True)
class RecoveryKey:
    key: bytes


Credential = Password | RecoveryKey


@dataclass(frozen=True)
class _Slot:
    key: str
    data: bytes

    def number(self, offset: int) -> int:
        return int.from_bytes(self.data[offset : offset + 4], "little")

    derivation = property(lambda self: int(self.data[9]))
    memory = property(lambda self: int(self.number(48)))
    passes = property(lambda self: int(self.number(52)))
    lanes = property(lambda self: int(self.number(56)))
    salt = property(lambda self: bytes(self.data[64:96]))


def _read(storage: Storage, key: str, repository: bytes) -> _Slot:
    if storage.size(key) != _LENGTH:
        raise Damaged(key, f"a key slot that does not have {_LENGTH} bytes")
    data = storage.get(key, _LENGTH)
    if len(data) != _LENGTH or data[0:8] != _MAGIC:
        raise Damaged(key, "no key slot")
    if data[8] != 1:
        raise Unsupported(key, f"version {data[8]}")
    if data[9] not in (_PASSWORD, _RECOVERY_KEY):
        raise Unsupported(key, f"derivation {data[9]}")
    if any(data[12:16]):
        raise Unsupported(key, "flags")
    if any(data[10:12]) or any(data[60:64]) or any(data[160:176]):
        raise Damaged(key, "reserved bytes that are not zero")
    if data[16:32] != repository:
        raise Damaged(key, "a key slot of another repository")
    if data[32:48].hex() != key.removeprefix("keys/"):
        raise Damaged(key, "a key slot with another id")
    if data[9] == _RECOVERY_KEY and any(data[48:96]):
        raise Damaged(key, "parameters or a salt for a recovery key")
    _check_label(key, data[96], data[97:160])
    return _Slot(key, data)


def _check_label(key: str, length: int, label: bytes) -> None:
    if length > 63 or any(label[length:]):
        raise Damaged(key, "a label that is too long, or is not followed by zeros")
    try:
        text = label[:length].decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise Damaged(key, "a label that is not UTF-8") from None
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise Damaged(key, "a label with control characters")


def _check_costs(slot: _Slot, allowed: int) -> None:
    """Before anything is derived; memory is in KiB."""
    if slot.memory * KIB > min(GIB, allowed):
        raise LimitExceeded(slot.key, f"Argon2id with {slot.memory} KiB of memory")
    if slot.passes > 16 or slot.lanes > 16 or slot.memory * KIB * slot.passes > 4 * GIB:
        raise LimitExceeded(slot.key, f"Argon2id with {slot.memory} KiB, {slot.passes} passes, {slot.lanes} lanes")
    if slot.passes < 1 or slot.lanes < 1 or slot.memory < 8 * slot.lanes:
        raise Damaged(slot.key, "parameters that Argon2 does not allow")


def _argon2id(slot: _Slot, password: bytes, secret: bytes) -> bytes:
    """By the low-level interface: the others do not take a secret."""
    output = ffi.new("uint8_t[]", 32)
    salt = slot.salt
    inputs = [ffi.from_buffer("uint8_t[]", data) for data in (password, salt, secret)]
    context = ffi.new(
        "argon2_context *",
        {
            "version": ARGON2_VERSION,
            "pwd": inputs[0],
            "pwdlen": len(password),
            "salt": inputs[1],
            "saltlen": len(salt),
            "secret": inputs[2],
            "secretlen": len(secret),
            "ad": ffi.NULL,
            "adlen": 0,
            "m_cost": slot.memory,
            "t_cost": slot.passes,
            "lanes": slot.lanes,
            "threads": slot.lanes,
            "out": output,
            "outlen": 32,
            "allocate_cbk": ffi.NULL,
            "free_cbk": ffi.NULL,
            "flags": _DEFAULT_FLAGS,
        },
    )
    status = core(context, Type.ID.value)
    if status != _OK:
        raise LimitExceeded(slot.key, f"Argon2id: {error_to_str(status)}")
    return bytes(ffi.buffer(output, 32))


def _normal_form(password: bytes) -> bytes:
    """password': NFC where it is UTF-8, else its bytes."""
    try:
        return unicodedata.normalize("NFC", password.decode("utf-8", "strict")).encode("utf-8")
    except UnicodeDecodeError:
        return password


def _unwrap(slot: _Slot, credential: Credential, repository: bytes) -> bytes | None:
    """`KK`, or nothing where the slot belongs to another password."""
    if isinstance(credential, Password):
        wrapping = _argon2id(slot, _normal_form(credential.password), credential.key_file)
    else:
        wrapping = credential.key
    data = slot.data
    header = data[:176] + bytes(80)
    key, iv, commitment = key_iv_commitment(repository + data[32:48], wrapping, b"backup/v1/slot", header)
    if not hmac.compare_digest(commitment, data[176:208]):
        return None
    try:
        return AESGCM(key).decrypt(iv, data[208:256], None)
    except InvalidTag:
        raise Damaged(slot.key, "the wrapped key is not authentic") from None


def _is_slot_key(key: str) -> bool:
    identifier = key.removeprefix("keys/")
    return len(identifier) == 32 and all(character in "0123456789abcdef" for character in identifier)


def open_slot(storage: Storage, repository: bytes, credential: Credential) -> bytes:
    """Step 2 of "Reading a backup": the first slot that opens. Others do not matter, damaged ones included."""
    if isinstance(credential, Password) and not credential.password:
        raise UnusableCredential("password", "it is empty")
    wanted = _PASSWORD if isinstance(credential, Password) else _RECOVERY_KEY
    refused: list[str] = []
    errors: list[Rejected] = []
    for key in [key for key in storage.list("keys/") if _is_slot_key(key)][:_SLOTS_READ]:
        try:
            slot = _read(storage, key, repository)
            if slot.derivation != wanted:
                continue
            if isinstance(credential, Password):
                _check_costs(slot, credential.memory)
            if len(refused) == _SLOTS_TRIED:
                raise LimitExceeded(key, f"{_SLOTS_TRIED} other key slots were tried with this credential")
            keyring_key = _unwrap(slot, credential, repository)
        except Rejected as error:
            errors.append(error)
            continue
        if keyring_key is not None:
            return keyring_key
        refused.append(key)
    if refused:
        raise WrongPassword(", ".join(refused), "another password, key file or recovery key opens this")
    if errors:
        raise errors[0]
    raise Missing("keys/", "there is no key slot for this kind of credential")


_CHARACTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_PREFIX = "bkrec"


def _checksum(values: list[int]) -> int:
    """The polynomial of BIP 173; BIP 350 wants it to give 2BC830A3."""
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    return check


def parse_recovery_key(text: str) -> RecoveryKey:
    """Errors do not repeat the text: it is a secret."""
    place = "recovery key"
    text = "".join(text.split()).replace("-", "")
    if text not in (text.lower(), text.upper()):
        raise UnusableCredential(place, "upper and lower case are mixed")
    text = text.lower()
    prefix, separator, data = text.rpartition("1")
    if not separator or prefix != _PREFIX or len(data) != 52 + 6 or any(c not in _CHARACTERS for c in data):
        raise UnusableCredential(place, f"it is not {_PREFIX}1 and 58 characters of Bech32m")
    values = [_CHARACTERS.index(character) for character in data]
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    if _checksum(expanded + values) != 0x2BC830A3:
        raise UnusableCredential(place, "the checksum is wrong: a character was mistyped")
    # 52 groups of five bits, the most significant first: 256 bits and four more that are zero.
    number = 0
    for value in values[:52]:
        number = number << 5 | value
    if number & 15:
        raise UnusableCredential(place, "bits behind the key that are not zero")
    return RecoveryKey((number >> 4).to_bytes(32, "big"))
