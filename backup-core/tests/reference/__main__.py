"""The command line: `python3 -m reference REPOSITORY --password-file FILE COMMAND`. Read only."""

import argparse
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from .entries import KIND_NAMES, Entry
from .errors import Rejected, shown
from .repository import Repository, find_backup
from .restore import Target
from .slots import Credential, Password, parse_recovery_key
from .storage import GIB, MIB
from .verify import Verification

FAILURE, DAMAGED = 1, 3


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m reference", description="Read a backup repository.")
    parser.add_argument("repository", type=Path, help="directory with the objects under their storage keys")
    opener = parser.add_mutually_exclusive_group(required=True)
    opener.add_argument("--password-file", type=Path, help="one newline at its end is not part of the password")
    opener.add_argument("--recovery-key-file", type=Path)
    parser.add_argument("--key-file", type=Path, help="second secret beside the password")
    parser.add_argument("--memory", type=int, default=GIB // MIB, help="MiB that Argon2id may use; at most 1024")
    parser.add_argument("--without-index", action="store_true", help="find chunks by the directories of packs")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the backups, oldest first")
    entries = commands.add_parser("entries", help="list the entries of a backup")
    entries.add_argument("backup", help="beginning of its id, or `latest`")
    restore = commands.add_parser("restore", help="restore all of a backup")
    restore.add_argument("backup", help="beginning of its id, or `latest`")
    restore.add_argument("directory", type=Path, help="new or empty directory")
    commands.add_parser("verify", help="check everything")
    return parser.parse_args()


def credential(options: argparse.Namespace) -> Credential:
    if options.recovery_key_file is not None:
        return parse_recovery_key(options.recovery_key_file.read_text(encoding="utf-8"))
    password = options.password_file.read_bytes().removesuffix(b"\n")
    key_file = b"" if options.key_file is None else options.key_file.read_bytes()
    return Password(password, key_file, options.memory * MIB)


def time_text(time: tuple[int, int]) -> str:
    seconds, nanoseconds = time
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def print_entry(entry: Entry) -> None:
    mode = "-" if entry.mode is None else f"{entry.mode:04o}"
    modified = "-" if entry.modified is None else time_text(entry.modified)
    suffix = "" if entry.target is None else f" -> {shown(entry.target)}"
    suffix += "" if entry.hard_link is None else f" = {shown(entry.hard_link)}"
    print(f"{KIND_NAMES[entry.kind]:16} {mode:4} {entry.length:12} {modified:30} {shown(entry.path)}{suffix}")


def run(options: argparse.Namespace) -> list[str]:
    """What is wrong, beside what keeps the command from being done."""
    repository = Repository(options.repository, credential(options))
    if options.command == "verify":
        return [str(finding) for finding in Verification(repository).run()]
    history = repository.history()
    problems = [str(finding) for finding in history.findings]
    if options.command == "list":
        for commit in history.backups():
            try:
                body = repository.body(commit)
            except Rejected as error:
                problems.append(str(error))
                continue
            complete = "complete" if body.problem_count == 0 else f"{body.problem_count} problems"
            print(f"{commit.backup.hex()} {time_text(body.finished)} {body.kind} {body.entries} entries, {complete}")
        return problems
    commit = find_backup(history, options.backup)
    body = repository.body(commit)
    chunks = repository.chunks(history, options.without_index)
    problems += [str(finding) for finding in chunks.findings]
    entries = repository.entries(body, chunks)
    if options.command == "entries":
        for entry in entries:
            print_entry(entry)
        return problems
    target = Target(options.directory)
    target.restore(entries, chunks)
    return problems + target.problems


def main() -> int:
    try:
        problems = run(arguments())
    except (Rejected, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILURE
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    return DAMAGED if problems else 0


if __name__ == "__main__":
    sys.exit(main())
