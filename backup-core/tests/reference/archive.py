"""docs/format.md, "Error correction" and "Portable archive": an archive in memory, read and repaired."""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from .errors import Damaged, Rejected

BLOCK, PAYLOAD = 65536, 65472
BLOCK_MAGIC = bytes.fromhex("89424B41520D0A1A")
RECORD_MAGIC = bytes.fromhex("89424B4F420D0A1A")
END_MAGIC = bytes.fromhex("89424B454E0D0A1A")


def product(left: int, right: int) -> int:
    """In GF(2^8) with the polynomial 11D."""
    result = 0
    for bit in range(8):
        if right >> bit & 1:
            result ^= left
        left = left << 1 ^ (0x11D if left & 0x80 else 0)
    return result


INVERSE = [0] + [next(y for y in range(1, 256) if product(x, y) == 1) for x in range(1, 256)]
TIMES = [bytes(product(factor, byte) for byte in range(256)) for factor in range(256)]


def coefficient(m: int, row: int, column: int) -> int:
    return INVERSE[row ^ (m + column)]


def combine(factors: list[int], blocks: list[bytes]) -> bytes:
    """The sum of all blocks, each times its factor."""
    total = 0
    for factor, block in zip(factors, blocks, strict=True):
        total ^= int.from_bytes(block.translate(TIMES[factor]), "little")
    return total.to_bytes(len(blocks[0]), "little")


def inverse(matrix: list[list[int]]) -> list[list[int]]:
    """Of a square matrix that has one, by Gauss and Jordan."""
    size = len(matrix)
    rows = [row + [int(at == number) for at in range(size)] for number, row in enumerate(matrix)]
    for at in range(size):
        pivot = next(number for number in range(at, size) if rows[number][at])
        rows[at], rows[pivot] = rows[pivot], rows[at]
        factor = INVERSE[rows[at][at]]
        rows[at] = [product(item, factor) for item in rows[at]]
        for number in range(size):
            factor = rows[number][at]
            if number != at and factor:
                pairs = zip(rows[number], rows[at], strict=True)
                rows[number] = [item ^ product(factor, other) for item, other in pairs]
    return [row[size:] for row in rows]


