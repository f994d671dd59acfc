"""Everything that docs/format.md lets a reader check, over the whole repository.

The findings are the errors, each with the object that it is about. One finding does not keep the rest from
being checked.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from .body import read_closure
from .entries import content
from .errors import Damaged, Rejected
from .packs import Chunks, check_pack
from .records import Commit
from .repository import Repository


class Verification:
    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.findings: list[Rejected] = []

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except Rejected as error:
            self.findings.append(error)

    def run(self) -> list[Rejected]:
        repository = self._repository
        history = repository.history()
        self.findings += history.findings
        chunks = repository.chunks(history)
        self.findings += chunks.findings
        closures: dict[bytes, dict[bytes, int]] = {}
        for commit in history.backups():
            with self._noted():
                closures[commit.backup] = read_closure(repository.storage, commit)
        for name, size in sorted({pack for closure in closures.values() for pack in closure.items()}):
            with self._noted():
                check_pack(repository.storage, repository.config, repository.keys, name, size)
        for commit in history.backups():
            with self._noted():
                self._backup(commit, chunks)
                if commit.backup in closures:
                    self._closure(commit, chunks, closures[commit.backup])
        return self.findings

    def _backup(self, commit: Commit, chunks: Chunks) -> None:
        chunks.wanted.clear()
        body = self._repository.body(commit)
        for entry in self._repository.entries(body, chunks):
            with self._noted():
                for _ in content(chunks, entry):
                    pass

    def _closure(self, commit: Commit, chunks: Chunks, closure: dict[bytes, int]) -> None:
        """ "W3": the closure names a pack for every page and chunk of the backup."""
        for identifier in sorted(chunks.wanted):
            if chunks.packs_of(identifier).isdisjoint(closure):
                place = f"closures/{commit.closure.hex()}"
                raise Damaged(place, f"it names no pack with chunk {identifier.hex()}")
