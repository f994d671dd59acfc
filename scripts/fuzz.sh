#!/usr/bin/env bash
# Fuzzes what reads untrusted bytes: scripts/fuzz.sh [SECONDS] [TARGET...]
#
# Every target (all of fuzz/fuzz_targets where none is named) runs SECONDS seconds (600), FUZZ_JOBS (2) at a time, from
# the committed corpus; what it finds worth keeping stays in fuzz/corpus. Prints a table of what was run. Fails where a
# target found something: fuzz/artifacts/TARGET has the input.
#
# Needs a nightly compiler and cargo-fuzz (cargo install cargo-fuzz). FUZZ_NICE (15) is the priority of the targets.
# FUZZ_BINARIES names a directory with targets that were built before. FUZZ_MINIMIZE=1 writes what is needed of the corpora
# back into the committed ones.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds="${1:-600}"
[ $# -eq 0 ] || shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cd fuzz/fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')

triple="$(rustc +nightly -vV | sed -n 's/^host: //p')"
binaries="${FUZZ_BINARIES:-}"
if [ -z "$binaries" ]; then
    cargo +nightly fuzz build
    binaries="fuzz/target/$triple/release"
fi

committed() {
    case "$1" in
        command_line) echo "backup-cli/tests/corpus/$1" ;;
        storage_url) echo "backup-adapters/tests/corpus/$1" ;;
        *) echo "backup-core/tests/corpus/$1" ;;
    esac
}

# Long enough for what a target has to see: an object of a few frames, a pack of some chunks.
longest() {
    case "$1" in
        sealed_object) echo 16400 ;;
        index_segment | pack | decompress) echo 8192 ;;
        repository) echo 160 ;;
        key_slot) echo 300 ;;
        *) echo 4096 ;;
    esac
}

# The threads that derive keys from passwords stay (docs/design.md, "Threads"). What the C library keeps for them has been
# taken for a leak; it was none of this program's memory, and the input did not do it again.
leaks() {
    [ "$1" = repository ] && echo 0 || echo 1
}

run() {
    target="$1"
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target" fuzz/logs "$(committed "$target")"
    # No piece of memory beyond twice the longest chunk, whatever a few bytes say.
    TIMEFORMAT=%U
    { time nice -n "${FUZZ_NICE:-15}" "$binaries/$target" "fuzz/corpus/$target" "$(committed "$target")" \
        -max_total_time="$seconds" -max_len="$(longest "$target")" -timeout=30 \
        -rss_limit_mb=2048 -malloc_limit_mb=64 -print_final_stats=1 -detect_leaks="$(leaks "$target")" \
        -artifact_prefix="fuzz/artifacts/$target/" >"fuzz/logs/$target.log" 2>&1 && result=nothing || result=FOUND; } 2>"fuzz/logs/$target.time"
    cpu="$(tail -n 1 "fuzz/logs/$target.time")"
    executions="$(sed -n 's/^stat::number_of_executed_units: *//p' "fuzz/logs/$target.log")"
    coverage="$(sed -n 's/^#[0-9]*.* cov: \([0-9]*\) .*/\1/p' "fuzz/logs/$target.log" | tail -n 1)"
    printf '| `%s` | %s | %s | %s | %s | %s | %s |\n' "$target" "$seconds" "${cpu%.*}" "${executions:-?}" \
        "${coverage:-?}" "$(date -u +%F)" "$result"
    [ "$result" = nothing ]
}

minimize() {
    target="$1"
    new="$(mktemp -d)"
    # What reaches all that was reached, without how often: small enough to be committed.
    "$binaries/$target" -merge=1 -set_cover_merge=1 -use_counters=0 -rss_limit_mb=2048 -max_len="$(longest "$target")" \
        "$new" "$(committed "$target")" "fuzz/corpus/$target" >"fuzz/logs/$target.merge.log" 2>&1
    rm -rf "$(committed "$target")"
    mkdir -p "$(committed "$target")"
    for file in "$new"/*; do
        cp "$file" "$(committed "$target")/$(sha256sum "$file" | cut -c 1-16)"
    done
    rm -rf "$new"
}

echo '| target | seconds | of them on a processor | executions | coverage | date | found |'
echo '| --- | --- | --- | --- | --- | --- | --- |'
failed=0
for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "${FUZZ_JOBS:-2}" ]; do
        wait -n || failed=1
    done
    run "$target" &
done
while [ -n "$(jobs -p)" ]; do
    wait -n || failed=1
    jobs >/dev/null
done
if [ "${FUZZ_MINIMIZE:-0}" = 1 ]; then
    for target in "${targets[@]}"; do
        minimize "$target"
    done
fi
exit "$failed"
