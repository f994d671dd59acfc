#!/usr/bin/env bash
# Real inputs for `backup-bench`, each with its next day: a disk image with an ext4 file system made of this machine's
# programs, and a dump of a PostgreSQL database.
#
#   scripts/inputs.sh DIRECTORY [image] [dump]       # both by default: about 5 GB of disk, some minutes
#
# Leaves DIRECTORY/image-1.img, image-2.img, dump-1.sql and dump-2.sql; what is there already is kept.
#
# IMAGE_MIB    length of the image (default 6144)
# DATA_MIB     files in it (default 1536)
# CHANGE_MIB   files added the next day (default 125); half as much is removed
# DUMP_SCALE   pgbench scale; a unit is about 10 MB of SQL (default 68)
#
# Nothing needs root. PostgreSQL refuses to run as root; then the server runs as POSTGRES_USER (default postgres).
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2; }
directory=$(mkdir -p "$1" && realpath "$1")
shift
wanted=${*:-image dump}
image_mib=${IMAGE_MIB:-6144} data_mib=${DATA_MIB:-1536} change_mib=${CHANGE_MIB:-125} scale=${DUMP_SCALE:-68}
PATH=$PATH:/usr/sbin:/sbin
scratch=$(mktemp -d "$directory/making-XXXXXX")
server=
cleanup() {
    [ -z "$server" ] || as_owner "$binaries/pg_ctl" -D "$scratch/cluster" -m immediate -w stop > "$scratch/stop.log" || true
    rm -rf "$scratch"
}
trap cleanup EXIT
say() { echo "== $*" >&2; }
need() { command -v "$1" > /dev/null || { say "$1 is missing: install $2"; exit 1; }; }

# What a Debian machine with a compiler, a database and a Java runtime holds. Size and name of every file that can be
# read, without names that debugfs would have to be told with quotes.
list_files() {
    local place
    for place in gcc postgresql jvm "$(uname -m)-linux-gnu" python3 ../bin ../share git-core .; do
        [ ! -d "/usr/lib/$place" ] || realpath "/usr/lib/$place"
    done | while read -r place; do
        find "$place" -xdev -type f -readable -printf '%s %p\n' | LC_ALL=C sort -k2
    done | grep -E '^[0-9]+ [A-Za-z0-9_./+:@%=,~-]+$' | awk '!seen[$2]++'
}

# The first lines of the list on standard input that make so many MiB.
first_mib() { awk -v left="$(($1 * 1048576))" '{ if (left <= 0) next; left -= $1; print }'; }

make_image() {
    local first=$directory/image-1.img next=$directory/image-2.img data
    need mke2fs e2fsprogs
    need debugfs e2fsprogs
    list_files > "$scratch/files"
    first_mib "$data_mib" < "$scratch/files" > "$scratch/included"
    tail -n +$(($(wc -l < "$scratch/included") + 1)) "$scratch/files" | first_mib "$change_mib" > "$scratch/added"
    # A package is a run of files that stand together.
    tail -n +$(($(wc -l < "$scratch/included") / 3)) "$scratch/included" | first_mib $((change_mib / 2)) > "$scratch/removed"
    for data in included added; do
        [ -s "$scratch/$data" ] || { say "there are not $((data_mib + change_mib)) MiB of files below /usr"; exit 1; }
    done

    say "image-1.img: $(wc -l < "$scratch/included") files in $image_mib MiB"
    mkdir "$scratch/root"
    cut -d' ' -f2 "$scratch/included" | tar -C / -cf - --no-recursion --files-from=- 2> "$scratch/tar.log" \
        | tar -C "$scratch/root" -xf - --no-same-owner
    truncate -s "${image_mib}M" "$scratch/image"
    mke2fs -q -t ext4 -L root -U 6d1f2c9e-58a7-4d0c-9a41-1c86a5a1f9b0 -E hash_seed=6d1f2c9e-58a7-4d0c-9a41-1c86a5a1f9b0 \
        -d "$scratch/root" "$scratch/image"
    rm -rf "$scratch/root"

    say "image-2.img: $(wc -l < "$scratch/added") files added, $(wc -l < "$scratch/removed") removed"
    cp --sparse=always "$scratch/image" "$scratch/image-2"
    {
        sed 's/^[0-9]* /rm /' "$scratch/removed"
        echo "mkdir /added"
        awk '{ print "write " $2 " /added/" NR }' "$scratch/added"
    } > "$scratch/changes"
    debugfs -w -f "$scratch/changes" "$scratch/image-2" > "$scratch/debugfs.log" 2>&1
    if grep -v -e '^debugfs' -e '^Allocated inode' -e '^$' "$scratch/debugfs.log" >&2; then
        say "debugfs could not do all of it"
        exit 1
    fi
    e2fsck -fn "$scratch/image-2" > "$scratch/fsck.log" 2>&1 || { cat "$scratch/fsck.log" >&2; exit 1; }
    mv "$scratch/image" "$first"
    mv "$scratch/image-2" "$next"
}

