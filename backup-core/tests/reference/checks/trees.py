"""Directories as values that can be compared."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from ..errors import shown


@dataclass(frozen=True)
class Node:
    file_type: int
    mode: int
    uid: int
    gid: int
    size: int
    # Nothing where no time was kept: for streams, disk images, and directories that have no entry.
    modified: int | None
    target: bytes
    device: int
    # The first path that is the same file.
    same_as: bytes
    extended: tuple[tuple[bytes, bytes], ...]
    content: bytes


def file_digest(path: bytes) -> bytes:
    hasher = blake3()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            hasher.update(part)
    return hasher.digest()


def read_tree(root: Path, timed: set[bytes] | None = None) -> dict[bytes, Node]:
    """Everything below a directory, by its path; `timed` are the paths whose times count, by default all."""
    base = os.fsencode(root)
    nodes: dict[bytes, Node] = {}
    first: dict[tuple[int, int], bytes] = {}
    for directory, folders, files in os.walk(base):
        folders.sort()
        for name in sorted(folders + files):
            full = directory + b"/" + name
            path = full[len(base) + 1 :]
            status = os.lstat(full)
            attributes = os.listxattr(full, follow_symlinks=False)
            is_file = stat.S_ISREG(status.st_mode)
            identity = (status.st_dev, status.st_ino)
            nodes[path] = Node(
                file_type=stat.S_IFMT(status.st_mode),
                mode=stat.S_IMODE(status.st_mode),
                uid=status.st_uid,
                gid=status.st_gid,
                size=status.st_size if is_file else 0,
                modified=status.st_mtime_ns if timed is None or path in timed else None,
                target=os.readlink(full) if stat.S_ISLNK(status.st_mode) else b"",
                device=status.st_rdev,
                same_as=first.setdefault(identity, path) if is_file else path,
                extended=tuple(
                    sorted((os.fsencode(a), os.getxattr(full, a, follow_symlinks=False)) for a in attributes)
                ),
                content=file_digest(full) if is_file else b"",
            )
    return nodes


def differences(expected: dict[bytes, Node], found: dict[bytes, Node]) -> list[str]:
    result = [f"{shown(path)} is missing" for path in expected.keys() - found.keys()]
    result += [f"{shown(path)} should not be there" for path in found.keys() - expected.keys()]
    for path in expected.keys() & found.keys():
        for field in Node.__dataclass_fields__:
            a, b = getattr(expected[path], field), getattr(found[path], field)
            if a != b:
                result.append(f"{shown(path)}: {field} is {b!r} and should be {a!r}")
    return sorted(result)
