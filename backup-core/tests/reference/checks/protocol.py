"""What there is, by the command and by the reader: `python3 -m reference.checks.protocol BINARY`.

Collections, forgotten backups, void commits and histories of several writers are made by hand, as
docs/format.md defines them, because the command makes none of them. Both must list the same backups in the
same order, before and after.
"""

import argparse
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from blake3 import blake3

from ..records import Commit
from ..repository import Repository
from ..slots import Password
from ..storage import MAXIMUM_OUTCOME, Storage
from .command import Command
from .forge import Forger
from .golden import read_content

PASSWORD = Password(b"password")
OPENING = ["--password-file", "password"]


class Site:
    """A repository, seen by both."""

    def __init__(self, binary: Path, work: Path) -> None:
        (work / "password").write_bytes(PASSWORD.password)
        (work / "password").chmod(0o600)
        self.work = work
        self.command = Command(binary, work)
        self.directory = work / "repository"

    def forger(self) -> Forger:
        return Forger(self.directory, PASSWORD)

    def create(self, text: str) -> str:
        said = self.command.run("create", "--stdin", "stream", *OPENING, stdin=text.encode())
        return str(said["backup"])

    def agreed(self, findings: tuple[str, ...] = ()) -> list[str]:
        """The backups that both list; `findings` is what the reader has to say against objects."""
        repository = Repository(self.directory, PASSWORD)
        history = repository.history()
        places = tuple(finding.place for finding in history.findings)
        assert places == findings, [str(finding) for finding in history.findings]
        ours = [commit.backup.hex() for commit in history.backups()]
        # With damaged records it lists what there is and ends with 3.
        listed = self.command.run("list", *OPENING, codes=(0, 3) if findings else (0,))
        theirs = [backup["id"] for backup in listed["backups"]]
        assert ours == theirs, f"{ours} by the reader, {theirs} by the command"
        return ours

    def content(self, backup: str) -> bytes:
        repository = Repository(self.directory, PASSWORD)
        history = repository.history()
        commit = next(commit for commit in history.backups() if commit.backup.hex() == backup)
        chunks = repository.chunks(history)
        assert not chunks.findings
        (entry,) = repository.entries(repository.body(commit), chunks)
        return read_content(chunks, entry)


def outcomes(storage: Storage) -> dict[str, bytes]:
    keys = [key for key in storage.list("sessions/") if key.endswith("/outcome")]
    return {key: storage.get(key, MAXIMUM_OUTCOME) for key in keys}


def commit_payload(commit: Commit, **changes: Any) -> dict[int, Any]:
    values = {**vars(commit), **changes}
    return {
        2: values["session"],
        3: values["generation"],
        4: values["body"],
        5: values["indexes"],
        6: values["closure"],
        7: values["closure_packs"],
        8: values["closure_bytes"],
        9: values["config"],
        10: values["heads"],
        11: values["time"][0],
        12: values["time"][1],
        **({13: values["replaces"]} if values["replaces"] else {}),
    }


def put_commit(forger: Forger, commit: Commit, rng: random.Random, **changes: Any) -> bytes:
    """A genuine commit in its own slot, with what another backup stored; its object."""
    session, generation = rng.randbytes(16), changes.pop("generation", 1)
    payload = commit_payload(commit, session=session, generation=generation, **changes)
    data = forger.record("backup/v1/commit", payload)
    forger.put(f"sessions/{generation:08x}/{session.hex()}/outcome", data)
    return data


def check_order(site: Site, rng: random.Random) -> int:
    """A graph of commits whose clocks are wrong, some replaced, some forgotten, some naming what is not there."""
    forger = site.forger()
    (real,) = Repository(site.directory, PASSWORD).history().valid.values()
    known = [real.backup]
    missing = []
    for _ in range(16):
        heads = rng.sample(known, rng.randrange(min(3, len(known)) + 1))
        absent = rng.random() < 0.1
        if absent:
            heads.append(rng.randbytes(32))
        data = put_commit(forger, real, rng, heads=heads, time=(rng.randrange(6), rng.randrange(2)))
        known.append(blake3(data).digest())
        if absent:
            missing.append(known[-1])
    history = Repository(site.directory, PASSWORD).history()
    for backup in rng.choices(known, k=8):
        # Once or several times, one behind the other or side by side.
        commit = rng.choice([commit for commit in history.valid.values() if commit.ids[0] == backup])
        generation = commit.generation + rng.randrange(2)
        put_commit(forger, commit, rng, replaces=commit.ids, generation=generation)
        history = Repository(site.directory, PASSWORD).history()
    for backup in rng.sample(known, 4):
        forger.put(f"forgets/{backup.hex()}", forger.record("backup/v1/forget", {2: backup}))
    history = Repository(site.directory, PASSWORD).history()
    found = tuple(finding.place for finding in history.findings)
    firsts = set(missing)
    assert sorted(found) == sorted(commit.place for commit in history.valid.values() if commit.ids[0] in firsts)
    listed = site.agreed(found)
    assert len(listed) == len(known) - 4
    return len(listed)


