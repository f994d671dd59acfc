"""The vectors archives.json: the archive of the golden repository is written as docs/format.md says, and mended."""

import json
import random
import sys
from pathlib import Path

from blake3 import blake3

from ..archive import BLOCK, END_MAGIC, PAYLOAD, RECORD_MAGIC, Archive, Shape, header, parity_block
from .golden import VECTORS

PROFILES = {"light": (128, 4), "default": (128, 8), "strong": (64, 16)}


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 64)


def record(key: bytes, content: bytes) -> bytes:
    head = RECORD_MAGIC + len(content).to_bytes(8, "little") + len(key).to_bytes(2, "little") + bytes(6)
    head += blake3(content).digest()
    return padded(head + blake3(head + key).digest()[:16] + key) + padded(content)


def stream(objects: dict[str, bytes], outcomes: list[str]) -> bytes:
    """Everything before the zeros and the end, and where the tables stand."""
    slots = [key for key in objects if key.startswith("keys/")]
    keyrings = [key for key in objects if key.startswith("keyring/")]
    critical = ["config", *slots, *keyrings, *outcomes]
    others = [
        key for prefix in ("index/", "bodies/", "closures/", "packs/") for key in objects if key.startswith(prefix)
    ]
    entries = sum(50 + len(key) for key in critical * 3 + others)
    table_length = len(record(b"", bytes(16 + entries)))
    placed, position, tables = [], 0, []
    for key in [*critical, *others, None, *critical, None, *critical]:
        if key is None:
            tables.append(position)
            position += table_length
        else:
            placed.append((position, key))
            position += len(record(key.encode(), objects[key]))
    table = b"BTC1" + bytes(4) + len(placed).to_bytes(8, "little")
    for offset, key in placed:
        content = objects[key]
        table += offset.to_bytes(8, "little") + len(content).to_bytes(8, "little") + blake3(content).digest()
        table += len(key).to_bytes(2, "little") + key.encode()
    out = b""
    for key in [*critical, *others, None, *critical, None, *critical]:
        out += record(b"", table) if key is None else record(key.encode(), objects[key])
    end = END_MAGIC + tables[0].to_bytes(8, "little") + tables[1].to_bytes(8, "little") + bytes(24)
    end += blake3(end).digest()[:16]
    filled = -(-(len(out) + 64) // PAYLOAD) * PAYLOAD
    return out + bytes(filled - len(out) - 64) + end


def archive(data: bytes, identifier: bytes, profile: str) -> bytes:
    k, m = PROFILES[profile]
    count = len(data) // PAYLOAD
    shape = Shape(identifier, k, m, min(17, -(-count // 32)), count)
    payloads: dict[int, bytes] = {}
    for group in range(shape.groups):
        for number in range(shape.start(group), shape.start(group + 1)):
            payloads[number + group * m * shape.depth] = data[number * PAYLOAD : (number + 1) * PAYLOAD]
    for columns, parity in shape.stripes():
        blocks = [payloads[number] for number in columns]
        for row, number in enumerate(parity):
            payloads[number] = parity_block(m, row, blocks)
    return b"".join(header(shape, number, payloads[number]) + payloads[number] for number in range(shape.blocks))


def main() -> int:
    root: Path = VECTORS / "golden" / "repository"
    files = sorted(path for path in root.rglob("*") if path.is_file())
    objects = {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
    vectors = json.loads((VECTORS / "archives.json").read_text(encoding="utf-8"))
    for vector in vectors:
        made = archive(stream(objects, vector["outcomes"]), bytes.fromhex(vector["archive"]), vector["profile"])
        assert blake3(made).hexdigest() == vector["blake3"], vector["profile"]
        assert len(made) == vector["length"]
        kept = {key: content for key, content in objects.items() if not key.endswith("/open")}
        assert Archive(made).objects() == kept
        chosen = random.Random(vector["profile"])
        for _ in range(3):
            damaged = bytearray(made)
            begin = chosen.randrange(len(made))
            damaged[begin : begin + vector["survives"]] = bytes(len(damaged[begin : begin + vector["survives"]]))
            cut = chosen.randrange(BLOCK)
            assert Archive(bytes(damaged)).repaired() == made, (vector["profile"], begin)
            assert Archive(bytes(cut) + bytes(damaged)).objects() == kept
    print(f"{len(vectors)} archives: written as they are published, mended, and read")
    return 0


if __name__ == "__main__":
    sys.exit(main())
