#!/usr/bin/env python3
"""Confirms the vectors beside this file with other implementations of the primitives.

Written from docs/format.md, not from the Rust code. Needs the packages cryptography, argon2-cffi, blake3
and zstandard; HKDF is built on the standard library. Prints one line a file, fails with an assertion.
"""

import hashlib
import hmac
import json
import struct
import unicodedata
from pathlib import Path
from typing import Any

import zstandard
from argon2.low_level import ARGON2_VERSION, Type, core, ffi, lib  # type: ignore[attr-defined, unused-ignore]
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HERE = Path(__file__).parent
SUITE = 1
TYPES = {"type_data_pack": 2, "type_meta_pack": 3, "type_body": 5}


def load(name: str) -> Any:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def pattern(length: int) -> bytes:
    return bytes((i * 7 + i // 251 + 1) & 0xFF for i in range(length))


def extract(salt: bytes, key: bytes) -> bytes:
    return hmac.new(salt, key, hashlib.sha256).digest()


def expand(prk: bytes, info: bytes, length: int) -> bytes:
    output, block = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.new(prk, block + info + bytes([counter]), hashlib.sha256).digest()
        output += block
    return output[:length]


def split(okm: bytes) -> tuple[bytes, bytes, bytes]:
    return okm[:32], okm[32:44], okm[44:76]


def padme(length: int) -> int:
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    free = exponent - exponent.bit_length()
    mask = (1 << max(free, 0)) - 1
    return (length + mask) & ~mask


def check_keys() -> int:
    vectors = load("keys.json")
    for vector in vectors:
        root = extract(unhex(vector["repository"]), unhex(vector["root_key"]))
        dedup = extract(b"backup/v1/dedup", unhex(vector["dedup_key"]))
        generation = struct.pack("<I", vector["generation"])
        expected = {
            name: expand(root, b"backup/v1/type\0" + bytes([number, SUITE]) + generation, 32)
            for name, number in TYPES.items()
        }
        expected["hedge"] = expand(root, b"backup/v1/hedge", 32)
        expected["index"] = expand(dedup, b"backup/v1/index", 32)
        expected["chunk_id_data"] = expand(dedup, b"backup/v1/chunk-id/data", 32)
        expected["chunk_id_meta"] = expand(dedup, b"backup/v1/chunk-id/meta", 32)
        expected["content_page"] = expand(dedup, b"backup/v1/content/page", 32)
        expected["chunker_gear"] = expand(dedup, b"backup/v1/chunker/gear", 2048)
        assert vector["derived"] == {name: key.hex() for name, key in expected.items()}
    return len(vectors)


def seal(
    kind: int,
    repository: bytes,
    generation: int,
    session: bytes,
    type_key: bytes,
    hedge_key: bytes,
    random: bytes,
    padded: int,
    body: bytes,
) -> bytes:
    """The whole object, as the format says it is made."""
    plain = struct.pack("<Q", len(body)) + body
    frame_log2 = 16 if len(plain) > 65536 else 12
    frame_size = 1 << frame_log2
    total = padme(len(plain)) if padded else len(plain)
    frames = max(1, -(-total // frame_size))
    plain = plain.ljust(frames * frame_size, b"\0")
    salt = blake3(random + struct.pack("<Q", len(body)) + blake3(body).digest(), key=hedge_key).digest()
    header = b"\x89BKUP\r\n\x1a" + bytes([1, kind, SUITE, frame_log2]) + bytes(4)
    header += repository + struct.pack("<II", generation, frames) + session + bytes(8) + salt
    assert len(header) == 96
    info = b"backup/v1/object\0" + hashlib.sha256(header + bytes(32)).digest()
    key, iv, commitment = split(expand(extract(salt, type_key), info, 76))
    cipher = AESGCM(key)
    result = header + commitment
    for frame in range(frames):
        mask = bytes(3) + bytes([frame == frames - 1]) + struct.pack(">Q", frame)
        nonce = bytes(a ^ b for a, b in zip(iv, mask, strict=True))
        result += cipher.encrypt(nonce, plain[frame * frame_size : (frame + 1) * frame_size], None)
    return result


def check_objects() -> int:
    vectors = load("objects.json")
    for vector in vectors:
        object_ = seal(
            vector["type"],
            unhex(vector["repository"]),
            vector["generation"],
            unhex(vector["session"]),
            unhex(vector["type_key"]),
            unhex(vector["hedge_key"]),
            unhex(vector["random"]),
            vector["padding"] == "padme",
            pattern(vector["body_length"]),
        )
        assert len(object_) == vector["size"], vector["case"]
        assert object_[:128].hex() == vector["header"], vector["case"]
        assert blake3(object_).hexdigest() == vector["name"], vector["case"]
        assert vector["object"] in (None, object_.hex()), vector["case"]
    return len(vectors)


def argon2id(password: bytes, salt: bytes, parameters: dict[str, int], secret: bytes) -> bytes:
    """Argon2id of the reference implementation, with its secret input."""
    output = ffi.new("uint8_t[]", 32)
    inputs = [ffi.from_buffer("uint8_t[]", data) for data in (password, salt, secret)]
    context = ffi.new(
        "argon2_context *",
        {
            "out": output,
            "outlen": 32,
            "version": ARGON2_VERSION,
            "pwd": inputs[0],
            "pwdlen": len(password),
            "salt": inputs[1],
            "saltlen": len(salt),
            "secret": inputs[2],
            "secretlen": len(secret),
            "ad": ffi.NULL,
            "adlen": 0,
            "t_cost": parameters["iterations"],
            "m_cost": parameters["memory_kib"],
            "lanes": parameters["parallelism"],
            "threads": parameters["parallelism"],
            "allocate_cbk": ffi.NULL,
            "free_cbk": ffi.NULL,
            "flags": lib.ARGON2_DEFAULT_FLAGS,
        },
    )
    status = core(context, Type.ID.value)
    assert status == lib.ARGON2_OK, status
    return bytes(ffi.buffer(output, 32))


def bech32m(prefix: str, data: bytes) -> str:
    charset = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    values = [int(bits[i : i + 5], 2) for i in range(0, len(bits), 5)]

    def polymod(symbols: list[int]) -> int:
        check = 1
        for value in symbols:
            top = check >> 25
            check = (check & 0x1FFFFFF) << 5 ^ value
            for i, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
                check ^= generator if top >> i & 1 else 0
        return check

    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    check = polymod(expanded + values + [0] * 6) ^ 0x2BC830A3
    values += [check >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(charset[value] for value in values)


def check_slots() -> int:
    vectors = load("slots.json")
    for vector in vectors:
        repository, slot_id = unhex(vector["repository"]), unhex(vector["slot_id"])
        label = vector["label"].encode()
        if vector["password"] is None:
            kdf, costs, salt = 2, (0, 0, 0), bytes(32)
            wrapping = unhex(vector["recovery_key"])
            assert bech32m("bkrec", wrapping) == vector["recovery_text"]
        else:
            kdf, salt, parameters = 1, unhex(vector["salt"]), vector["argon2"]
            costs = (parameters["memory_kib"], parameters["iterations"], parameters["parallelism"])
            password = unicodedata.normalize("NFC", vector["password"]).encode()
            wrapping = argon2id(password, salt, parameters, unhex(vector["key_file"] or ""))
        slot = b"\x89BKEY\r\n\x1a" + bytes([1, kdf]) + bytes(6) + repository + slot_id
        slot += struct.pack("<III", *costs) + bytes(4) + salt
        slot += bytes([len(label)]) + label.ljust(63, b"\0") + bytes(16)
        assert len(slot) == 176
        info = b"backup/v1/slot\0" + hashlib.sha256(slot + bytes(80)).digest()
        key, iv, commitment = split(expand(extract(repository + slot_id, wrapping), info, 76))
        slot += commitment + AESGCM(key).encrypt(iv, unhex(vector["keyring_key"]), None)
        assert slot.hex() == vector["slot"], vector["case"]
    return len(vectors)


def cbor(value: Any) -> bytes:
    """The deterministic profile: shortest heads, definite lengths, integer keys ascending."""

    def head(major: int, number: int) -> bytes:
        for size, code in ((0, None), (1, 24), (2, 25), (4, 26), (8, 27)):
            if code is None:
                if number < 24:
                    return bytes([major << 5 | number])
            elif number < 1 << 8 * size:
                return bytes([major << 5 | code]) + number.to_bytes(size, "big")
        raise ValueError(number)

    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    return head(5, len(value)) + b"".join(cbor(key) + cbor(value[key]) for key in sorted(value))


def check_records() -> int:
    vectors = load("records.json")
    repository = unhex(vectors["repository"])

    signed = vectors["signature"]
    message = signed["label"].encode() + b"\0" + blake3(pattern(signed["message_length"])).digest()
    private = Ed25519PrivateKey.from_private_bytes(unhex(signed["seed"]))
    assert private.public_key().public_bytes_raw().hex() == signed["verifying_key"]
    assert private.sign(message).hex() == signed["signature"]
    Ed25519PublicKey.from_public_bytes(unhex(signed["verifying_key"])).verify(unhex(signed["signature"]), message)

    keyring = vectors["keyring"]
    maintenance = Ed25519PrivateKey.from_private_bytes(unhex(keyring["maintenance_seed"])).public_key()
    config = cbor(
        {
            0: "backup repository",
            1: 1,
            2: repository,
            3: [],
            4: [],
            5: [],
            6: False,
            7: {1: 1 << 20, 2: 512 << 10, 3: 1 << 20, 4: 4 << 20},
            8: 16 << 20,
            9: 0,
            10: 3,
            11: private.public_key().public_bytes_raw(),
            12: maintenance.public_bytes_raw(),
        }
    )
    assert config.hex() == vectors["config"]["bytes"]
    assert blake3(config).hexdigest() == vectors["config"]["blake3"]

    body = cbor(
        {
            1: keyring["number"],
            2: [[generation, unhex(root)] for generation, root in keyring["root_keys"]],
            3: unhex(keyring["dedup_key"]),
            4: unhex(keyring["writer_seed"]),
            5: unhex(keyring["maintenance_seed"]),
            6: blake3(config).digest(),
        }
    )
    assert body.hex() == keyring["body"]
    newest = extract(repository, unhex(keyring["root_keys"][-1][1]))
    object_ = seal(
        1,
        repository,
        0,
        bytes(16),
        unhex(keyring["keyring_key"]),
        expand(newest, b"backup/v1/hedge", 32),
        unhex(keyring["random"]),
        False,
        body,
    )
    assert object_.hex() == keyring["object"]
    return 3


# What follows reads the golden repository with the password, from its objects alone.

GOLDEN = HERE / "golden" / "repository"


def uncbor(data: bytes) -> Any:
    """Reads the deterministic profile; that it is deterministic is checked by writing it again."""

    def item(at: int) -> tuple[Any, int]:
        major, code = data[at] >> 5, data[at] & 31
        size = {24: 1, 25: 2, 26: 4, 27: 8}.get(code, 0)
        number = int.from_bytes(data[at + 1 : at + 1 + size], "big") if size else code
        at += 1 + size
        if major == 0:
            return number, at
        if major == 1:
            return -1 - number, at
        if major in (2, 3):
            part = data[at : at + number]
            return (part if major == 2 else part.decode()), at + number
        if major == 4:
            items = []
            for _ in range(number):
                value, at = item(at)
                items.append(value)
            return items, at
        if major == 5:
            fields = {}
            for _ in range(number):
                key, at = item(at)
                fields[key], at = item(at)
            return fields, at
        return number == 21, at

    value, end = item(0)
    assert end == len(data) and cbor(value) == data
    return value


def open_object(object_: bytes, base_keys: dict[tuple[int, int], bytes]) -> tuple[int, int, bytes]:
    """Type, generation and body of a sealed object. `base_keys` has the key by (type, generation)."""
    kind, log2 = object_[9], object_[11]
    generation, frames = struct.unpack("<II", object_[32:40])
    assert len(object_) == 128 + frames * ((1 << log2) + 16)
    info = b"backup/v1/object\0" + hashlib.sha256(object_[:96] + bytes(32)).digest()
    key, iv, commitment = split(expand(extract(object_[64:96], base_keys[kind, generation]), info, 76))
    assert commitment == object_[96:128]
    cipher, plain = AESGCM(key), b""
    for frame in range(frames):
        mask = bytes(3) + bytes([frame == frames - 1]) + struct.pack(">Q", frame)
        start = 128 + frame * ((1 << log2) + 16)
        nonce = bytes(a ^ b for a, b in zip(iv, mask, strict=True))
        plain += cipher.decrypt(nonce, object_[start : start + (1 << log2) + 16], None)
    (length,) = struct.unpack("<Q", plain[:8])
    assert not any(plain[8 + length :])
    return kind, generation, plain[8 : 8 + length]


class Golden:
    """The keys of the golden repository."""

    def __init__(self) -> None:
        password = json.loads((HERE / "golden/contents.json").read_text(encoding="utf-8"))["password"]
        self.objects = {
            str(file.relative_to(GOLDEN)): file.read_bytes() for file in sorted(GOLDEN.rglob("*")) if file.is_file()
        }
        self.config = uncbor(self.objects["config"])
        repository = self.config[2]
        (slot,) = (value for key, value in self.objects.items() if key.startswith("keys/"))
        memory, passes, lanes = struct.unpack("<III", slot[48:60])
        costs = {"memory_kib": memory, "iterations": passes, "parallelism": lanes}
        kek = argon2id(unicodedata.normalize("NFC", password).encode(), slot[64:96], costs, b"")
        info = b"backup/v1/slot\0" + hashlib.sha256(slot[:176] + bytes(80)).digest()
        key, iv, commitment = split(expand(extract(slot[16:48], kek), info, 76))
        assert commitment == slot[176:208]
        keyring_key = AESGCM(key).decrypt(iv, slot[208:], None)
        keyring = uncbor(open_object(self.objects["keyring/00000001"], {(1, 0): keyring_key})[2])
        assert keyring[6] == blake3(self.objects["config"]).digest()
        dedup = extract(b"backup/v1/dedup", keyring[3])
        self.data = expand(dedup, b"backup/v1/chunk-id/data", 32)
        self.meta = expand(dedup, b"backup/v1/chunk-id/meta", 32)
        self.keys = {(4, 0): expand(dedup, b"backup/v1/index", 32)}
        for generation, root in keyring[2]:
            prk = extract(repository, root)
            for kind in (2, 3, 5):
                info = b"backup/v1/type\0" + bytes([kind, SUITE]) + struct.pack("<I", generation)
                self.keys[kind, generation] = expand(prk, info, 32)

    def open(self, key: str) -> tuple[int, int, bytes]:
        return open_object(self.objects[key], self.keys)

    def record(self, object_: bytes, label: str) -> Any:
        """The payload of a record that is signed as its label asks for."""
        record = uncbor(object_)
        assert record[1] == label
        signer = self.config[11 if label == "backup/v1/commit" else 12]
        message = label.encode() + b"\0" + blake3(record[2]).digest()
        Ed25519PublicKey.from_public_bytes(signer).verify(record[3], message)
        return uncbor(record[2])


def places(data: Any) -> Any:
    return [[data[at : at + 32].hex(), *struct.unpack("<Q", data[at + 32 : at + 40])] for at in range(0, len(data), 40)]


def check_packs() -> int:
    vectors, golden, places_of_chunks = load("packs.json"), Golden(), set()
    for vector in vectors["packs"]:
        kind, generation, body = golden.open(vector["key"])
        assert (kind, generation, len(body)) == (vector["type"], vector["generation"], vector["body_length"])
        assert blake3(golden.objects[vector["key"]]).hexdigest() == vector["key"].split("/")[-1]
        assert blake3(body).hexdigest() == vector["body_blake3"]
        magic, count, reserved = struct.unpack("<4sIQ", body[:16])
        assert (magic, count, reserved) == (b"PKB1", len(vector["content"]), 0)
        offset = 16 + 44 * count
        for at, chunk in enumerate(vector["content"]):
            id_, stored, raw, codec, page, zero = struct.unpack("<32sIIBBH", body[16 + 44 * at : 60 + 44 * at])
            described = [chunk[name] for name in ("id", "offset", "stored", "raw", "codec", "kind")]
            assert [id_.hex(), offset, stored, raw, codec, page, zero] == [*described, 0]
            payload = body[offset : offset + stored]
            plain = zstandard.ZstdDecompressor().decompress(payload, max_output_size=raw) if codec else payload
            assert len(plain) == raw and blake3(plain, key=golden.meta if page else golden.data).digest() == id_
            assert blake3(plain).hexdigest() == chunk["plaintext_blake3"]
            assert chunk["plaintext"] in (None, plain.hex())
            places_of_chunks.add((id_.hex(), vector["key"].split("/")[-1], offset, stored, raw, codec, page))
            offset += stored
        assert offset == len(body)
    found = set()
    for vector in vectors["indexes"]:
        kind, generation, body = golden.open(vector["key"])
        assert (kind, generation, blake3(body).hexdigest()) == (4, 0, vector["body_blake3"])
        magic, packs, entries, zero = struct.unpack("<4sIII", body[:16])
        assert (magic, zero) == (b"BIX1", 0)
        listed = places(body[16 : 16 + 40 * packs])
        assert listed == vector["content"]["packs"] == sorted(listed)
        for at, entry in zip(range(16 + 40 * packs, len(body), 52), vector["content"]["entries"], strict=True):
            id_, pack, offset, stored, raw, codec, page, zero = struct.unpack("<32sIIIIBBH", body[at : at + 52])
            assert [id_.hex(), [pack, offset, stored, raw], codec, page] == entry and zero == 0
            found.add((id_.hex(), listed[pack][0], offset, stored, raw, codec, page))
        assert len(vector["content"]["entries"]) == entries
    assert found == places_of_chunks
    return len(vectors["packs"]) + len(vectors["indexes"])


def check_commits() -> int:
    vectors, golden = load("commits.json"), Golden()
    repository = golden.config[2]
    for vector in vectors["commits"]:
        outcome = golden.objects[vector["key"]]
        assert blake3(outcome).hexdigest() == vector["backup"]
        body_key, closure_key = vector["body"]["key"], vector["closure"]["key"]
        closure = golden.objects[closure_key]
        assert blake3(closure).hexdigest() == closure_key.split("/")[-1]
        magic, zero, count = struct.unpack("<4sIQ", closure[:16])
        listed = places(closure[16:])
        assert (magic, zero, count) == (b"BCL1", 0, len(listed)) and listed == vector["closure"]["packs"]
        for name, size in listed:
            assert len(golden.objects[f"packs/{name[:2]}/{name}"]) == size
        assert golden.record(outcome, "backup/v1/commit") == {
            1: repository,
            2: unhex(vector["session"]),
            3: vector["generation"],
            4: unhex(body_key.split("/")[-1]),
            5: [unhex(name) for name in vector["indexes"]],
            6: unhex(closure_key.split("/")[-1]),
            7: len(listed),
            8: sum(size for _, size in listed),
            9: unhex(vector["config"]),
            10: [unhex(name) for name in vector["heads"]],
            11: vector["time"][0],
            12: vector["time"][1],
        }
        assert unhex(vector["config"]) == blake3(golden.objects["config"]).digest()
        kind, _, body = golden.open(body_key)
        assert kind == 5 and body.hex() == vector["body"]["bytes"]
        uncbor(body)
    for vector in vectors["records"]:
        payload = golden.record(unhex(vector["object"]), vector["label"])
        assert cbor(payload).hex() == vector["payload"] and payload[1] == repository
    return len(vectors["commits"]) + len(vectors["records"])


if __name__ == "__main__":
    for name, check in (
        ("packs.json", check_packs),
        ("commits.json", check_commits),
        ("keys.json", check_keys),
        ("objects.json", check_objects),
        ("slots.json", check_slots),
        ("records.json", check_records),
    ):
        print(f"{name}: {check()} vectors confirmed")