as_owner() {
    if [ "$(id -u)" = 0 ]; then
        (cd "$scratch" && setpriv --reuid="$owner" --regid="$(id -g "$owner")" --clear-groups "$@")
    else
        "$@"
    fi
}

make_dump() {
    local first=$directory/dump-1.sql next=$directory/dump-2.sql
    binaries=$(ls -d /usr/lib/postgresql/*/bin 2> /dev/null | sort -V | tail -n 1 || true)
    [ -n "$binaries" ] || binaries=$(dirname "$(command -v initdb || true)")
    [ -x "$binaries/initdb" ] || { say "initdb is missing: install postgresql"; exit 1; }
    owner=${POSTGRES_USER:-postgres}
    chmod 711 "$scratch"
    mkdir "$scratch/cluster" "$scratch/socket"
    [ "$(id -u)" != 0 ] || chown "$owner" "$scratch/cluster" "$scratch/socket"
    # Directories above may be closed to the server's user; there is no way around that.
    as_owner "$binaries/initdb" -D "$scratch/cluster" -A trust -U bench -E UTF8 --locale=C > "$scratch/initdb.log"
    as_owner "$binaries/pg_ctl" -D "$scratch/cluster" -w -l "$scratch/cluster/log" start > "$scratch/start.log" -o \
        "-k $scratch/socket -c listen_addresses='' -c fsync=off -c full_page_writes=off -c max_wal_size=4GB -c shared_buffers=256MB -c autovacuum=off"
    server=running
    export PGHOST=$scratch/socket PGUSER=bench PGDATABASE=postgres PGOPTIONS=--client-min-messages=warning

    say "dump-1.sql: pgbench at scale $scale"
    "$binaries/pgbench" -q -i -I dtp -s "$scale" 2> "$scratch/pgbench.log"
    # pgbench fills its rows with blanks. Rows of people have names, places and numbers.
    psql -q -v ON_ERROR_STOP=1 -v scale="$scale" << 'SQL'
create function word(number bigint) returns text immutable language sql return
    (array['anna','bruno','carla','david','elena','felix','greta','henri','irene','jonas','klara','lukas','maria','nils',
    'olga','peter','quentin','rosa','simon','tanja','ulrich','vera','walter','xenia','yannick','zoe','lake','river','hill',
    'market','station','garden','church','mill','bridge','harbour','forest','meadow','castle','tower','school','orchard',
    'north','south','east','west','upper','lower','old','new','long','broad','high','saint','king','queen','baker',
    'fisher','miller','smith','taylor','weaver','cooper','mason'])[(number * 2654435761 >> 13) % 64 + 1];
insert into pgbench_branches select i, 0, word(i) || ' ' || word(i + 7) from generate_series(1, :scale) i;
insert into pgbench_tellers select i, (i - 1) / 10 + 1, 0, word(i) from generate_series(1, 10 * :scale) i;
insert into pgbench_accounts select i, (i - 1) / 100000 + 1, (hashint8(i) % 100000),
    word(i) || ' ' || word(i * 7) || ', ' || abs(hashint8(i * 3)) % 200 || ' ' || word(i * 11) || ' ' || word(i * 13)
    || ' street, ' || word(i * 17) || ', ' || substr(md5(i::text), 1, 12)
from generate_series(1, :scale * 100000::bigint) i;
SQL
    "$binaries/pg_dump" -f "$scratch/dump-1"

    say "dump-2.sql: rows updated all over"
    psql -q -v ON_ERROR_STOP=1 -c \
        "update pgbench_accounts set abalance = abalance + 17, filler = 'moved to ' || filler where aid % 97 = 0 and length(filler) < 75"
    "$binaries/pgbench" -n -c 1 -t 5000 --random-seed=1 > "$scratch/pgbench.log" 2>&1
    "$binaries/pg_dump" -f "$scratch/dump-2"
    as_owner "$binaries/pg_ctl" -D "$scratch/cluster" -m immediate -w stop > "$scratch/stop.log"
    server=
    mv "$scratch/dump-1" "$first"
    mv "$scratch/dump-2" "$next"
}

for input in $wanted; do
    case $input in
    image | dump) ;;
    *) say "there is no input $input: image, dump"; exit 2 ;;
    esac
    last=$([ "$input" = image ] && echo image-2.img || echo dump-2.sql)
    if [ -e "$directory/$last" ]; then
        say "$directory/$last is there"
    else
        "make_$input"
    fi
done
ls -ls "$directory" >&2
