#!/bin/sh
# The reference reader in Python against the vectors, and against repositories that the command makes.
# BACKUP_BINARY names the command; without it, the newer one in target/.
set -eu
cd "$(dirname "$0")/.."
python=${VECTORS_PYTHON:-python3}
export PYTHONPATH="$PWD/backup-core/tests" PYTHONDONTWRITEBYTECODE=1

skip() {
    if [ -n "${CI:-}" ]; then
        echo "$1, and with CI set a skip is a failure" >&2
        exit 1
    fi
    echo "SKIPPED: $1" >&2
}

check() {
    "$python" -m "reference.checks.$@"
}

if ! "$python" -c 'import sys, cryptography, argon2, blake3, zstandard; assert sys.version_info >= (3, 11)' 2>/dev/null; then
    skip "the reference reader: it needs Python 3.11 and the modules cryptography, argon2-cffi, blake3 and zstandard"
    exit 0
fi
check vectors
check golden
check hostile
check archives

target=${CARGO_TARGET_DIR:-target}
binary=${BACKUP_BINARY:-$(ls -t "$target/release/backup" "$target/debug/backup" 2>/dev/null | head -n 1)}
if [ -z "$binary" ]; then
    skip "the reference reader against the command: cargo build --release -p backup-cli"
    exit 0
fi
check command "$binary"
check protocol "$binary"
