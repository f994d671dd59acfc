#!/usr/bin/env bash
# Large inputs through the `backup` command, and through rustic where it is on PATH: a sparse disk image and many
# small files are backed up, changed, backed up again, verified, restored and compared. Prints a Markdown table of
# seconds, peak memory and repository size; fails where anything differs or memory exceeds its limit.
#
#   scripts/scale.sh                                            # 6 GiB image, a million files: about 15 GB of disk
#   IMAGE_MIB=600 DATA_MIB=150 FILES=20000 scripts/scale.sh     # less than a minute
#
# SCALE_DIR  where to work (default: a new directory below TMPDIR); removed at the end unless KEEP is set
# BACKUP     the binary (default: built from here)
# TOOLS      which tools run (default: "backup rustic")
# LIMIT_MIB  peak memory that backup may take (default: 256)
set -euo pipefail
cd "$(dirname "$0")/.."

image_mib=${IMAGE_MIB:-6144} data_mib=${DATA_MIB:-1536} files=${FILES:-1000000} limit_mib=${LIMIT_MIB:-256}
tools=${TOOLS:-backup rustic}
backup=${BACKUP:-}
if [ -z "$backup" ]; then
    cargo build --release --package backup-cli
    backup=${CARGO_TARGET_DIR:-target}/release/backup
fi
backup=$(realpath "$backup")
inputs=$PWD/scripts/scale.py
mkdir -p "${SCALE_DIR:-${TMPDIR:-/tmp}}"
work=$(mktemp -d "${SCALE_DIR:-${TMPDIR:-/tmp}}/backup-scale-XXXXXX")
table=$work/table.md
cleanup() { [ -n "${KEEP:-}" ] || rm -rf "$work"; }
trap cleanup EXIT

echo "a password for a measurement" > "$work/password"
export BACKUP_PASSWORD_FILE=$work/password RUSTIC_PASSWORD_FILE=$work/password
export RUSTIC_CACHE_DIR=$work/rustic-cache RUSTIC_NO_PROGRESS=true RUSTIC_LOG_LEVEL=warn
chmod 600 "$work/password"

say() { echo "== $*" >&2; }

# measure TOOL STEP REPOSITORY COMMAND...: a line of the table. Nothing that was written before is still on its way.
measure() {
    local tool=$1 step=$2 repository=$3 seconds peak size
    shift 3
    say "$tool: $step"
    sync
    python3 "$inputs" measure "$work/measured" "$@"
    read -r seconds peak < "$work/measured"
    size=$(du -sb --apparent-size "$repository" | cut -f1)
    echo "| $step | $tool | $seconds | $peak | $((size / 1000000)) |" >> "$table"
    if [ "$tool" = backup ] && [ "${peak%.*}" -ge "$limit_mib" ]; then
        say "FAILED: $step took $peak MiB of memory, and the limit is $limit_mib MiB"
        failed=1
    fi
}
failed=

has() {
    case " $tools " in *" $1 "*) [ "$1" = backup ] || command -v "$1" > /dev/null ;; *) return 1 ;; esac
}

same_image() {
    cmp "$work/image/disk.img" "$1"
    local before after
    before=$(stat -c %b "$work/image/disk.img") after=$(stat -c %b "$1")
    say "image: the same; allocated $((before / 2048)) MiB, restored $((after / 2048)) MiB"
    # A mebibyte a thousand is room for what the file system needs itself.
    if [ "$2" = sparse ] && [ "$after" -gt $((before + before / 1000 + 2048)) ]; then
        say "FAILED: the restored image has lost holes"
        failed=1
    fi
}

say "image: $image_mib MiB with $data_mib MiB of data; $files files"
python3 "$inputs" image "$work/image/disk.img" "$image_mib" "$data_mib"
python3 "$inputs" files "$work/files" "$files"

for tool in backup rustic; do
    has "$tool" || continue
    for input in image files; do
        repository=$work/$tool-$input
        if [ "$tool" = backup ]; then
            "$backup" --quiet --repo "$repository" init
        else
            rustic --repository "$repository" init > "$work/output"
        fi
    done
done

back_up() {
    local step=$1
    if has backup; then
        measure backup "image, $step" "$work/backup-image" \
            "$backup" --quiet --repo "$work/backup-image" create --host scale --image "$work/image/disk.img" --as disk.img
        measure backup "files, $step" "$work/backup-files" \
            "$backup" --quiet --repo "$work/backup-files" create --host scale "$work/files"
    fi
    if has rustic; then
        measure rustic "image, $step" "$work/rustic-image" \
            rustic --repository "$work/rustic-image" backup --host scale "$work/image"
        measure rustic "files, $step" "$work/rustic-files" \
            rustic --repository "$work/rustic-files" backup --host scale "$work/files"
    fi
}

back_up first
python3 "$inputs" change-image "$work/image/disk.img" "$data_mib" 1 > "$work/changed-ranges.json"
python3 "$inputs" change-files "$work/files" "$files"
back_up "next day"

if has backup; then
    python3 "$inputs" change-image "$work/image/disk.img" "$data_mib" 2 > "$work/changed-ranges.json"
    parent=$("$backup" --repo "$work/backup-image" --json list | python3 -c 'import json, sys
print(json.load(sys.stdin)["backups"][-1]["id"])')
    measure backup "image, next day with a change map" "$work/backup-image" \
        "$backup" --quiet --repo "$work/backup-image" create --host scale --parent "$parent" \
        --image "$work/image/disk.img" --as disk.img --changed-ranges "$work/changed-ranges.json"
    for input in image files; do
        measure backup "$input, verify content" "$work/backup-$input" \
            "$backup" --quiet --repo "$work/backup-$input" verify --level content
    done
    measure backup "image, restore" "$work/backup-image" \
        "$backup" --quiet --repo "$work/backup-image" restore latest --entry disk.img --to "$work/restored.img"
    same_image "$work/restored.img" sparse
    rm "$work/restored.img"
    measure backup "files, restore" "$work/backup-files" \
        "$backup" --quiet --repo "$work/backup-files" restore latest --to "$work/restored"
    python3 "$inputs" same "$work/files" "$work/restored/${work#/}/files"
    rm -rf "$work/restored"
fi
if has rustic; then
    # It has seen the image of the day before.
    rustic --repository "$work/rustic-image" backup --host scale "$work/image" > "$work/output" 2>&1
    for input in image files; do
        measure rustic "$input, verify content" "$work/rustic-$input" \
            rustic --repository "$work/rustic-$input" check --read-data
        measure rustic "$input, restore" "$work/rustic-$input" \
            rustic --repository "$work/rustic-$input" restore "latest:$work/$input" "$work/restored" --sparse by-content
        if [ "$input" = image ]; then
            same_image "$work/restored/disk.img" any
        else
            python3 "$inputs" same "$work/files" "$work/restored"
        fi
        rm -rf "$work/restored"
    done
fi

echo
echo "| step | tool | seconds | peak memory, MiB | repository after it, MB |"
echo "| --- | --- | ---: | ---: | ---: |"
sort -t '|' -k2,2 -s "$table"
echo
echo "Image of $image_mib MiB with $data_mib MiB of data, $files files; $(nproc) cores, $(uname -sm)."
echo "$("$backup" --version); $(has rustic && rustic --version || echo "no rustic")."
[ -z "$failed" ] || exit 1
