"""docs/format.md, "Commit protocol", "Commits" and step 4 of "Reading a backup": which backups there are."""

import heapq
import re
from dataclasses import dataclass, field

from blake3 import blake3

from .config import Config
from .errors import Damaged, Missing, Rejected
from .records import ABORT, COMMIT, FINAL, FORGET, REVOKE, Commit, Final, read_commit, read_final, read_record
from .storage import MAXIMUM_COLLECTION_RECORD, MAXIMUM_FORGET, MAXIMUM_OUTCOME, Storage

_COLLECTION = re.compile(r"collections/([0-9a-f]{8})/outcome\Z")
_OUTCOME = re.compile(r"sessions/([0-9a-f]{8})/([0-9a-f]{32})/outcome\Z")
_FORGET = re.compile(r"forgets/([0-9a-f]{64})\Z")


@dataclass
class History:
    # Valid commits by the id of their backup, forgotten ones included.
    valid: dict[bytes, Commit] = field(default_factory=dict)
    forgotten: set[bytes] = field(default_factory=set)
    final: Final | None = None
    # Records that do not count, commits for another config, and backups that are named and not there. They keep
    # nothing from being read.
    findings: list[Rejected] = field(default_factory=list)

    def index_set(self) -> list[bytes]:
        """What the newest final and the valid commits name, forgotten ones included."""
        found = set(self.final.indexes if self.final else [])
        for commit in self.valid.values():
            found.update(commit.indexes)
        return sorted(found)

    def backups(self) -> list[Commit]:
        """What is to be shown, in causal order. Forgotten ones take part in the order."""
        return [commit for commit in self.causal_order() if commit.backup not in self.forgotten]

    def causal_order(self) -> list[Commit]:
        """A commit behind every one that it names; else by (time, id), times raised to that of the last before."""
        waiting: dict[bytes, int] = {}
        successors: dict[bytes, list[Commit]] = {}
        times: dict[bytes, tuple[int, int]] = {}
        free: list[tuple[tuple[int, int], bytes]] = []
        for commit in self.valid.values():
            before = {head for head in commit.heads if head in self.valid}
            waiting[commit.backup] = len(before)
            times[commit.backup] = commit.time
            for head in before:
                successors.setdefault(head, []).append(commit)
            if not before:
                heapq.heappush(free, (commit.time, commit.backup))
        ordered = []
        while free:
            time, backup = heapq.heappop(free)
            ordered.append(self.valid[backup])
            for commit in successors.get(backup, []):
                times[commit.backup] = max(times[commit.backup], time)
                waiting[commit.backup] -= 1
                if waiting[commit.backup] == 0:
                    heapq.heappush(free, (times[commit.backup], commit.backup))
        return ordered


def read_history(storage: Storage, config: Config) -> History:
    history = History()
    _read_collections(storage, config, history)
    _read_outcomes(storage, config, history)
    _read_forgets(storage, config, history)
    for commit in history.valid.values():
        if commit.config != blake3(config.document).digest():
            history.findings.append(Damaged(commit.place, "it was made for another config"))
        for head in commit.heads:
            if head not in history.valid and head not in history.forgotten:
                history.findings.append(Missing(commit.place, f"it names backup {head.hex()}, which is not there"))
    return history


def _read_collections(storage: Storage, config: Config, history: History) -> None:
    """The newest final: the highest number whose outcome is a genuine final."""
    for place in storage.list("collections/"):
        if not (match := _COLLECTION.match(place)):
            continue
        try:
            data = storage.get(place, MAXIMUM_COLLECTION_RECORD)
            label, fields = read_record(place, data, config, (FINAL, ABORT))
            if fields.required(2).unsigned() != int(match[1], 16):
                raise Damaged(place, "a record of another collection")
            if label == ABORT:
                fields.close()
            else:
                # Numbers ascend as the keys do.
                history.final = read_final(place, fields)
        except Rejected as error:
            history.findings.append(error)


def _read_outcomes(storage: Storage, config: Config, history: History) -> None:
    """Validity: what the checkpoint holds, and genuine commits of later generations in their own slots."""
    collected = 0
    if history.final is not None:
        collected = history.final.number
        place = f"{history.final.place} (checkpoint)"
        for data in history.final.checkpoint:
            try:
                _, fields = read_record(place, data, config, (COMMIT,))
                commit = read_commit(place, data, fields)
                history.valid[commit.backup] = commit
            except Rejected as error:
                history.findings.append(error)
    for place in storage.list("sessions/"):
        if not (match := _OUTCOME.match(place)) or int(match[1], 16) <= collected:
            continue
        generation, session = int(match[1], 16), bytes.fromhex(match[2])
        try:
            data = storage.get(place, MAXIMUM_OUTCOME)
            label, fields = read_record(place, data, config, (COMMIT, REVOKE))
            if fields.required(2).identifier(16) != session:
                raise Damaged(place, "a record of another session")
            if label == REVOKE:
                fields.close()
                continue
            commit = read_commit(place, data, fields)
            if commit.generation != generation:
                raise Damaged(place, "a commit of another generation")
            history.valid[commit.backup] = commit
        except Rejected as error:
            history.findings.append(error)


def _read_forgets(storage: Storage, config: Config, history: History) -> None:
    for place in storage.list("forgets/"):
        if not (match := _FORGET.match(place)):
            continue
        try:
            _, fields = read_record(place, storage.get(place, MAXIMUM_FORGET), config, (FORGET,))
            backup = fields.required(2).identifier()
            fields.close()
            if backup.hex() != match[1]:
                raise Damaged(place, "a record of another backup")
            history.forgotten.add(backup)
        except Rejected as error:
            history.findings.append(error)
