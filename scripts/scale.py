#!/usr/bin/env python3
"""Inputs and comparisons of scale.sh. Everything made here is the same on every run."""

import os
import random
import stat
import sys
from collections.abc import Callable


def small_content(generator: random.Random, number: int) -> bytes:
    """Mostly a few hundred bytes of text, sometimes nothing, sometimes some kilobytes."""
    size = min(16384, int(2 ** generator.gauss(9, 1.5)))
    text = "".join(f"{name} = {generator.getrandbits(32)}\n" for name in ("number", "owner", "checksum"))
    return (f"file {number}\n{text}" * (size // 64 + 1)).encode()[: size if number % 100 else 0]


def file_path(root: str, number: int) -> str:
    return os.path.join(root, f"{number // 100000:02}", f"{number // 1000 % 100:02}", f"file-{number}.conf")


def files(root: str, count: str) -> None:
    generator = random.Random(2)
    for number in range(int(count)):
        path = file_path(root, number)
        if number % 1000 == 0:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        if number % 1000 == 999:
            os.symlink(f"file-{number - 1}.conf", path)
            continue
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(descriptor, small_content(generator, number))
        if number % 10 == 0:
            os.fchmod(descriptor, 0o600 + number // 10 % 0o100)
        os.close(descriptor)


def change_files(root: str, count: str) -> None:
    """One in a hundred is written anew, one in a thousand is removed, one in a thousand is added."""
    generator, end = random.Random(3), int(count)
    for number in range(0, end, 100):
        with open(file_path(root, number), "wb") as file:
            file.write(small_content(generator, number + 1))
    for number in range(500, end, 1000):
        os.remove(file_path(root, number))
        with open(file_path(root, number) + ".new", "wb") as file:
            file.write(small_content(generator, number + 1))


def same(one: str, two: str) -> None:
    """Names, kinds, modes, times, links and contents."""
    compared, pending = 0, [""]
    while pending:
        below = pending.pop()
        with os.scandir(os.path.join(one, below)) as items:
            names = sorted(item.name for item in items)
        with os.scandir(os.path.join(two, below)) as items:
            if names != sorted(item.name for item in items):
                sys.exit(f"{two}/{below} has other names")
        for name in names:
            path = os.path.join(below, name)
            first, second = os.path.join(one, path), os.path.join(two, path)
            expected, found = os.lstat(first), os.lstat(second)
            compared += 1
            for field in ("st_mode", "st_uid", "st_gid"):
                if getattr(expected, field) != getattr(found, field):
                    sys.exit(f"{second} has another {field}")
            if stat.S_ISDIR(expected.st_mode):
                pending.append(path)
                continue
            if expected.st_mtime_ns != found.st_mtime_ns:
                sys.exit(f"{second} has another time")
            if stat.S_ISLNK(expected.st_mode):
                equal = os.readlink(first) == os.readlink(second)
            else:
                with open(first, "rb") as left, open(second, "rb") as right:
                    equal = left.read() == right.read()
            if not equal:
                sys.exit(f"{second} differs")
    print(f"== files: {compared} entries are the same", file=sys.stderr)


COMMANDS: dict[str, Callable[..., None]] = {
    "files": files,
    "change-files": change_files,
    "same": same,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
