"""docs/format.md, "Packs", "Chunks" and "Index": from the id of a chunk to its plaintext."""

import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import zstandard

from .config import Config
from .errors import Damaged, Missing, Rejected
from .keys import DATA_PACK, INDEX, META_PACK, Keys
from .sealed import SealedObject, open_bytes
from .storage import GIB, MAXIMUM_INDEX, MAXIMUM_PACK, MIB, Storage, named, pack_key, pack_name

CONTENT, PAGE = 0, 1
_RAW, _ZSTD = 0, 1
_MAXIMUM_CHUNK = 16 * MIB
_MAXIMUM_ENTRIES = 2**18
_PACKS_KEPT_OPEN = 8


class Location(NamedTuple):
    """Where a copy of a chunk is: in the body of a pack."""

    pack: bytes
    offset: int
    stored: int
    raw: int
    codec: int
    kind: int


def _check_lengths(place: str, location: Location) -> None:
    """The rules for an entry of a pack's directory, which hold for index segments too."""
    if location.codec not in (_RAW, _ZSTD) or location.kind not in (CONTENT, PAGE):
        raise Damaged(place, f"a chunk of codec {location.codec}, kind {location.kind}")
    if not 1 <= location.raw <= _MAXIMUM_CHUNK:
        raise Damaged(place, f"a chunk of {location.raw} bytes")
    if location.codec == _RAW and location.stored != location.raw:
        raise Damaged(place, "a raw chunk of another length than its payload")
    if location.codec == _ZSTD and not 1 <= location.stored < location.raw:
        raise Damaged(place, "a compressed chunk that is not shorter than it was")


class Pack:
    def __init__(self, storage: Storage, config: Config, keys: Keys, name: bytes) -> None:
        self.name = name
        self.place = place = pack_key(name)
        size = storage.size(place)
        if size > MAXIMUM_PACK:
            raise Damaged(place, f"longer than {MAXIMUM_PACK} bytes")

        def read(offset: int, length: int) -> bytes:
            return storage.read(place, offset, length)

        self.object = SealedObject(place, read, size, config.repository, (DATA_PACK, META_PACK), keys.base_key)

    def directory(self) -> Iterator[tuple[bytes, Location]]:
        """The chunks of the pack, all of them checked before the first is given."""
        head = self.object.read(0, min(16, self.object.body_length))
        if len(head) < 16 or head[0:4] != b"PKB1" or any(head[8:16]):
            raise Damaged(self.place, "no pack")
        count = int.from_bytes(head[4:8], "little")
        if not 1 <= count <= _MAXIMUM_ENTRIES:
            raise Damaged(self.place, f"a directory of {count} entries")
        if 16 + 44 * count > self.object.body_length:
            raise Damaged(self.place, "a directory that is longer than the pack")
        entries = self.object.read(16, 44 * count)
        offset = 16 + 44 * count
        found = []
        for identifier, stored, raw, codec, kind, zero in struct.iter_unpack("<32sIIBBH", entries):
            location = Location(self.name, offset, stored, raw, codec, kind)
            if zero:
                raise Damaged(self.place, "reserved bytes that are not zero")
            _check_lengths(self.place, location)
            found.append((identifier, location))
            offset += stored
        if offset != self.object.body_length:
            raise Damaged(self.place, "payloads that do not end with the pack")
        return iter(found)

    def chunk(self, keys: Keys, identifier: bytes, location: Location) -> bytes:
        """The plaintext, compared with the whole id."""
        payload = self.object.read(location.offset, location.stored)
        plaintext = payload if location.codec == _RAW else _decompress(self.place, payload, location.raw)
        if keys.chunk_id(location.kind, plaintext) != identifier:
            raise Damaged(self.place, "a chunk that does not have its id")
        return plaintext


