"""docs/format.md, steps 8 and 9 of "Reading a backup, step by step": entries become files below a directory.

Streams and disk images become files too. Nothing is written outside of the directory: it is empty in the
beginning, every component below it is made here and opened without following links, and files are only
ever created, never opened.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .cbor import U32
from .entries import BLOCK_DEVICE, CHARACTER_DEVICE, DIRECTORY, FIFO, SYMLINK, Entry, content
from .errors import Damaged, Rejected, shown
from .packs import Chunks
from .pages import Hole

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SET_ID = stat.S_ISUID | stat.S_ISGID
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Target:
    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        if any(directory.iterdir()):
            raise FileExistsError(f"{directory} is not empty")
        self._root = os.open(directory, _DIRECTORY_FLAGS)
        # What could not be restored, or not as it was. Other entries are restored nevertheless.
        self.problems: list[str] = []

    def restore(self, entries: Iterable[Entry], chunks: Chunks) -> None:
        links: list[Entry] = []
        directories: list[Entry] = []
        try:
            for entry in entries:
                if entry.hard_link is not None:
                    links.append(entry)
                    continue
                with self._reported(entry):
                    self._create(entry, chunks)
                    if entry.kind == DIRECTORY:
                        directories.append(entry)
                    else:
                        self._set_attributes(entry)
        except Rejected as error:
            # The catalogue itself ends here.
            self.problems.append(str(error))
        for entry in links:
            with self._reported(entry):
                self._link(entry)
        # Last, and from the inside out: what is made in a directory changes its time.
        for entry in reversed(directories):
            with self._reported(entry):
                self._set_attributes(entry)
        os.close(self._root)

    @contextmanager
    def _reported(self, entry: Entry) -> Iterator[None]:
        try:
            yield
        except Rejected as error:
            self.problems.append(str(error))
        except OSError as error:
            self.problems.append(f"{entry.place}: {error.strerror}")

    @contextmanager
    def _parent(self, place: str, path: bytes, make: bool = False) -> Iterator[tuple[int, bytes]]:
        """The directory that a path lies in, and the last component. Not every directory has an entry."""
        *above, name = path.split(b"/")
        parent = os.dup(self._root)
        try:
            for component in above:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(component, 0o700, dir_fd=parent)
                try:
                    child = os.open(component, _DIRECTORY_FLAGS, dir_fd=parent)
                except OSError:
                    raise Damaged(place, f"{shown(component)}, which it lies in, is no directory") from None
                os.close(parent)
                parent = child
            yield parent, name
        finally:
            os.close(parent)

    def _create(self, entry: Entry, chunks: Chunks) -> None:
        with self._parent(entry.place, entry.path, make=True) as (parent, name):
            if entry.kind == DIRECTORY:
                os.mkdir(name, 0o700, dir_fd=parent)
            elif entry.kind == SYMLINK:
                os.symlink(entry.target or b"", name, dir_fd=parent)
            elif entry.kind == FIFO:
                os.mkfifo(name, 0o600, dir_fd=parent)
            elif entry.kind in (CHARACTER_DEVICE, BLOCK_DEVICE):
                major, minor = entry.device or (0, 0)
                file_type = stat.S_IFCHR if entry.kind == CHARACTER_DEVICE else stat.S_IFBLK
                os.mknod(name, 0o600 | file_type, os.makedev(major, minor), dir_fd=parent)
            else:
                self._write(entry, chunks, parent, name)

    def _write(self, entry: Entry, chunks: Chunks, parent: int, name: bytes) -> None:
        descriptor = os.open(name, _FILE_FLAGS, 0o600, dir_fd=parent)
        try:
            with open(descriptor, "wb") as file:
                for part in content(chunks, entry):
                    if isinstance(part, Hole):
                        file.seek(part.length, os.SEEK_CUR)
                    else:
                        file.write(part)
                file.truncate(entry.length)
        except BaseException:
            # Half of a content must not be taken for the whole.
            os.unlink(name, dir_fd=parent)
            raise

    def _link(self, entry: Entry) -> None:
        source = entry.hard_link or b""
        with (
            self._parent(entry.place, source) as (source_parent, source_name),
            self._parent(entry.place, entry.path, make=True) as (parent, name),
        ):
            os.link(source_name, name, src_dir_fd=source_parent, dst_dir_fd=parent, follow_symlinks=False)

    def _set_attributes(self, entry: Entry) -> None:
        """In the order of step 9. What cannot be set does not keep the rest from being set."""
        with self._parent(entry.place, entry.path) as (parent, name):
            if os.geteuid() == 0:
                with self._reported(entry):
                    os.chown(name, _owner(entry.uid), _owner(entry.gid), dir_fd=parent, follow_symlinks=False)
            path = b"/proc/self/fd/%d/%s" % (parent, name)
            for attribute, value in entry.extended:
                with self._reported(entry):
                    os.setxattr(path, attribute, value, follow_symlinks=False)
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if entry.mode is not None and entry.kind != SYMLINK:
                owned = entry.uid in (None, status.st_uid) and entry.gid in (None, status.st_gid)
                os.chmod(name, entry.mode if owned else entry.mode & ~_SET_ID, dir_fd=parent)
            if entry.modified is not None:
                seconds, nanoseconds = entry.modified
                times = (status.st_atime_ns, seconds * 10**9 + nanoseconds)
                os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)


def _owner(number: int | None) -> int:
    """-1 leaves an owner as it is, and so does the highest number, which belongs to nobody."""
    return -1 if number is None or number == U32 else number
