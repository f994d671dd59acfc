"""Damages archives and lets the command repair them: see scripts/archive.sh."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

BLOCK = 65536
MIB = 2**20
PASSWORD = "campaign"


def run(binary: str, *arguments: str | Path, expect: tuple[int, ...] = (0,)) -> dict[str, object]:
    command = [binary, "--json", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in expect, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout) if done.stdout else {}


def same(one: Path, other: Path) -> bool:
    return subprocess.run(["cmp", "-s", one, other], check=False).returncode == 0


def zero(file: Path, offset: int, length: int) -> None:
    with file.open("r+b") as out:
        out.seek(offset)
        out.write(bytes(min(length, file.stat().st_size - offset)))


def some_blocks(file: Path, share: float, chosen: random.Random) -> None:
    with file.open("r+b") as out:
        for number in range(file.stat().st_size // BLOCK):
            if chosen.random() < share:
                out.seek(number * BLOCK + chosen.randrange(BLOCK - 64))
                out.write(chosen.randbytes(64))


def rewrite(file: Path, change: Callable[[bytearray], bytes | bytearray]) -> None:
    file.write_bytes(change(bytearray(file.read_bytes())))


def main() -> int:
    binary, work, seed, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    chosen = random.Random(seed)
    repository, archive, damaged, repaired = (work / name for name in ("repository", "archive", "damaged", "repaired"))
    secret = work / "password"
    secret.write_text(PASSWORD, encoding="utf-8")
    secret.chmod(0o600)
    image = work / "image"
    with image.open("wb") as out:
        for _ in range(size):
            out.write(chosen.randbytes(MIB))
    os.environ.update(BACKUP_REPO=str(repository), BACKUP_PASSWORD_FILE=str(secret))
    run(binary, "init", "--kdf-memory", "64M", "--kdf-iterations", "1")
    run(binary, "create", "--image", image)
    del os.environ["BACKUP_PASSWORD_FILE"]
    begin = time.monotonic()
    run(binary, "export", "--to", archive)
    length = archive.stat().st_size
    print(f"exported {length / MIB:.0f} MiB in {time.monotonic() - begin:.1f} s")
    print("| damage | lost blocks | mended | exact | seconds |")
    print("| --- | ---: | ---: | --- | ---: |")

    def insert(data: bytearray) -> bytearray:
        for _ in range(20):
            at = chosen.randrange(len(data))
            data[at:at] = chosen.randbytes(chosen.randrange(1, 5000))
        return data

    def delete(data: bytearray) -> bytearray:
        for _ in range(20):
            at = chosen.randrange(len(data) - 5000)
            del data[at : at + chosen.randrange(1, 5000)]
        return data

    somewhere = chosen.randrange(length - 8 * MIB)
    promised: list[tuple[str, Callable[[Path], object]]] = [
        ("none", lambda file: None),
        ("first 8 MiB zeroed", lambda file: zero(file, 0, 8 * MIB)),
        ("last 8 MiB zeroed", lambda file: zero(file, length - 8 * MIB, 8 * MIB)),
        ("8 MiB zeroed somewhere", lambda file: zero(file, somewhere, 8 * MIB)),
        ("0.1 % of all blocks overwritten in part", lambda file: some_blocks(file, 0.001, chosen)),
        ("bytes inserted at 20 places", lambda file: rewrite(file, insert)),
        ("bytes deleted at 20 places", lambda file: rewrite(file, delete)),
        ("the last 8 MiB cut off", lambda file: os.truncate(file, length - 8 * MIB)),
        ("the first 8 MiB cut off", lambda file: rewrite(file, lambda data: data[8 * MIB :])),
        (
            "garbage in front and behind",
            lambda file: rewrite(file, lambda data: chosen.randbytes(100_001) + data + chosen.randbytes(MIB)),
        ),
    ]
    for name, damage in promised:
        subprocess.run(["cp", "--reflink=auto", archive, damaged], check=True)
        damage(damaged)
        begin = time.monotonic()
        report = run(binary, "repair", damaged, "--to", repaired)
        seconds = time.monotonic() - begin
        assert report["exact"] and same(repaired, archive), f"{name} (SEED={seed}): {report}"
        print(f"| {name} | {report['lost_blocks']} | {report['mended_blocks']} | yes | {seconds:.1f} |", flush=True)
        repaired.unlink()

    os.environ["BACKUP_PASSWORD_FILE"] = str(secret)
    subprocess.run(["cp", archive, damaged], check=True)
    zero(damaged, somewhere, 8 * MIB)
    begin = time.monotonic()
    run(binary, "restore", "-r", damaged, "latest", "--entry", "image", "--to", work / "restored")
    assert same(work / "restored", image), "restored from a damaged archive"
    print(f"restored from an archive with 8 MiB zeroed in {time.monotonic() - begin:.1f} s, without a repair")
    (work / "restored").unlink()

    # Beyond the promise: what is lost is named, and the rest is whole.
    zero(damaged, somewhere, 24 * MIB)
    begin = time.monotonic()
    report = run(binary, "repair", damaged, "--to", repaired, expect=(3,))
    lost = report["lost_objects"]
    assert isinstance(lost, list) and lost and not report["exact"]
    found = run(binary, "verify", "-r", repaired, "--level", "bytes", expect=(3,))["findings"]
    assert isinstance(found, list) and sorted(one["object"] for one in found) == sorted(lost), (found, lost)
    seconds, said = time.monotonic() - begin, f"no, {len(lost)} objects lost and named"
    print(f"| 24 MiB zeroed | {report['lost_blocks']} | {report['mended_blocks']} | {said} | {seconds:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