def check_leftovers(site: Site) -> None:
    """Keyrings and slots of inits that died or lost are in nobody's way."""
    one = site.create("one")
    for kind, offset, name in (("keyring", 16, "00000002"), ("keys", 16, "00" * 16), ("keys", 16, "ff" * 16)):
        (ours,) = [
            path for path in (site.directory / kind).iterdir() if not path.name.startswith(("00000002", "00" * 16))
        ]
        data = bytearray(ours.read_bytes())
        data[offset : offset + 16] = bytes(byte ^ 0x55 for byte in data[offset : offset + 16])
        (site.directory / kind / name).write_bytes(data)
    assert site.agreed() == [one]
    two = site.create("two")
    assert site.agreed() == [one, two]
    site.command.run("key", "rotate", *OPENING)
    assert sorted(path.name for path in (site.directory / "keyring").iterdir()) == [f"{n:08x}" for n in (1, 2, 3)]
    three = site.create("three")
    assert site.agreed() == [one, two, three]
    assert site.content(three) == b"three"


def check_collections(site: Site, rng: random.Random) -> None:
    first, second, third = (site.create(text) for text in ("one", "two", "three"))
    assert site.agreed() == [first, second, third]
    forger = site.forger()

    # A backup is forgotten; what the writer key signs does not forget.
    forger.put(f"forgets/{second}", forger.record("backup/v1/forget", {2: bytes.fromhex(second)}))
    by_writer = forger.record("backup/v1/forget", {2: bytes.fromhex(third)}, forger.writer)
    forger.put(f"forgets/{third}", by_writer)
    wrong: tuple[str, ...] = (f"forgets/{third}",)
    assert site.agreed(wrong) == [first, third]

    # A collection: its checkpoint has the outcomes, and their slots are deleted.
    history = Repository(site.directory, PASSWORD).history()
    final = {
        2: 1,
        3: b"",
        4: list(outcomes(forger.storage).values()),
        5: b"".join(history.index_set()),
    }
    forger.put("collections/00000001/open", b"")
    forger.put("collections/00000001/mark", forger.record("backup/v1/collection-mark", {2: 1, 3: b""}))
    assert site.agreed(wrong) == [first, third]
    forger.put("collections/00000001/outcome", forger.record("backup/v1/collection-final", final))
    assert site.agreed(wrong) == [first, third]
    shutil.rmtree(site.directory / "sessions/00000001")
    assert site.agreed(wrong) == [first, third]
    assert (site.content(first), site.content(third)) == (b"one", b"three")

    # Somebody who slept wins a slot that the collection deleted: void. One of a later generation counts.
    sleeper = history.valid[bytes.fromhex(first)]
    put_commit(forger, sleeper, rng)
    assert site.agreed(wrong) == [first, third]
    fourth = site.create("four")
    assert all(key.split("/")[1] in ("00000001", "00000002") for key in outcomes(forger.storage))
    assert site.agreed(wrong) == [first, third, fourth]

    # A final by the writer key counts for nothing, an abort neither, and a revoked session is no backup.
    empty = {2: 2, 3: b"", 4: [], 5: b""}
    forged = forger.record("backup/v1/collection-final", empty, forger.writer)
    forger.put("collections/00000002/outcome", forged)
    forger.put("collections/00000003/outcome", forger.record("backup/v1/collection-abort", {2: 3}))
    session = rng.randbytes(16)
    revocation = forger.record("backup/v1/revoke", {2: session})
    forger.put(f"sessions/00000004/{session.hex()}/outcome", revocation)
    wrong = ("collections/00000002/outcome", *wrong)
    assert site.agreed(wrong) == [first, third, fourth]
    # Nor is a commit that stands in the slot of another session, or of another generation.
    strangers = []
    for generation, name in ((2, rng.randbytes(16)), (5, sleeper.session)):
        strangers.append(f"sessions/{generation:08x}/{name.hex()}/outcome")
        payload = commit_payload(sleeper, generation=2, time=(generation, 0))
        forger.put(strangers[-1], forger.record("backup/v1/commit", payload))
    wrong = (wrong[0], *sorted(strangers), wrong[1])
    assert site.agreed(wrong) == [first, third, fourth]
    assert site.content(fourth) == b"four"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", type=Path, help="the command `backup`")
    binary = parser.parse_args().binary.resolve()
    cheap = ["--kdf-memory", "64M", "--kdf-iterations", "1"]
    with tempfile.TemporaryDirectory(prefix="backup-reference-") as place:
        site = Site(binary, Path(place))
        site.command.run("init", *cheap, *OPENING)
        check_collections(site, random.Random(1))
    with tempfile.TemporaryDirectory(prefix="backup-reference-") as place:
        site = Site(binary, Path(place))
        site.command.run("init", *cheap, *OPENING)
        check_leftovers(site)
    print("collections, forgotten backups and void commits: reader and command agree")
    listed = 0
    for seed in range(4):
        with tempfile.TemporaryDirectory(prefix="backup-reference-") as place:
            site = Site(binary, Path(place))
            site.command.run("init", *cheap, *OPENING)
            site.create("one")
            listed += check_order(site, random.Random(seed))
    print(f"4 histories with {listed} backups: reader and command put them in the same order")


if __name__ == "__main__":
    main()
