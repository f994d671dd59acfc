use clap::CommandFactory;

use super::*;

fn parse_words(line: &str) -> Result<Arguments, Stop> {
    parse(line.split(' ').map(OsString::from))
}

#[test]
fn the_definition_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn accepts_what_is_documented() {
    for line in [
        "backup -r /r init",
        "backup init -r /r --compression -3 --kdf-memory 64M --pack-size 8M --single-writer",
        "backup create a b --exclude *.o --exclude-caches --one-file-system --tag x --label a=b",
        "backup create --stdin name --kind virtual-machine --parent none --compression -1 --threads 4",
        "backup create --command name -- pg_dump --all",
        "backup create --image a --as x --image b --as y --parent latest --changed-ranges f --changed-ranges g",
        "backup create a --command name -- true",
        "backup create a --parity",
        "backup list --kind data --host h --tag t --json",
        "backup show latest --long",
        "backup show latest etc/passwd",
        "backup show latest --summary --quiet",
        "backup verify",
        "backup verify --level bytes --backup abc --backup def",
        "backup verify --level content --sample 0.1",
        "backup verify --rotate-days 30 --ledger l",
        "backup verify --expect-head abcd",
        "backup verify --compare /etc --compare /home",
        "backup restore latest --to /x --overwrite",
        "backup restore latest --entry a --range 1M:2 --to -",
        "backup restore latest --kind virtual-machine --host h --tag a --tag b --to x",
        "backup show latest --tag a",
        "backup cat latest a --host h",
        "backup restore latest --entry a --command -- psql -q",
        "backup cat latest a",
        "backup diff a b",
        "backup export --to f",
        "backup export latest abcd --to - --profile strong",
        "backup import f",
        "backup import f latest",
        "backup repair f",
        "backup repair f --to g",
        "backup scrub",
        "backup scrub --add-parity",
        "backup scrub --dry-run",
        "backup key add --label x --new-password-file f",
        "backup key remove abc",
        "backup key list",
        "backup key change --new-password-fd 3",
        "backup key rotate --password-fd 3",
        "backup key recovery --to f",
        "backup cache show --cache-dir d",
        "backup cache clear --json",
        "backup create a --limit-read 1M --limit-upload 512K --nice 10 --no-cache",
        "backup restore latest --to /x --limit-download 10M --cache-size 1G",
        "backup key export-maintenance --to f",
        "backup forget abcd ef01 --yes --maintenance-key-file f",
        "backup forget --keep-last 1 --keep-daily 7 --keep-within 2w --group-by host,kind --time-zone local --host h",
        "backup forget --keep-tag x --group-by none",
        "backup collect",
        "backup collect --yes --revoke-after 0s --despite-damage --maintenance-key-file f",
        "backup status --password-command pass",
        "backup stats --recovery-key-file f",
        "backup completions bash",
        "backup man /tmp",
    ] {
        if let Err(stop) = parse_words(line) {
            panic!("{line}: {}", stop.error);
        }
    }
}

#[test]
fn rejects_what_makes_no_sense() {
    for line in [
        "backup",
        "backup frobnicate",
        "backup create",
        "backup create --command name",
        "backup create a -- true",
        "backup create --as x a",
        "backup create --image a --changed-ranges f",
        "backup create a --threads 0",
        "backup create a --label x",
        "backup create a --compression 99",
        "backup verify --level nothing",
        "backup verify --sample 0",
        "backup verify --sample 2",
        "backup verify --rotate-days 3",
        "backup verify --ledger f",
        "backup verify --sample 0.5 --rotate-days 3 --ledger f",
        "backup verify --expect-head abc",
        "backup verify --expect-head latest",
        "backup restore latest",
        "backup restore latest --to x --command -- y",
        "backup restore latest --command",
        "backup restore latest --to x --range 0:1",
        "backup restore latest --entry a --to x --range 5",
        "backup export latest",
        "backup export --to f --profile none",
        "backup import",
        "backup repair",
        "backup scrub --add-parity --dry-run",
        "backup show latest --summary --long",
        "backup forget abcd --keep-last 1",
        "backup forget --keep-last -1",
        "backup forget --keep-within 3",
        "backup collect --revoke-after x",
        "backup completions klingon",
        "backup cache",
        "backup create a --limit-upload 0",
        "backup create a --nice 20",
        "backup --password secret list",
    ] {
        assert!(parse_words(line).is_err(), "{line}");
    }
}

#[test]
fn json_is_looked_for_in_front_of_a_command_only() {
    assert!(parse_words("backup create --json").unwrap_err().json);
    assert!(!parse_words("backup create -- x --json").unwrap_err().json);
}

#[test]
fn slots_are_hexadecimal() {
    assert!(is_slot_prefix("00ff"));
    for bad in ["", "xy", "AB", &"0".repeat(33)] {
        assert!(!is_slot_prefix(bad), "{bad}");
    }
}