@dataclass(frozen=True)
class Shape:
    """What every block says."""

    archive: bytes
    k: int
    m: int
    depth: int
    data: int

    @property
    def groups(self) -> int:
        return -(-self.data // (self.k * self.depth))

    @property
    def blocks(self) -> int:
        return self.data + self.groups * self.m * self.depth

    def start(self, group: int) -> int:
        return group * self.data // self.groups

    def first(self, group: int) -> int:
        return self.start(group) + group * self.m * self.depth

    def is_sound(self) -> bool:
        fits = self.k >= 2 and self.m >= 1 and self.k + self.m <= 256 and self.depth >= 1
        return fits and self.m * self.depth <= 1024 and self.depth <= self.data <= 2**40

    def stripes(self) -> list[tuple[list[int], list[int]]]:
        """The blocks of data and of parity of each stripe, by their numbers in the archive."""
        found = []
        for group in range(self.groups):
            data = self.start(group + 1) - self.start(group)
            first, end = self.first(group), self.first(group) + data + self.m * self.depth
            for stripe in range(self.depth):
                numbers = range(first + stripe, end, self.depth)
                found.append(([n for n in numbers if n < first + data], [n for n in numbers if n >= first + data]))
        return found


def header(shape: Shape, number: int, payload: bytes) -> bytes:
    head = BLOCK_MAGIC + bytes([1, shape.k, shape.m, shape.depth]) + bytes(4) + shape.archive
    head += number.to_bytes(8, "little") + shape.data.to_bytes(8, "little")
    return head + blake3(head + payload).digest()[:16]


def parse_block(block: bytes) -> tuple[Shape, int] | None:
    if len(block) != BLOCK or block[:12][:9] != BLOCK_MAGIC + b"\1" or block[12:16] != bytes(4):
        return None
    if blake3(block[:48] + block[64:]).digest()[:16] != block[48:64]:
        return None
    number, data = (int.from_bytes(block[at : at + 8], "little") for at in (32, 40))
    shape = Shape(block[16:32], block[9], block[10], block[11], data)
    return (shape, number) if shape.is_sound() and number < shape.blocks else None


class Archive:
    """An archive whose lost blocks were made anew where that can be."""

    def __init__(self, file: bytes, name: str = "archive") -> None:
        found: dict[Shape, dict[int, bytes]] = {}
        at = 0
        while (at := file.find(BLOCK_MAGIC, at)) >= 0:
            block = file[at : at + BLOCK]
            parsed = parse_block(block)
            if parsed is None:
                at += 1
                continue
            found.setdefault(parsed[0], {})[parsed[1]] = block[64:]
            at += BLOCK
        if not found:
            raise Damaged(name, "no block of an archive is in it")
        self.shape = Counter({shape: len(blocks) for shape, blocks in found.items()}).most_common(1)[0][0]
        self.payloads = found[self.shape]
        self.lost = self.shape.blocks - len(self.payloads)
        for data, parity in self.shape.stripes():
            self._mend(data, parity)

    def _mend(self, data: list[int], parity: list[int]) -> None:
        m = self.shape.m
        lost = [column for column, number in enumerate(data) if number not in self.payloads]
        rows = [row for row, number in enumerate(parity) if number in self.payloads][: len(lost)]
        if len(rows) < len(lost):
            return
        if lost:
            known = [column for column in range(len(data)) if column not in lost]
            blocks = [self.payloads[data[column]] for column in known]
            rests = []
            for row in rows:
                factors = [1] + [coefficient(m, row, column) for column in known]
                rests.append(combine(factors, [self.payloads[parity[row]], *blocks]))
            matrix = inverse([[coefficient(m, row, column) for column in lost] for row in rows])
            for factors, column in zip(matrix, lost, strict=True):
                self.payloads[data[column]] = combine(factors, rests)
        for row, number in enumerate(parity):
            if number not in self.payloads:
                self.payloads[number] = parity_block(m, row, [self.payloads[at] for at in data])

    def repaired(self) -> bytes:
        """The file as it was; zeros where a block is lost for good."""
        out = []
        for number in range(self.shape.blocks):
            payload = self.payloads.get(number)
            out.append(bytes(BLOCK) if payload is None else header(self.shape, number, payload) + payload)
        return b"".join(out)

    def objects(self) -> dict[str, bytes]:
        """Every object that is there, found by its own header."""
        parts, gaps = [], set()
        for group in range(self.shape.groups):
            for number in range(self.shape.start(group), self.shape.start(group + 1)):
                payload = self.payloads.get(number + group * self.shape.m * self.shape.depth)
                if payload is None:
                    gaps.add(number)
                parts.append(payload or bytes(PAYLOAD))
        stream = b"".join(parts)
        found: dict[str, bytes] = {}
        at = 0
        while (at := stream.find(RECORD_MAGIC, at)) >= 0:
            size, length = int.from_bytes(stream[at + 8 : at + 16], "little"), stream[at + 16] + 256 * stream[at + 17]
            key = stream[at + 72 : at + 72 + length]
            begin = at + -(-(72 + length) // 64) * 64
            content = stream[begin : begin + size]
            checked = blake3(stream[at : at + 56] + key).digest()[:16] == stream[at + 56 : at + 72]
            if at % 64 or not checked or blake3(content).digest() != stream[at + 24 : at + 56]:
                at += 1
                continue
            if key:
                found.setdefault(key.decode(), content)
            at = begin + -(-size // 64) * 64
        return found


def parity_block(m: int, row: int, data: list[bytes]) -> bytes:
    return combine([coefficient(m, row, column) for column in range(len(data))], data)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m reference.archive", description="Read an archive; all of it in memory."
    )
    parser.add_argument("archive", type=Path)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--to", type=Path, help="new directory: the repository that is in it")
    target.add_argument("--repair", type=Path, help="new file: the archive as it was")
    options = parser.parse_args()
    try:
        archive = Archive(options.archive.read_bytes(), str(options.archive))
    except (Rejected, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.repair is not None:
        options.repair.write_bytes(archive.repaired())
    else:
        for key, content in archive.objects().items():
            path = options.to / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    hopeless = archive.shape.blocks - len(archive.payloads)
    print(f"{archive.shape.blocks} blocks, {archive.lost} were lost, {hopeless} are lost for good")
    return 3 if hopeless else 0


if __name__ == "__main__":
    sys.exit(main())