def _decompress(place: str, payload: bytes, raw: int) -> bytes:
    """One zstd frame without a dictionary into exactly `raw` bytes; no more is allocated."""
    try:
        parameters = zstandard.get_frame_parameters(payload)
        if parameters.content_size not in (zstandard.CONTENTSIZE_UNKNOWN, raw) or parameters.dict_id != 0:
            raise Damaged(place, "a chunk that is compressed from another length, or with a dictionary")
        plaintext = zstandard.ZstdDecompressor().decompress(payload, max_output_size=raw, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Damaged(place, f"a chunk that cannot be decompressed: {error}") from None
    if len(plaintext) != raw:
        raise Damaged(place, "a chunk that decompresses to another length")
    return plaintext


def read_segment(
    storage: Storage, config: Config, keys: Keys, name: bytes
) -> tuple[dict[bytes, int], list[tuple[bytes, Location]]]:
    """Sizes of the packs, and the chunks in them, of one index segment."""
    place = f"index/{name.hex()}"
    data = named(place, name, storage.get(place, MAXIMUM_INDEX))
    body = open_bytes(place, data, config.repository, INDEX, keys.base_key, MAXIMUM_INDEX)
    if len(body) < 16 or body[0:4] != b"BIX1" or any(body[12:16]):
        raise Damaged(place, "no index segment")
    pack_count, entry_count = struct.unpack("<II", body[4:12])
    entries_start = 16 + 40 * pack_count
    if len(body) != entries_start + 52 * entry_count:
        raise Damaged(place, "its length does not fit its counts")

    packs: list[tuple[bytes, int]] = []
    for pack, size in struct.iter_unpack("<32sQ", body[16:entries_start]):
        if packs and pack <= packs[-1][0]:
            raise Damaged(place, "packs that are not in order")
        if not 1 <= size <= 4 * GIB:
            raise Damaged(place, f"a pack of {size} bytes")
        packs.append((pack, size))

    chunks: list[tuple[bytes, Location]] = []
    last: tuple[bytes, int, int] = (b"", 0, 0)
    for identifier, number, offset, stored, raw, codec, kind, zero in struct.iter_unpack(
        "<32sIIIIBBH", body[entries_start:]
    ):
        if (identifier, number, offset) <= last:
            raise Damaged(place, "chunks that are not in order")
        last = (identifier, number, offset)
        if number >= pack_count:
            raise Damaged(place, "a chunk in a pack that it does not list")
        pack, size = packs[number]
        location = Location(pack, offset, stored, raw, codec, kind)
        if zero:
            raise Damaged(place, "reserved bytes that are not zero")
        _check_lengths(place, location)
        if offset < 16 or offset + stored > size:
            raise Damaged(place, "a chunk outside of its pack")
        chunks.append((identifier, location))
    return dict(packs), chunks


class Chunks:
    """All chunks that are known, by id. What an index says is a hint: each is verified when it is read."""

    def __init__(self, storage: Storage, config: Config, keys: Keys) -> None:
        self._storage = storage
        self._config = config
        self._keys = keys
        self._locations: dict[bytes, list[Location]] = {}
        self._open: OrderedDict[bytes, Pack] = OrderedDict()
        self.findings: list[Rejected] = []
        # Every chunk and page that was asked for.
        self.wanted: set[bytes] = set()

    def load(self, segments: Iterable[bytes], without_index: bool = False) -> None:
        """Step 5 of "Reading a backup". Where a segment is lost, the directories of all packs take its place."""
        lost = without_index
        for name in segments if not without_index else ():
            try:
                _, chunks = read_segment(self._storage, self._config, self._keys, name)
            except Rejected as error:
                self.findings.append(error)
                lost = True
            else:
                self._add(chunks)
        if lost:
            for key in self._storage.list("packs/"):
                name_of_pack = pack_name(key)
                if name_of_pack is None:
                    continue
                try:
                    self._add(self.pack(name_of_pack).directory())
                except Rejected as error:
                    self.findings.append(error)

    def _add(self, chunks: Iterable[tuple[bytes, Location]]) -> None:
        for identifier, location in chunks:
            known = self._locations.setdefault(identifier, [])
            if location not in known:
                known.append(location)

    def pack(self, name: bytes) -> Pack:
        pack = self._open.get(name)
        if pack is None:
            pack = self._open[name] = Pack(self._storage, self._config, self._keys, name)
            if len(self._open) > _PACKS_KEPT_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(name)
        return pack

    def packs_of(self, identifier: bytes) -> set[bytes]:
        return {location.pack for location in self._locations.get(identifier, [])}

    def read(self, wanted_by: str, identifier: bytes, length: int, kind: int) -> bytes:
        """A chunk by its reference. Any good copy serves."""
        self.wanted.add(identifier)
        errors: list[Rejected] = []
        for location in self._locations.get(identifier, []):
            try:
                if location.raw != length or location.kind != kind:
                    raise Damaged(pack_key(location.pack), f"a chunk of other length or kind than {wanted_by} says")
                return self.pack(location.pack).chunk(self._keys, identifier, location)
            except Rejected as error:
                errors.append(type(error)(error.place, f"{error.reason} (needed by {wanted_by})"))
        raise errors[0] if errors else Missing(wanted_by, f"chunk {identifier.hex()} is in no pack that can be read")


def check_pack(storage: Storage, config: Config, keys: Keys, name: bytes, size: int) -> None:
    """All of a pack: name, padding and every chunk in it."""
    place = pack_key(name)
    if storage.size(place) != size:
        raise Damaged(place, f"{storage.size(place)} bytes where {size} are expected")
    named(place, name, storage.get(place, MAXIMUM_PACK))
    pack = Pack(storage, config, keys, name)
    pack.object.whole(MAXIMUM_PACK)
    for identifier, location in pack.directory():
        pack.chunk(keys, identifier, location)
