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
    # Valid commits by their ids, forgotten and replaced ones included.
    valid: dict[bytes, Commit] = field(default_factory=dict)
    # What forget records name.
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
        shown = []
        for first in self.causal_order():
            live = [commit for commit in self.valid.values() if commit.ids[0] == first and self.is_live(commit)]
            if live:
                # Of those of the greatest generation, those that replace the most; then the smallest id.
                live.sort(key=lambda commit: commit.backup)
                shown.append(max(live, key=lambda commit: (commit.generation, len(commit.replaces))))
        return shown

    def is_live(self, commit: Commit) -> bool:
        if not self.forgotten.isdisjoint(commit.ids):
            return False
        return not any(
            commit.backup in other.replaces and other.generation >= commit.generation for other in self.valid.values()
        )

    def known(self) -> dict[bytes, bytes]:
        """For every id that a backup has or had, the first that it had."""
        return {one: commit.ids[0] for commit in self.valid.values() for one in commit.ids}

    def causal_order(self) -> list[bytes]:
        """The first ids of the backups: each behind every one that it names; else by (time, id), times raised to
        that of the last before."""
        known = self.known()
        before: dict[bytes, set[bytes]] = {}
        times: dict[bytes, tuple[int, int]] = {}
        for commit in self.valid.values():
            first = commit.ids[0]
            named = {known[head] for head in commit.heads if head in known} - {first}
            before.setdefault(first, set()).update(named)
            times[first] = min(times.get(first, commit.time), commit.time)
        free = [(times[first], first) for first in before if not before[first]]
        heapq.heapify(free)
        waiting = {first for first in before if before[first]}
        ordered = []
        while free or waiting:
            # Those that wait for each other come all the same.
            time, first = heapq.heappop(free) if free else min((times[first], first) for first in waiting)
            waiting.discard(first)
            ordered.append(first)
            for other in list(waiting):
                if first in before[other]:
                    before[other].remove(first)
                    times[other] = max(times[other], time)
                    if not before[other]:
                        waiting.remove(other)
                        heapq.heappush(free, (times[other], other))
        return ordered


def read_history(storage: Storage, config: Config) -> History:
    history = History()
    _read_collections(storage, config, history)
    _read_outcomes(storage, config, history)
    _read_forgets(storage, config, history)
    known = history.known()
    for commit in history.valid.values():
        if commit.config != blake3(config.document).digest():
            history.findings.append(Damaged(commit.place, "it was made for another config"))
        for head in commit.heads:
            if head not in known and head not in history.forgotten:
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
