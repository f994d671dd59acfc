#!/usr/bin/env bash
# A million small files through the `backup` command, and through rustic where it is on PATH: they are backed up, changed,
# backed up again, verified, restored and compared. Prints a Markdown table of seconds, peak memory and repository size;
# fails where anything differs or memory exceeds its limit. Disk images and dumps: `backup-bench compare`.
#
#   scripts/scale.sh                  # about 10 GB of disk
#   FILES=20000 scripts/scale.sh      # less than a minute
#
# SCALE_DIR  where to work (default: a new directory below TMPDIR); removed at the end unless KEEP is set
# BACKUP     the binary (default: built from here)
# TOOLS      which tools run (default: "backup rustic")
# LIMIT_MIB  peak memory that backup may take (default: 256)
set -euo pipefail
cd "$(dirname "$0")/.."

files=${FILES:-1000000} limit_mib=${LIMIT_MIB:-256}
tools=${TOOLS:-backup rustic}
cargo build --release --package backup-cli --package backup-bench
target=${CARGO_TARGET_DIR:-target}/release
backup=$(realpath "${BACKUP:-$target/backup}")
bench=$(realpath "$target/backup-bench")
inputs=$PWD/scripts/scale.py
mkdir -p "${SCALE_DIR:-${TMPDIR:-/tmp}}"
work=$(mktemp -d "${SCALE_DIR:-${TMPDIR:-/tmp}}/backup-scale-XXXXXX")
table=$work/table.md
cleanup() { [ -n "${KEEP:-}" ] || rm -rf "$work"; }
trap cleanup EXIT

echo "a password for a measurement" > "$work/password"
export BACKUP_PASSWORD_FILE=$work/password RUSTIC_PASSWORD_FILE=$work/password
export RUSTIC_NO_CACHE=true RUSTIC_NO_PROGRESS=true RUSTIC_LOG_LEVEL=warn
chmod 600 "$work/password"

say() { echo "== $*" >&2; }

# measure TOOL STEP COMMAND...: a line of the table. Nothing that was written before is still on its way.
measure() {
    local tool=$1 step=$2 seconds peak size
    shift 2
    say "$tool: $step"
    sync
    "$bench" measured "$work/cost.json" -- "$@" >&2
    read -r seconds peak < <(python3 -c 'import json, sys
cost = json.load(open(sys.argv[1]))
print("%.2f %d" % (cost["wall"], cost["peak"] >> 20))' "$work/cost.json")
    size=$(du -sb --apparent-size "$work/$tool" | cut -f1)
    echo "| $step | $tool | $seconds | $peak | $((size / 1000000)) |" >> "$table"
    if [ "$tool" = backup ] && [ "$peak" -ge "$limit_mib" ]; then
        say "FAILED: $step took $peak MiB of memory, and the limit is $limit_mib MiB"
        failed=1
    fi
}
failed=

has() {
    case " $tools " in *" $1 "*) [ "$1" = backup ] || command -v "$1" > /dev/null ;; *) return 1 ;; esac
}
has rustic || say "SKIPPED: rustic is not on PATH, or not asked for"

say "$files files"
python3 "$inputs" files "$work/files" "$files"
if has backup; then "$backup" --quiet --repo "$work/backup" init; fi
if has rustic; then rustic --repository "$work/rustic" init > "$work/output"; fi

back_up() {
    if has backup; then
        measure backup "$1" "$backup" --quiet --repo "$work/backup" create --host scale "$work/files"
    fi
    if has rustic; then
        measure rustic "$1" rustic --repository "$work/rustic" backup --host scale "$work/files"
    fi
}

back_up first
python3 "$inputs" change-files "$work/files" "$files"
back_up "next day"
if has backup; then
    measure backup "verify content" "$backup" --quiet --repo "$work/backup" verify --level content
    measure backup restore "$backup" --quiet --repo "$work/backup" restore latest --to "$work/restored"
    python3 "$inputs" same "$work/files" "$work/restored/${work#/}/files"
    rm -rf "$work/restored"
fi
if has rustic; then
    measure rustic "verify content" rustic --repository "$work/rustic" check --read-data
    measure rustic restore rustic --repository "$work/rustic" restore "latest:$work/files" "$work/restored"
    python3 "$inputs" same "$work/files" "$work/restored"
    rm -rf "$work/restored"
fi

echo
echo "| step | tool | seconds | peak memory, MiB | repository after it, MB |"
echo "| --- | --- | ---: | ---: | ---: |"
sort -t '|' -k2,2 -s "$table"
echo
echo "$files files; $(nproc) cores, $(uname -sm). $("$backup" --version); $(has rustic && rustic --version || echo "no rustic")."
[ -z "$failed" ] || exit 1
