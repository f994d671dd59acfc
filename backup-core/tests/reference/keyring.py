"""docs/format.md, "Keyring"."""

import re

from blake3 import blake3

from .cbor import U32, decode
from .config import Config
from .ed25519 import public_key
from .errors import Damaged, Foreign, Missing
from .keys import KEYRING, Keys
from .sealed import open_bytes
from .storage import MAXIMUM_KEYRING, Storage

_KEY = re.compile(r"keyring/([0-9a-f]{8})\Z")


def read_keyring(storage: Storage, config: Config, keyring_key: bytes) -> Keys:
    """Step 3 of "Reading a backup": the keyring with the highest number, never an older one. Those of other
    repositories are what interrupted inits left."""
    numbers = [int(match[1], 16) for key in storage.list("keyring/") if (match := _KEY.match(key))]
    for number in sorted(numbers, reverse=True):
        try:
            return _read_keyring(storage, config, keyring_key, number)
        except Foreign:
            continue
    raise Missing("keyring/00000001", "there is no keyring")


def _read_keyring(storage: Storage, config: Config, keyring_key: bytes, number: int) -> Keys:
    place = f"keyring/{number:08x}"

    def base_key(object_type: int, generation: int) -> bytes | None:
        return keyring_key if object_type == KEYRING and generation == 0 else None

    data = storage.get(place, MAXIMUM_KEYRING)
    document = open_bytes(place, data, config.repository, KEYRING, base_key, MAXIMUM_KEYRING)
    fields = decode(place, "the keyring", document)
    if fields.required(1).unsigned(1, U32) != number:
        raise Damaged(place, "a keyring with another number")
    root_keys: dict[int, bytes] = {}
    for pair in fields.required(2).array(1, 1024):
        generation, root_key = pair.tuple(2)
        if generation.unsigned(1, U32) <= max(root_keys, default=0):
            raise Damaged(place, "root keys that are not in order")
        root_keys[generation.unsigned()] = root_key.identifier()
    dedup_key = fields.required(3).identifier()
    writer_seed = fields.required(4).identifier()
    maintenance_seed = fields.required(5).identifier()
    config_hash = fields.required(6).identifier()
    fields.close()
    if config_hash != blake3(config.document).digest():
        raise Damaged("config", f"its hash is not the one in {place}")
    if public_key(writer_seed) != config.writer_key or public_key(maintenance_seed) != config.maintenance_key:
        raise Damaged(place, "private keys that are not those of the config's public keys")
    return Keys(config.repository, keyring_key, root_keys, dedup_key)
