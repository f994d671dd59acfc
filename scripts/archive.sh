#!/bin/sh
# Archives of 1 GiB, damaged in every way that the default profile promises to mend and in some that it does not (docs/testing.md,
# "Archives"). BACKUP_BINARY names the command; SEED=N repeats a run; SIZE=N makes it N MiB.
set -eu
cd "$(dirname "$0")/.."
binary=${BACKUP_BINARY:-target/release/backup}
[ -x "$binary" ] || { echo "no $binary: cargo build --release -p backup-cli" >&2; exit 1; }
binary=$(realpath "$binary")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
exec python3 scripts/archive.py "$binary" "$work" "${SEED:-1}" "${SIZE:-1024}"
