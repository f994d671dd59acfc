"""docs/format.md, "Reading a backup, step by step"."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .body import Body, read_body
from .config import read_config
from .entries import Entry, read_entry
from .errors import Missing
from .history import History, read_history
from .keyring import read_keyring
from .packs import Chunks
from .pages import catalogue
from .records import Commit
from .slots import Credential, open_slot
from .storage import Storage


class Repository:
    """A repository that was opened: steps 1 to 3."""

    def __init__(self, directory: Path, credential: Credential) -> None:
        self.storage = Storage(directory)
        self.config = read_config(self.storage)
        keyring_key = open_slot(self.storage, self.config.repository, credential)
        self.keys = read_keyring(self.storage, self.config, keyring_key)

    def history(self) -> History:
        """Step 4."""
        return read_history(self.storage, self.config)

    def chunks(self, history: History, without_index: bool = False) -> Chunks:
        """Step 5."""
        chunks = Chunks(self.storage, self.config, self.keys)
        chunks.load(history.index_set(), without_index)
        return chunks

    def body(self, commit: Commit) -> Body:
        """Step 6."""
        return read_body(self.storage, self.config, self.keys, commit)

    def entries(self, body: Body, chunks: Chunks) -> Iterator[Entry]:
        """Step 7."""
        for path, document in catalogue(chunks, body.place, body.catalogue, body.height, body.entries):
            yield read_entry(body.place, path, document)


def find_backup(history: History, name: str) -> Commit:
    """By a unique beginning of its id, or the last one."""
    backups = history.backups()
    if name == "latest" and backups:
        return backups[-1]
    found = [commit for commit in backups if commit.backup.hex().startswith(name)]
    if len(found) != 1:
        raise Missing("sessions/", f"{len(found)} backups have an id that begins with {name}")
    return found[0]
