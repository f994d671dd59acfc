"""The golden repository against golden/contents.json: what is in it, and what becomes of it on disk."""

import json
import os
import stat
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from blake3 import blake3

from ..body import Body
from ..entries import WITH_CONTENT, Entry, content
from ..errors import shown
from ..packs import Chunks
from ..pages import Hole
from ..records import Commit
from ..repository import Repository
from ..restore import Target
from ..slots import Password

VECTORS = Path(__file__).parents[2] / "vectors"
GOLDEN = VECTORS / "golden" / "repository"
KINDS = ["", "File", "Directory", "Symlink", "Fifo", "CharacterDevice", "BlockDevice", "Stream", "Disk"]
AMOUNTS = [
    "entries",
    "bytes_logical",
    "bytes_read",
    "bytes_unchanged",
    "bytes_new",
    "bytes_stored",
    "chunks",
    "chunks_new",
]

Json = Any


def contents() -> Json:
    return json.loads((VECTORS / "golden" / "contents.json").read_text(encoding="utf-8"))


def password() -> Password:
    return Password(contents()["password"].encode())


def time_of(text: str | None) -> tuple[int, int] | None:
    """Seconds and nanoseconds of a time in RFC 3339, in UTC."""
    if text is None:
        return None
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(whole + "+00:00").timestamp()), int(fraction.ljust(9, "0") or "0")


def read_content(chunks: Chunks, entry: Entry) -> bytes:
    return b"".join(bytes(part.length) if isinstance(part, Hole) else part for part in content(chunks, entry))


def described_backup(commit: Commit, body: Body) -> Json:
    return {
        "finished": body.finished,
        "host": body.host,
        "id": commit.backup.hex(),
        "kind": body.kind,
        "labels": dict(body.labels),
        "origins": [{"backup": backup.hex(), "repository": source.hex()} for source, backup in body.origins],
        "parent": body.parent and body.parent.hex(),
        "problem_count": body.problem_count,
        "problems": [{"message": message, "name": name} for name, message in body.problems],
        "replaces": [earlier.hex() for earlier in commit.replaces],
        "started": body.started,
        "statistics": dict(zip(AMOUNTS, body.amounts, strict=True)),
        "tags": body.tags,
    }


def described_entry(chunks: Chunks, entry: Entry) -> Json:
    kind = KINDS[entry.kind]
    if entry.target is not None:
        kind += f" {{ target: {list(entry.target)} }}"
    if entry.device is not None:
        kind += f" {{ major: {entry.device[0]}, minor: {entry.device[1]} }}"
    return {
        "blake3": blake3(read_content(chunks, entry)).hexdigest() if entry.kind in WITH_CONTENT else None,
        "changed": entry.changed,
        "extended": [[name.hex(), value.hex()] for name, value in entry.extended],
        "hard_link": None if entry.hard_link is None else shown(entry.hard_link),
        "inode": entry.inode,
        "kind": kind,
        "length": entry.length,
        "mode": entry.mode,
        "modified": entry.modified,
        "owner": [entry.uid, entry.gid, entry.user, entry.group],
        "path": entry.path.hex(),
        "path_text": shown(entry.path),
    }


def with_times(value: Json, names: tuple[str, ...]) -> Json:
    return {key: time_of(item) if key in names else item for key, item in value.items()}


def check_files(directory: Path, expected: list[Json], problems: list[str]) -> int:
    """The restored files; as nobody special, devices and owners cannot be."""
    unprivileged = os.geteuid() != 0
    allowed = {
        shown(bytes.fromhex(entry["path"]))
        for entry in expected
        if (unprivileged and "Device" in entry["kind"]) or entry["extended"]
    }
    for problem in problems:
        assert any(f"entry {path}: " in problem for path in allowed), f"not restored: {problem}"
        print(f"NOTE: {problem}", file=sys.stderr)
    by_path = {entry["path_text"]: entry for entry in expected}
    checked = 0
    for entry in expected:
        path = os.fsencode(directory) + b"/" + bytes.fromhex(entry["path"])
        if not os.path.lexists(path) and "Device" in entry["kind"] and unprivileged:
            continue
        status = os.lstat(path)
        source = by_path[entry["hard_link"]] if entry["hard_link"] else entry
        if source["kind"] in ("File", "Stream", "Disk"):
            with open(path, "rb") as file:
                assert blake3(file.read()).hexdigest() == source["blake3"], f"content of {path!r}"
        if entry["kind"].startswith("Symlink"):
            assert f"Symlink {{ target: {list(os.readlink(path))} }}" == entry["kind"], path
        if source["mode"] is not None:
            assert stat.S_IMODE(status.st_mode) == source["mode"], f"mode of {path!r}"
        if (modified := time_of(source["modified"])) is not None:
            assert status.st_mtime_ns == modified[0] * 10**9 + modified[1], f"time of {path!r}"
        if not unprivileged and source["owner"][0] is not None:
            assert [status.st_uid, status.st_gid] == source["owner"][:2], f"owner of {path!r}"
        checked += 1
    return checked


def main() -> None:
    expected = contents()
    repository = Repository(GOLDEN, password())
    assert repository.config.repository.hex() == expected["repository"]
    history = repository.history()
    assert not history.findings, [str(finding) for finding in history.findings]
    commits = history.backups()
    assert len(commits) == len(expected["backups"])
    for without_index in (False, True):
        chunks = repository.chunks(history, without_index)
        assert not chunks.findings, [str(finding) for finding in chunks.findings]
        for commit, backup in zip(commits, expected["backups"], strict=True):
            body = repository.body(commit)
            wanted = with_times(backup["backup"], ("started", "finished"))
            assert described_backup(commit, body) == wanted, (described_backup(commit, body), wanted)
            entries = [described_entry(chunks, entry) for entry in repository.entries(body, chunks)]
            wanted = [with_times(entry, ("changed", "modified")) for entry in backup["entries"]]
            assert entries == wanted, (entries, wanted)
            with tempfile.TemporaryDirectory() as place:
                target = Target(Path(place) / "restored")
                target.restore(repository.entries(body, chunks), chunks)
                checked = check_files(Path(place) / "restored", backup["entries"], target.problems)
            how = "without index segments" if without_index else "with index segments"
            print(
                f"golden backup {commit.backup.hex()[:8]} {how}: {len(entries)} entries read, {checked} files compared"
            )


if __name__ == "__main__":
    main()
