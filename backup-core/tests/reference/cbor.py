"""docs/format.md, "Structured bodies": CBOR with one encoding for each document, decoded strictly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .errors import Damaged

Value = int | bytes | str | bool | list["Value"] | dict[int, "Value"]

U32 = 2**32 - 1
U64 = 2**64 - 1
I64_MINIMUM = -(2**63)
MAXIMUM_DEPTH = 8
EARLIEST_SECOND = -377705023201
LATEST_SECOND = 253402207200


class _Decoder:
    def __init__(self, place: str, document: bytes) -> None:
        self.place = place
        self.document = document
        self.position = 0

    def fail(self, reason: str) -> Damaged:
        return Damaged(self.place, f"{reason}, at byte {self.position} of the structured body")

    def remaining(self) -> int:
        return len(self.document) - self.position

    def take(self, length: int) -> bytes:
        # Rule 6: a length fits what is left, before anything is made from it.
        if length > self.remaining():
            raise self.fail("it ends too early")
        start = self.position
        self.position += length
        return self.document[start : self.position]

    def argument(self, information: int) -> int:
        """Rule 3: definite and in its shortest form."""
        if information < 24:
            return information
        if information > 27:
            raise self.fail("an indefinite or reserved length")
        width = 1 << (information - 24)
        number = int.from_bytes(self.take(width), "big")
        if number < (24 if width == 1 else 1 << (4 * width)):
            raise self.fail("a number that is not in its shortest form")
        return number

    def item(self, depth: int) -> Value:
        initial = self.take(1)[0]
        # Rule 2: of major type 7, only the two booleans.
        if initial == 0xF4:
            return False
        if initial == 0xF5:
            return True
        major = initial >> 5
        if major >= 6:
            raise self.fail("a tag, a float or a simple value")
        number = self.argument(initial & 31)
        if major == 0:
            return number
        if major == 1:
            if -1 - number < I64_MINIMUM:
                raise self.fail("a negative integer below -2^63")
            return -1 - number
        if major == 2:
            return self.take(number)
        if major == 3:
            try:
                return self.take(number).decode("utf-8", "strict")
            except UnicodeDecodeError:
                raise self.fail("text that is not UTF-8") from None
        # Rule 5: the outermost array or map has depth 1.
        if depth >= MAXIMUM_DEPTH:
            raise self.fail("nested too deep")
        # Rule 6: an item has at least one byte, a pair at least two.
        if number * (1 if major == 4 else 2) > self.remaining():
            raise self.fail("a count that does not fit")
        if major == 4:
            return [self.item(depth + 1) for _ in range(number)]
        fields: dict[int, Value] = {}
        last = -1
        for _ in range(number):
            # Rule 4: unsigned integers, strictly ascending.
            key = self.item(depth + 1)
            if isinstance(key, bool) or not isinstance(key, int) or key <= last:
                raise self.fail("map keys that are not ascending unsigned integers")
            last = key
            fields[key] = self.item(depth + 1)
        return fields


@dataclass(frozen=True, slots=True)
class Item:
    """One item, with what to call it in an error."""

    place: str
    name: str
    value: Value

    def fail(self, expected: str) -> Damaged:
        return Damaged(self.place, f"{self.name} is not {expected}")

    def signed(self, low: int = I64_MINIMUM, high: int = U64) -> int:
        # A boolean is an integer for Python, but not for the format.
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not low <= self.value <= high:
            raise self.fail(f"an integer from {low} to {high}")
        return self.value

    def unsigned(self, low: int = 0, high: int = U64) -> int:
        return self.signed(low, high)

    def octets(self, low: int = 0, high: int = U64) -> bytes:
        if not isinstance(self.value, bytes) or not low <= len(self.value) <= high:
            raise self.fail(f"a byte string of {low} to {high} bytes")
        return self.value

    def identifier(self, length: int = 32) -> bytes:
        return self.octets(length, length)

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.fail("text")
        return self.value

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.fail("a boolean")
        return self.value

    def array(self, low: int = 0, high: int = U64) -> list[Item]:
        if not isinstance(self.value, list) or not low <= len(self.value) <= high:
            raise self.fail(f"an array of {low} to {high} items")
        return [Item(self.place, f"item {i} of {self.name}", value) for i, value in enumerate(self.value)]

    def tuple(self, length: int) -> list[Item]:
        return self.array(length, length)

    def fields(self) -> Fields:
        if not isinstance(self.value, dict):
            raise self.fail("a map")
        return Fields(self.place, self.name, self.value)


class Fields:
    """The fields of a map. Each must be asked for before `close`, which rejects the others below 128."""

    def __init__(self, place: str, name: str, values: dict[int, Value]) -> None:
        self.place = place
        self.name = name
        self._values = values
        self._known: set[int] = set()

    def optional(self, number: int) -> Item | None:
        self._known.add(number)
        if number not in self._values:
            return None
        return Item(self.place, f"field {number} of {self.name}", self._values[number])

    def required(self, number: int) -> Item:
        item = self.optional(number)
        if item is None:
            raise Damaged(self.place, f"field {number} of {self.name} is missing")
        return item

    def unknown(self) -> Iterator[int]:
        return (number for number in self._values if number < 128 and number not in self._known)

    def close(self) -> None:
        for number in self.unknown():
            raise Damaged(self.place, f"{self.name} has an unknown field {number}")

    def time(self, number: int) -> tuple[int, int]:
        """Two fields: seconds and nanoseconds."""
        return time(self.required(number), self.required(number + 1))


def time(seconds: Item, nanoseconds: Item) -> tuple[int, int]:
    return seconds.signed(EARLIEST_SECOND, LATEST_SECOND), nanoseconds.unsigned(0, 999_999_999)


def decode(place: str, name: str, document: bytes) -> Fields:
    """All of the document is checked before any of it is used (rule 1)."""
    decoder = _Decoder(place, document)
    value = decoder.item(0)
    if decoder.remaining():
        raise decoder.fail(f"bytes behind {name}")
    return Item(place, name, value).fields()
