"""The vectors slots.json, objects.json and records.json, read by the reader; and the profile of CBOR."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .. import cbor
from ..ed25519 import public_key, usable_point, verify
from ..errors import Damaged, Rejected, UnusableCredential
from ..keys import key_iv_commitment
from ..sealed import open_bytes
from ..slots import Credential, Password, open_slot, parse_recovery_key
from ..storage import GIB, Storage
from .golden import VECTORS


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def pattern(length: int) -> bytes:
    return bytes((i * 7 + i // 251 + 1) & 0xFF for i in range(length))


def rejected(action: Any, *arguments: Any) -> bool:
    try:
        action(*arguments)
    except Rejected:
        return True
    return False


def check_slots() -> None:
    for vector in load("slots.json"):
        with tempfile.TemporaryDirectory() as place:
            directory = Path(place)
            (directory / "keys").mkdir()
            (directory / "keys" / vector["slot_id"]).write_bytes(bytes.fromhex(vector["slot"]))
            credential: Credential
            wrong: Credential
            if vector["password"] is None:
                credential = parse_recovery_key(vector["recovery_text"])
                assert credential.key.hex() == vector["recovery_key"], vector["case"]
                wrong = Password(b"wrong")
            else:
                key_file = bytes.fromhex(vector["key_file"] or "")
                credential = Password(vector["password"].encode(), key_file)
                wrong = Password(vector["password"].encode(), key_file + b"!")
            repository = bytes.fromhex(vector["repository"])
            key = open_slot(Storage(directory), repository, credential)
            assert key.hex() == vector["keyring_key"], vector["case"]
            assert rejected(open_slot, Storage(directory), repository, wrong), vector["case"]


def check_recovery_keys() -> None:
    text = next(vector["recovery_text"] for vector in load("slots.json") if vector["recovery_text"])
    key = parse_recovery_key(text)
    spread = "-".join(text[i : i + 4] for i in range(0, len(text), 4))
    for variant in (text.upper(), f" {spread}\n", spread.replace("-", " ")):
        assert parse_recovery_key(variant) == key, variant
    # One wrong character, wherever it is, is noticed.
    for place in range(len(text)):
        other = "q" if text[place] != "q" else "p"
        assert rejected(parse_recovery_key, text[:place] + other + text[place + 1 :]), place
    for variant in ("", text[:-1], text + "q", "B" + text[1:], text.replace("bkrec", "bkred")):
        try:
            parse_recovery_key(variant)
        except UnusableCredential as error:
            assert text[10:] not in str(error)
        else:
            raise AssertionError(variant)


def check_objects() -> None:
    for vector in load("objects.json"):
        if vector["object"] is None:
            continue
        data = bytes.fromhex(vector["object"])
        assert blake3(data).hexdigest() == vector["name"], vector["case"]
        base = bytes.fromhex(vector["type_key"])
        repository = bytes.fromhex(vector["repository"])
        arguments = (repository, vector["type"], lambda _type, _generation, base=base: base, GIB)
        assert open_bytes("object", data, *arguments) == pattern(vector["body_length"]), vector["case"]
        # Every byte of the header counts, and some of every frame.
        for place in [*range(128), *range(128, len(data), 509), len(data) - 1]:
            broken = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            assert rejected(open_bytes, "object", broken, *arguments), (vector["case"], place)
        for broken in (data[:-1], data + b"\0", data[:127], b""):
            assert rejected(open_bytes, "object", broken, *arguments), vector["case"]


def resealed(data: bytes, base: bytes, plaintext: Callable[[bytes], bytes]) -> bytes:
    """An object of one frame with another plaintext, by somebody who has the key."""
    header = data[:96] + bytes(32)
    key, iv, _ = key_iv_commitment(header[64:96], base, b"backup/v1/object", header)
    nonce = iv[:3] + bytes([iv[3] ^ 1]) + iv[4:]
    cipher = AESGCM(key)
    return data[:128] + cipher.encrypt(nonce, plaintext(cipher.decrypt(nonce, data[128:], None)), None)


def check_padding() -> None:
    """What is authentic and wrong nevertheless: padding that is not zero, a body that is longer than its frames."""
    checked = 0
    for vector in load("objects.json"):
        one_frame = vector["object"] is not None and len(vector["object"]) == 2 * (128 + 4096 + 16)
        if not one_frame or vector["body_length"] == 4096 - 8:
            continue
        data, base = bytes.fromhex(vector["object"]), bytes.fromhex(vector["type_key"])
        arguments = (
            bytes.fromhex(vector["repository"]),
            vector["type"],
            lambda _type, _generation, base=base: base,
            GIB,
        )
        assert open_bytes("object", resealed(data, base, lambda plaintext: plaintext), *arguments) is not None
        for change in (
            lambda plaintext: plaintext[:-1] + b"\1",
            lambda plaintext: (4096 - 7).to_bytes(8, "little") + plaintext[8:],
            lambda plaintext: b"\xff" * 8 + plaintext[8:],
        ):
            assert rejected(open_bytes, "object", resealed(data, base, change), *arguments), vector["case"]
        checked += 1
    assert checked, "no object of one frame"


def check_records() -> None:
    signed = load("records.json")["signature"]
    key, signature = bytes.fromhex(signed["verifying_key"]), bytes.fromhex(signed["signature"])
    message = signed["label"].encode() + b"\0" + blake3(pattern(signed["message_length"])).digest()
    assert public_key(bytes.fromhex(signed["seed"])) == key
    assert verify(key, message, signature)
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(signature[32:], "little") + order
    assert not verify(key, message, signature[:32] + scalar.to_bytes(32, "little")), "a scalar that is not reduced"
    # The eight points of small order, and encodings that are not canonical: y + p, and the sign of x = 0.
    prime = 2**255 - 19
    eight = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
    small = [0, 1, prime - 1, eight, prime - eight]
    small += [y | 1 << 255 for y in (0, eight, prime - eight)]
    for number in [*small, prime, prime + 1, 1 | 1 << 255, prime - 1 | 1 << 255, 2]:
        point = number.to_bytes(32, "little")
        assert not usable_point(point), point.hex()
        assert not verify(point, message, signature), point.hex()
        assert not verify(key, message, point + signature[32:]), point.hex()


def check_profile() -> None:
    """Documents on both sides of each rule of "Structured bodies"."""
    nested = "a101" + "81" * 6 + "80"
    good = ["a0", "a10000", "a1011818", "a10120", "a1013b7fffffffffffffff", "a101f4", "a101f5", "a10143010203", nested]
    bad = [
        "", "00", "80", "f5", "a000", "a1", "a100", "a10000a0",  # 1: one map and nothing else
        "a101f6", "a101f7", "a101f0", "a101f820", "a101c000", "a101f90000", "a101fa00000000",  # 2: kinds
        "a1013b8000000000000000", "a10161ff", "a10163eda080",  # 2: numbers and text
        "a1015f4100ff", "a1019fff", "bf0000ff", "a101bfff", "a1011c", "a1011f", "a101ff",  # 3: definite
        "a1011817", "a1190000", "a101190017", "a1011a0000ffff", "a1011b00000000ffffffff", "a101580100",  # 3: shortest
        "a201000000", "a200000000", "a1200000", "a1410000", "a1f400", "a1610000",  # 4: keys
        "a101" + "81" * 7 + "80", "a1" + "01a1" * 8 + "0100",  # 5: depth
        "a1014403", "a1019b0fffffffffffffff", "a1015bffffffffffffffff", "bb0fffffffffffffff", "a101820a",  # 6: counts
    ]  # fmt: skip
    for text in good:
        cbor.decode("document", "it", bytes.fromhex(text))
    for text in bad:
        assert rejected(cbor.decode, "document", "it", bytes.fromhex(text)), text
    fields = cbor.decode("document", "it", bytes.fromhex("a2010018800a"))
    assert fields.required(1).unsigned() == 0
    fields.close()
    fields = cbor.decode("document", "it", bytes.fromhex("a20100187f0a"))
    assert fields.required(1).unsigned() == 0
    assert rejected(fields.close)
    assert rejected(fields.required, 2)
    assert rejected(cbor.Item("document", "it", True).unsigned)
    try:
        cbor.decode("packs/name", "it", b"")
    except Damaged as error:
        assert error.place == "packs/name"


def main() -> None:
    for check in (check_slots, check_recovery_keys, check_objects, check_padding, check_records, check_profile):
        check()
    print("vectors of key slots, sealed objects and records read; what is beside them refused")


if __name__ == "__main__":
    main()
