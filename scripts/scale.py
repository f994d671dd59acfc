#!/usr/bin/env python3
"""Inputs, measurements and comparisons of scale.sh. Everything made here is the same on every run, except that
the image is filled with the files of /usr: made-up bytes compress and repeat unlike any real disk."""

import json
import os
import random
import stat
import sys
import time

MIB = 1 << 20
BLOCK = 4096


def real_data():
    """The contents of /usr, each file padded to whole blocks as on a disk, then noise for ever."""
    for directory, directories, names in os.walk("/usr"):
        directories.sort()
        for name in sorted(names):
            path = os.path.join(directory, name)
            try:
                if stat.S_ISREG(os.lstat(path).st_mode):
                    with open(path, "rb") as file:
                        while data := file.read(MIB):
                            yield data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\0")
            except OSError:
                continue
    generator = random.Random(0)
    while True:
        yield generator.randbytes(MIB)


def image(path, length_mib, data_mib):
    """Runs of 64 KiB to 64 MiB of data, evenly spread, holes between them."""
    length, left = int(length_mib) * MIB, int(data_mib) * MIB
    os.makedirs(os.path.dirname(path), exist_ok=True)
    generator, data, rest = random.Random(1), real_data(), b""
    holes = (length - left) / left
    with open(path, "wb") as file:
        file.truncate(length)
        position = 0
        while left > 0:
            run = min(left, BLOCK * int(2 ** generator.uniform(4, 14)))
            left -= run
            file.seek(position)
            hole = BLOCK * int(run * holes / BLOCK)
            position += run + hole
            while run > 0:
                rest = rest or next(data)
                written = file.write(rest[:run])
                run, rest = run - written, rest[written:]
        os.fsync(file.fileno())


def change_image(path, data_mib, day):
    """A twelfth of the data changes, in runs of 4 KiB to 4 MiB. Prints the changed ranges."""
    generator, ranges = random.Random(100 + int(day)), []
    length, left = os.path.getsize(path), int(data_mib) * MIB // 12
    with open(path, "r+b") as file:
        while left > 0:
            run = min(left, BLOCK * int(2 ** generator.uniform(0, 10)))
            offset = BLOCK * generator.randrange((length - run) // BLOCK)
            file.seek(offset)
            # Half of it compresses to nothing much, as half of a disk does.
            file.write(generator.randbytes(run // 2) + b"changed\n" * ((run - run // 2) // 8))
            ranges.append([offset, run])
            left -= run
        os.fsync(file.fileno())
    print(json.dumps(ranges))


def small_content(generator, number):
    """Mostly a few hundred bytes of text, sometimes nothing, sometimes some kilobytes."""
    size = min(16384, int(2 ** generator.gauss(9, 1.5)))
    text = "".join(f"{name} = {generator.getrandbits(32)}\n" for name in ("number", "owner", "checksum"))
    return (f"file {number}\n{text}" * (size // 64 + 1)).encode()[: size if number % 100 else 0]


def file_path(root, number):
    return os.path.join(root, f"{number // 100000:02}", f"{number // 1000 % 100:02}", f"file-{number}.conf")


def files(root, count):
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


def change_files(root, count):
    """One in a hundred is written anew, one in a thousand is removed, one in a thousand is added."""
    generator, count = random.Random(3), int(count)
    for number in range(0, count, 100):
        with open(file_path(root, number), "wb") as file:
            file.write(small_content(generator, number + 1))
    for number in range(500, count, 1000):
        os.remove(file_path(root, number))
        with open(file_path(root, number) + ".new", "wb") as file:
            file.write(small_content(generator, number + 1))


def same(one, two):
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


def measure(result, *command):
    """Runs a command; writes its seconds by the wall and its peak memory in MiB."""
    started = time.monotonic()
    process = os.posix_spawnp(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
    _, status, usage = os.wait4(process, 0)
    seconds = time.monotonic() - started
    if status != 0:
        sys.exit(f"{' '.join(command)}: status {os.waitstatus_to_exitcode(status)}")
    with open(result, "w", encoding="ascii") as file:
        file.write(f"{seconds:.2f} {usage.ru_maxrss / 1024:.0f}\n")


COMMANDS = {
    "image": image,
    "change-image": change_image,
    "files": files,
    "change-files": change_files,
    "same": same,
    "measure": measure,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
