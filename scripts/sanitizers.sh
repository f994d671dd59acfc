#!/usr/bin/env bash
# Data races and undefined behaviour: scripts/sanitizers.sh [thread|address|miri]...
#
#   thread   ThreadSanitizer over the tests of the engine, the standard library included (-Zbuild-std)
#   address  AddressSanitizer over the corpus of the fuzzer and the engine, with the C code of zstd and aws-lc
#   miri     Miri over the unit tests of the core that call no C code and are not made of thousands of cases
#
# Needs a nightly compiler with rust-src and miri: rustup component add rust-src miri --toolchain nightly
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- thread address miri
target="$(rustc +nightly -vV | sed -n 's/^host: //p')"
export PROPTEST_CASES="${PROPTEST_CASES:-8}"

for what in "$@"; do
    case "$what" in
        thread)
            # The C code is instrumented as well: else its reads and writes go unseen, and what it hands over looks like
            # a race.
            RUSTFLAGS=-Zsanitizer=thread CFLAGS='-fsanitize=thread -g' \
                TSAN_OPTIONS="halt_on_error=1 suppressions=$PWD/scripts/thread-sanitizer.supp" \
                cargo +nightly test -Zbuild-std --target "$target" --target-dir target/sanitizer-thread \
                -p backup-core --features testing --test engine --test tree
            ;;
        address)
            RUSTFLAGS=-Zsanitizer=address CFLAGS='-fsanitize=address -g' ASAN_OPTIONS=detect_stack_use_after_return=1 \
                cargo +nightly test -Zbuild-std --target "$target" --target-dir target/sanitizer-address \
                -p backup-core --features testing,aws-lc-rs --test fuzz_corpus --test engine
            ;;
        miri)
            # Miri calls no C code, so nothing that compresses; cryptography in it is portable Rust, and slow.
            MIRIFLAGS=-Zmiri-disable-isolation \
                cargo +nightly miri test --target-dir target/miri -p backup-core --lib --features testing -- \
                id:: time:: storage::key storage::memory secret:: crypto::hash crypto::kdf crypto::sign format::slot \
                format::layout object::tests::small keys::content session::closure index::filter index::packs
            ;;
        *)
            echo "unknown: $what (thread, address, miri)" >&2
            exit 2
            ;;
    esac
done
