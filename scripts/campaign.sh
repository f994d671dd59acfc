#!/bin/sh
# The long runs, of which `make test` takes a share (docs/testing.md).
#
#   scripts/campaign.sh corruption       every change of every byte of a small repository
#   scripts/campaign.sh kill [TIMES]     the command killed at random moments, 100 times unless TIMES says otherwise;
#                                        KILL_SEED=N repeats the round with that seed
#   scripts/campaign.sh model            larger worlds of the model of the protocol, and the ways to what breaks without a rule
#   scripts/campaign.sh simulation [N]   N worlds of processes that take turns, 20000 unless N says otherwise;
#                                        SIMULATION_SEED=N repeats the world with that seed, SIMULATION_TRACE=1 shows it
#   scripts/campaign.sh archive          an archive of 1 GiB, damaged and repaired (scripts/archive.sh)
set -eu
cd "$(dirname "$0")/.."
case "${1:-}" in
corruption)
    BACKUP_CAMPAIGN=full exec cargo test -p backup-core --all-features --test corruption -- --nocapture
    ;;
kill)
    KILL_TIMES=${2:-100} exec cargo test -p backup-cli --all-features --test cli -- --nocapture killed_at_random
    ;;
model)
    BACKUP_CAMPAIGN=full exec cargo test --release -p backup-core --all-features --test protocol_model -- --nocapture --test-threads 1
    ;;
simulation)
    SIMULATION_SEEDS=${2:-20000} exec cargo test --release -p backup-core --all-features --test simulation -- --nocapture restores_until
    ;;
archive)
    BACKUP_CAMPAIGN=full cargo test -p backup-core --all-features --test archive -- --nocapture
    cargo build --release -p backup-cli
    exec scripts/archive.sh
    ;;
*)
    sed -n '2,11p' "$0" >&2
    exit 2
    ;;
esac
