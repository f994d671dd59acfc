"""A fresh repository, made by the command and read by both: `python3 -m reference.checks.command BINARY`.

Three backups with changes and a new root key between them; each is restored by the command and by the reader,
opened by a password with a key file, a recovery key, and a password alone. Files are compared byte for byte
with each other and with the source, and so is what either says about entries.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from blake3 import blake3

from ..entries import KIND_NAMES, Entry
from ..errors import WrongPassword, shown
from ..repository import Repository
from ..restore import Target
from ..slots import Credential, Password, parse_recovery_key
from ..storage import MIB
from ..verify import Verification
from .golden import AMOUNTS, time_of
from .trees import differences, file_digest, read_tree

SMALL_FILES = 4000
PASSWORD = "pa\u0308ssword"  # not in NFC
SECOND_PASSWORD = b"\xff\xfe not UTF-8"
KEY_FILE = bytes(range(256))


def write_sparse(path: Path, length: int, parts: dict[int, bytes]) -> None:
    with open(path, "wb") as file:
        for offset, data in parts.items():
            file.seek(offset)
            file.write(data)
        file.truncate(length)


def make_source(source: Path, rng: random.Random, large: int) -> list[str]:
    """A tree with one of everything; what this system cannot make is returned."""
    missing = []
    for number in range(SMALL_FILES):
        folder = source / f"many/{number % 37:02}/{number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        data = rng.randbytes(rng.randrange(1, 6000)) if number % 3 else f"text {number}\n".encode() * rng.randrange(300)
        (folder / f"file-{number}.txt").write_bytes(data)
    odd = os.fsencode(source) + b"/odd"
    os.mkdir(odd)
    for odd_name in (
        b"\xff\xfe",
        b"new\nline",
        b"back\\slash",
        b" space ",
        b"b\xc3\xbcro",
        b"-dash",
        b"a.b",
        b"a-b",
        b"a",
    ):
        with open(odd + b"/" + odd_name, "wb") as file:
            file.write(odd_name)
    # Between `a` and `a.b` by bytes, but not in the order of paths.
    (source / "odd/a+").mkdir()
    (source / "odd/a+/file").write_bytes(b"")
    deep = source / "deep"
    for level in range(12):
        deep /= "d" * (20 * level + 1)
    deep.mkdir(parents=True)
    (deep / ("f" * 255)).write_bytes(b"deep")

    (source / "empty-folder").mkdir()
    (source / "empty").write_bytes(b"")
    (source / "one").write_bytes(b"1")
    (source / "large").write_bytes(rng.randbytes(large))
    (source / "text").write_bytes(b"".join(b"line %d of a text that compresses\n" % i for i in range(300_000)))
    (source / "zeros").write_bytes(bytes(6 * MIB))
    write_sparse(source / "sparse", 40 * MIB + 17, {10 * MIB + 3: rng.randbytes(3 * MIB), 30 * MIB: b"x"})
    write_sparse(source / "only-a-hole", 5 * MIB, {})

    (source / "links").mkdir()
    for name, to in (("file", "../one"), ("folder", "../many"), ("dangling", "no/where"), ("absolute", "/dev/null")):
        (source / "links" / name).symlink_to(to)
    os.link(source / "large", source / "links/hard")
    os.link(source / "large", source / "a-hard-link-before-its-file")
    os.link(source / "empty", source / "links/hard-empty")
    os.mkfifo(source / "pipe")

    # Only root reads what nobody may.
    for mode in (0o400, 0o4755, 0o2711, 0o1777, 0o666, *([0o000] if os.geteuid() == 0 else [])):
        (source / f"mode-{mode:o}").write_bytes(b"mode")
        (source / f"mode-{mode:o}").chmod(mode)
    (source / "mode-folder").mkdir()
    (source / "mode-folder/file").write_bytes(b"in a folder that nobody writes to")
    (source / "mode-folder").chmod(0o2555)
    for name, nanoseconds in (("before-1970", -1_000_000_001), ("future", 4_102_444_800_123_456_789), ("start", 0)):
        (source / name).write_bytes(name.encode())
        os.utime(source / name, ns=(nanoseconds, nanoseconds))
    os.utime(source / "links/dangling", ns=(1, 1_234_567_890_987_654_321), follow_symlinks=False)
    os.utime(source / "empty-folder", ns=(1, 987_654_321_000_000_007))
    (source / "attributes").write_bytes(b"a")
    try:
        os.setxattr(source / "attributes", "user.z", bytes(range(256)))
        os.setxattr(source / "attributes", "user.empty", b"")
        os.setxattr(source / "empty-folder", "user.folder", b"f")
    except OSError as error:
        missing.append(f"extended attributes: {error.strerror}")
    if os.geteuid() == 0:
        os.chown(source / "one", 12345, 54321)
        os.chown(source / "links/dangling", 1, 2, follow_symlinks=False)
        os.chown(source / "mode-4755", 3, 4)
        (source / "mode-4755").chmod(0o4755)
        try:
            os.mknod(source / "device", 0o20644, os.makedev(1, 3))
        except OSError as error:
            missing.append(f"device nodes: {error.strerror}")
    else:
        missing.append("owners and device nodes: not run as root")
    return missing


def change_source(source: Path, rng: random.Random) -> None:
    for number in range(0, SMALL_FILES, 41):
        path = source / f"many/{number % 37:02}/{number % 5}/file-{number}.txt"
        if number % 2:
            path.unlink()
        else:
            path.write_bytes(rng.randbytes(700))
    with open(source / "large", "r+b") as file:
        file.seek(5 * MIB)
        file.write(rng.randbytes(1000))
        file.seek(0, os.SEEK_END)
        file.write(rng.randbytes(100_000))
    (source / "links/hard").unlink()
    (source / "links/file").unlink()
    (source / "links/file").mkdir()
    (source / "links/file/now a folder").write_bytes(b"!")
    (source / "one").chmod(0o640)
    (source / "new").write_bytes(b"new")


def image_parts(rng: random.Random) -> dict[int, bytes]:
    """More chunks than stand in an entry, and holes over the bounds of pages, which are at 256 and 512 MiB."""
    parts = {place * MIB: rng.randbytes(MIB) for place in (0, 1, 7, 250, 301)}
    parts[300 * MIB + 12345] = b"a few bytes"
    parts[530 * MIB] = rng.randbytes(777)
    return parts


class Command:
    def __init__(self, binary: Path, work: Path) -> None:
        self.binary, self.work = binary, work
        self.environment = {"PATH": os.environ["PATH"], "BACKUP_REPO": str(work / "repository")}

    def run(self, *arguments: str, stdin: bytes = b"", codes: tuple[int, ...] = (0,)) -> Any:
        """What the command says with --json, and ends with one of these codes."""
        result = subprocess.run(
            [self.binary, *arguments, "--json"],
            input=stdin,
            cwd=self.work,
            env=self.environment,
            capture_output=True,
            check=False,
        )
        said = result.stderr.decode(errors="replace")
        assert result.returncode in codes, f"backup {' '.join(arguments)}: {result.returncode}: {said}"
        return json.loads(result.stdout) if result.stdout else None


def described(entry: Entry) -> dict[str, Any]:
    """As `backup show --json` does (docs/cli.md)."""
    result: dict[str, Any] = {
        "path": shown(entry.path),
        "kind": KIND_NAMES[entry.kind],
        "size": entry.length,
        "digest": entry.digest and entry.digest.hex(),
        "mode": entry.mode,
        "uid": entry.uid,
        "gid": entry.gid,
        "user": entry.user,
        "group": entry.group,
        "modified": entry.modified,
        "inconsistent": entry.inconsistent,
        "hard_link": None if entry.hard_link is None else shown(entry.hard_link),
    }
    if entry.target is not None:
        result["target"] = shown(entry.target)
    if entry.device is not None:
        result["major"], result["minor"] = entry.device
    return result


def compare_listing(said: Any, entries: list[Entry]) -> None:
    assert len(said) == len(entries), f"{len(said)} entries by the command, {len(entries)} by the reader"
    for theirs, entry in zip(said, entries, strict=True):
        ours = described(entry)
        if "path_hex" in theirs:
            assert bytes.fromhex(theirs.pop("path_hex")) == entry.path
        theirs.pop("target_hex", None)
        theirs["modified"] = time_of(theirs["modified"])
        assert ours == theirs, f"entry {shown(entry.path)}: {ours} by the reader, {theirs} by the command"


def check_sparse(place: Path, names: list[str]) -> None:
    for name in names:
        status = os.stat(place / name)
        assert status.st_blocks * 512 < status.st_size / 2, f"{name} was not restored sparse"


def compare_backup(
    command: Command, opening: list[str], credential: Credential, backup: str, without_index: bool, place: Path
) -> tuple[int, Path]:
    """One backup, by both programs. The directory has what the reader restored."""
    repository = Repository(Path(command.environment["BACKUP_REPO"]), credential)
    history = repository.history()
    assert not history.findings, [str(finding) for finding in history.findings]
    chunks = repository.chunks(history, without_index)
    assert not chunks.findings, [str(finding) for finding in chunks.findings]
    commit = next(commit for commit in history.backups() if commit.backup.hex() == backup)
    body = repository.body(commit)
    entries = list(repository.entries(body, chunks))
    shown_by_command = command.run("show", backup, *opening)
    compare_listing(shown_by_command["entries"], entries)
    assert dict(zip(AMOUNTS, body.amounts, strict=True)) == shown_by_command["backup"]["statistics"]

    theirs, ours = place / f"{backup}-command", place / f"{backup}-reader"
    restored = command.run("restore", backup, "--to", str(theirs), *opening)
    assert restored["complete"] is True, restored
    target = Target(ours)
    target.restore(entries, chunks)
    assert not target.problems, target.problems
    timed = {entry.path for entry in entries if entry.modified is not None}
    wrong = differences(read_tree(theirs, timed), read_tree(ours, timed))
    assert not wrong, f"backup {backup}: by the reader, compared with the command: {wrong[:20]}"
    return len(entries), ours


def check(binary: Path, work: Path, large: int) -> None:
    rng = random.Random(0)
    for name, data in (("password", PASSWORD.encode()), ("second", SECOND_PASSWORD), ("key", KEY_FILE)):
        (work / name).write_bytes(data)
        (work / name).chmod(0o600)
    source, image = work / "source", work / "disk image"
    source.mkdir()
    for what in make_source(source, rng, large):
        print(f"NOTE: left out: {what}", file=sys.stderr)
    write_sparse(image, 540 * MIB + 512, image_parts(rng))
    stream = rng.randbytes(9 * MIB) + bytes(3 * MIB) + rng.randbytes(5000)

    command = Command(binary, work)
    with_key_file = ["--password-file", "password", "--key-file", "key"]
    command.run("init", "--pack-size", "4M", *with_key_file)
    sources = ["source", "--stdin", "streams/first", "--image", "disk image", "--as", "vm/disk"]
    options = ["--tag", "b", "--tag", "a", "--label", "k=v"]
    created = [command.run("create", *sources, *options, *with_key_file, stdin=stream)["backup"]]
    expected = [(read_tree(source), blake3(stream).digest(), file_digest(os.fsencode(image)))]

    command.run("key", "recovery", "--to", "recovery", *with_key_file)
    command.run("key", "rotate", *with_key_file)
    command.run("key", "add", "--new-password-file", "second", *with_key_file)
    by_recovery_key = ["--recovery-key-file", "recovery"]
    by_second = ["--password-file", "second"]
    change_source(source, rng)
    parts = image_parts(rng)
    del parts[MIB]
    write_sparse(image, 520 * MIB, {place: data for place, data in parts.items() if place < 500 * MIB})
    stream = stream[: 8 * MIB] + b"something else" + stream[8 * MIB :]
    options = ["--compression", "12", "--kind", "virtual-machine"]
    created.append(command.run("create", *sources, *options, *by_recovery_key, stdin=stream)["backup"])
    expected.append((read_tree(source), blake3(stream).digest(), file_digest(os.fsencode(image))))
    assert expected[0] != expected[1]
    created.append(command.run("create", "--stdin", "empty", "--host", "other", *by_second)["backup"])

    # The first backup, from before the new root key, is opened by a slot from after it.
    second = Password(SECOND_PASSWORD)
    by: list[tuple[list[str], Credential, bool]] = [
        (by_recovery_key, parse_recovery_key((work / "recovery").read_text(encoding="ascii")), True),
        (with_key_file, Password(PASSWORD.encode(), KEY_FILE), False),
        (by_second, second, False),
    ]
    total = 0
    for backup, (opening, credential, without_index) in zip(created, by, strict=True):
        count, restored = compare_backup(command, opening, credential, backup, without_index, work)
        total += count
        if backup == created[2]:
            assert (restored / "empty").read_bytes() == b""
            continue
        tree, stream_digest, image_digest = expected[created.index(backup)]
        wrong = differences(tree, read_tree(restored / "source"))
        assert not wrong, f"backup {backup}, compared with the source: {wrong[:20]}"
        assert file_digest(os.fsencode(restored / "streams/first")) == stream_digest, "the stream"
        assert file_digest(os.fsencode(restored / "vm/disk")) == image_digest, "the disk image"
        check_sparse(restored, ["source/sparse", "source/only-a-hole", "vm/disk"])

    repository = Repository(work / "repository", second)
    listed = [backup["id"] for backup in command.run("list", *with_key_file)["backups"]]
    assert listed == [commit.backup.hex() for commit in repository.history().backups()] == created
    findings = Verification(repository).run()
    assert not findings, [str(finding) for finding in findings]
    for wrong_credential in (Password(PASSWORD.encode()), Password(SECOND_PASSWORD, KEY_FILE), Password(b"wrong")):
        with suppress(WrongPassword):
            Repository(work / "repository", wrong_credential)
            raise AssertionError(f"{wrong_credential} opened the repository")
    print(f"{len(created)} backups by the command: {total} entries restored alike by it and the reader, as they were")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", type=Path, help="the command `backup`")
    parser.add_argument("--large", type=int, default=48, metavar="MIB", help="size of the largest file")
    options = parser.parse_args()
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="backup-reference-") as place:
        check(options.binary.resolve(), Path(place), options.large * MIB)


if __name__ == "__main__":
    main()
