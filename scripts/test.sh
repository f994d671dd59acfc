#!/bin/sh
# Every test of the workspace, then which of them took longest, and at the end what became of them.
#
# The time of single tests is shown where the test programs can tell it: they do so under RUSTC_BOOTSTRAP, which is set
# for them alone, not for the compiler. Else the programs are listed.
set -u
cd "$(dirname "$0")/.."
output=$(mktemp)
trap 'rm -f "$output"' EXIT
shown=${SLOWEST:-10}

# Runs a command and shows what it says; its status is that of the command.
run() {
    { "$@" 2>&1; echo "status of the tests: $?"; } | tee -a "$output" | grep -v '^status of the tests: '
    status=$(sed -n 's/^status of the tests: //p' "$output" | tail -n 1)
    return "$status"
}

cargo test --workspace --all-features --no-run || exit
began=$(date +%s)
first=$(cargo test --workspace --all-features --no-run 2>&1 | sed -n 's/^  Executable .*(\(.*\))$/\1/p' | head -n 1)
runner='target."cfg(all())".runner=["env","RUSTC_BOOTSTRAP=1"]'
if RUSTC_BOOTSTRAP=1 "$first" --list -Z unstable-options --report-time >"$output" 2>/dev/null; then
    : >"$output"
    run cargo --config "$runner" test --workspace --all-features --no-fail-fast --tests -- -Z unstable-options --report-time
else
    : >"$output"
    run cargo test --workspace --all-features --no-fail-fast --tests
fi && run cargo test --workspace --all-features --doc
status=$?
ended=$(date +%s)

# "test NAME ... ok <1.234s>" and "finished in 1.23s" under "Running PROGRAM" or "Doc-tests CRATE".
awk -v shown="$shown" '
    / Running | Doc-tests / { sub(/^ +/, ""); sub(/ \(.*\)$/, ""); sub(/^Running /, ""); sub(/^unittests /, ""); program = $0 }
    /^test .* <[0-9.]+s>$/ {
        time = $NF; gsub(/[<>s]/, "", time)
        name = $2
        printf "%10.3f s  %s: %s\n", time, program, name > "/dev/stderr"
    }
    /finished in [0-9.]+s$/ {
        time = $NF; sub(/s$/, "", time)
        printf "%10.2f s  %s\n", time, program
    }
' "$output" >"$output.programs" 2>"$output.tests"
trap 'rm -f "$output" "$output.programs" "$output.tests"' EXIT
echo
if [ -s "$output.tests" ]; then
    echo "The slowest tests:"
    sort -rn "$output.tests" | head -n "$shown"
fi
echo "The slowest test programs:"
sort -rn "$output.programs" | head -n "$shown"
echo "The whole time: $((ended - began)) s"
echo
awk '
    /^test result: / { passed += $4; failed += $6; ignored += $8 }
    /^test .* \.\.\. FAILED/ { print "FAILED: " $2 }
    END { printf "test result: %s. %d passed; %d failed; %d ignored\n", (failed ? "FAILED" : "ok"), passed, failed, ignored }
' "$output"
[ "$status" -eq 0 ] || echo "the tests did not all run to their end (status $status)" >&2
exit "$status"
