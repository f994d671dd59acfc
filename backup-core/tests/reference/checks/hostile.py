"""Every hostile state of the golden repository is refused, and the object named that is wrong."""

import json
import shutil
import tempfile
from itertools import permutations
from pathlib import Path
from typing import Any

from ..entries import content
from ..errors import Rejected
from ..repository import Repository
from ..verify import Verification
from .golden import GOLDEN, VECTORS, password

# What a reader may call what the vectors expect. It does not tell apart what it need not: a finding of a verification
# from an error, what is missing from what is damaged, parameters that Argon2 does not have from a damaged slot.
DAMAGED = {"damaged", "not-found", "limit-exceeded"}
KINDS = dict.fromkeys(("damaged", "bytes", "record", "structure", "chunk", "size", "history"), DAMAGED) | {
    "missing": {"not-found"},
    "invalid-argument": {"damaged"},
    "wrong-password": {"wrong-password", "damaged"},
}


def is_not_read(state: dict[str, Any]) -> bool:
    """Marks matter to writers alone, and slots to nobody who has opened the repository."""
    place: str = state["object"]
    return state["operation"] == "verify" and (place.startswith("keys/") or place.endswith("/mark"))


def names(finding: Rejected, place: str) -> bool:
    """Whether it is about that place. Of pages, chunks and paths it may name the object that they stand in."""
    if place.startswith("packs/"):
        # One that a closure lacks is missing in the closure.
        holders: tuple[str, ...] = ("closures/",)
    else:
        holders = () if "/" in place or place == "config" else ("bodies/", "packs/")
    return place == finding.place or place in str(finding) or finding.place.startswith(holders)


def change(repository: Path, objects: dict[str, Any]) -> None:
    """As README.md of the vectors says."""
    for key, edit in objects.items():
        path = repository / key
        if edit is None:
            path.unlink()
        elif "length" in edit:
            path.write_bytes(path.read_bytes()[: edit["length"]].ljust(edit["length"], b"\0"))
        elif "at" in edit:
            data, new = bytearray(path.read_bytes()), bytes.fromhex(edit["hex"])
            data[edit["at"] : edit["at"] + len(new)] = new
            path.write_bytes(data)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes.fromhex(edit["hex"]))


def found_by(operation: str, directory: Path) -> list[Rejected]:
    """What the operation says against the repository."""
    try:
        repository = Repository(directory, password())
        if operation == "open":
            return []
        if operation == "verify":
            return Verification(repository).run()
        history = repository.history()
        findings = list(history.findings)
        chunks = repository.chunks(history)
        findings += chunks.findings
    except Rejected as error:
        return [error]
    refused = []
    for commit in history.backups():
        try:
            body = repository.body(commit)
            if operation == "restore":
                for entry in repository.entries(body, chunks):
                    for _ in content(chunks, entry):
                        pass
        except Rejected as error:
            refused.append(error)
    if operation == "restore" and refused:
        # A pack that lists a chunk under another id is not where the chunk is looked for: the restore says which
        # entry lacks a chunk, and the verification which pack is wrong.
        findings += Verification(repository).run()
    return refused + findings if refused or operation == "list" else []


def check_swapped() -> int:
    """Objects that are genuine and stand under the name of another, which only their hash tells."""
    swapped = 0
    for folder in ("bodies", "closures", "index", "packs"):
        objects = sorted(path for path in (GOLDEN / folder).rglob("*") if path.is_file())
        for one, other in permutations(objects, 2):
            with tempfile.TemporaryDirectory() as place:
                repository = Path(place) / "repository"
                shutil.copytree(GOLDEN, repository)
                key = one.relative_to(GOLDEN).as_posix()
                (repository / key).write_bytes(other.read_bytes())
                findings = found_by("verify", repository)
            assert any(finding.place == key and finding.kind == "damaged" for finding in findings), (
                f"{key} with the bytes of {other.name}: {[str(finding) for finding in findings]}"
            )
            swapped += 1
    return swapped


def check_tolerated() -> int:
    """What is unusual and right is read, with the backups that the state names."""
    states = sorted((VECTORS / "tolerated").glob("*.json"))
    assert states, "no unusual states"
    for path in states:
        state = json.loads(path.read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as place:
            repository = Path(place) / "repository"
            shutil.copytree(GOLDEN, repository)
            change(repository, state["objects"])
            for operation in ("open", "list", "restore", "verify"):
                findings = found_by(operation, repository)
                assert not findings, f"{path.name}: {operation}: {[str(finding) for finding in findings]}"
            backups = Repository(repository, password()).history().backups()
            assert [commit.backup.hex() for commit in backups] == state["backups"], path.name
    return len(states)


def main() -> None:
    for operation in ("open", "list", "restore", "verify"):
        findings = found_by(operation, GOLDEN)
        assert not findings, f"the golden repository itself: {[str(finding) for finding in findings]}"
    states = sorted((VECTORS / "hostile").glob("*.json"))
    assert states, "no hostile states"
    refused = 0
    for path in states:
        state = json.loads(path.read_text(encoding="utf-8"))
        if is_not_read(state):
            continue
        refused += 1
        with tempfile.TemporaryDirectory() as place:
            repository = Path(place) / "repository"
            shutil.copytree(GOLDEN, repository)
            change(repository, state["objects"])
            findings = found_by(state["operation"], repository)
        wanted = KINDS.get(state["expect"], {state["expect"]})
        assert any(names(finding, state["object"]) and finding.kind in wanted for finding in findings), (
            f"{path.name}: {state['rule']}: {wanted} {state['object']} expected, "
            f"found {[f'{finding.kind} {finding}' for finding in findings]}"
        )
    swapped = check_swapped()
    print(f"{refused} hostile states and {swapped} swapped objects refused, each with its object named")
    print(f"{check_tolerated()} unusual states read")


if __name__ == "__main__":
    main()
