//! Text for people: sizes, times, tables, and nothing that a terminal would take as a command.

use std::io::{self, Write};

use backup_core::content::{Entry, EntryKind};
use backup_core::id::BackupId;
use backup_core::repository::UnreadableBackup;
use backup_core::time::Timestamp;

/// `text` with control characters made visible. Names, tags and messages can come from a repository
/// that somebody else wrote. Newlines stay: messages of commands have them.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// A size in binary units: `512 B`, `1.5 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A duration in the units that matter: `0.44 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..10 => format!("{seconds:.2} s"),
        10..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Bytes a second.
pub(crate) fn rate(bytes: u64, seconds: f64) -> String {
    format!("{}/s", size((bytes as f64 / seconds.max(0.001)) as u64))
}

/// `2026-09-21 14:13:20 UTC`.
pub(crate) fn time(instant: Timestamp) -> String {
    let text = instant.to_string();
    let seconds = text.split(['.', 'Z']).next().unwrap_or_default();
    format!("{} UTC", seconds.replacen('T', " ", 1))
}

/// `1 entry`, `2 entries`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A backup that is there and cannot be opened.
pub(crate) fn unreadable(backup: &UnreadableBackup) -> String {
    format!("backup {} cannot be opened: {}", backup.id.short(), backup.reason)
}

/// A backup that lacked something when it was made.
pub(crate) fn incomplete(backup: &BackupId, problems: u64) -> String {
    let problems = count(problems, "problem", "problems");
    format!(
        "backup {} was incomplete when it was made: {problems}, which `backup show --summary` lists",
        backup.short()
    )
}

/// Rows in columns as wide as their widest cell; the last column is not padded.
pub(crate) fn table(out: &mut dyn Write, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (width, cell) in widths.iter().zip(cells) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        writeln!(out, "{}", text.trim_end())
    };
    line(&mut header.iter().copied())?;
    rows.iter().try_for_each(|row| line(&mut row.iter().map(String::as_str)))
}

/// An entry as `ls -l` shows a file.
pub(crate) fn entry_line(entry: &Entry) -> String {
    let attributes = &entry.attributes;
    let named = |name: &Option<String>, number: Option<u32>| match (name, number) {
        (Some(name), _) => clean(name),
        (None, Some(number)) => number.to_string(),
        (None, None) => "-".to_owned(),
    };
    let mut line = format!(
        "{} {:<8} {:<8} {:>14} {:<23} {}",
        mode(&entry.kind, attributes.mode),
        named(&attributes.user, attributes.uid),
        named(&attributes.group, attributes.gid),
        entry.size(),
        attributes.modified.map_or_else(|| "-".to_owned(), time),
        entry.path,
    );
    match (&entry.kind, &entry.hard_link) {
        (EntryKind::Symlink { target }, _) => {
            line.push_str(" -> ");
            line.push_str(&clean(&String::from_utf8_lossy(target)));
        }
        (_, Some(first)) => line.push_str(&format!(" = {first}")),
        _ => {}
    }
    if entry.inconsistent {
        line.push_str(" (changed while it was read)");
    }
    line
}

fn mode(kind: &EntryKind, mode: Option<u32>) -> String {
    let letter = match kind {
        EntryKind::Directory => 'd',
        EntryKind::Symlink { .. } => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::CharacterDevice { .. } => 'c',
        EntryKind::BlockDevice { .. } => 'b',
        EntryKind::Stream => 's',
        EntryKind::Disk => 'D',
        _ => '-',
    };
    let Some(mode) = mode else { return format!("{letter}---------") };
    let mut text = String::from(letter);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, false) => 'x',
            (false, false) => '-',
            (true, true) => set,
            (false, true) => unset,
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (6 << 30, "6.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        assert_eq!(duration(0.444), "0.44 s");
        assert_eq!(duration(59.9), "59.9 s");
        assert_eq!(duration(200.0), "3 min 20 s");
        assert_eq!(duration(7500.0), "2 h 5 min");
        assert_eq!(rate(1 << 20, 0.0), "1000.0 MiB/s");
    }

    #[test]
    fn times_have_no_fractions() {
        assert_eq!(time(Timestamp::from_unix(0, 5).unwrap()), "1970-01-01 00:00:00 UTC");
        assert_eq!(time(Timestamp::UNIX_EPOCH), "1970-01-01 00:00:00 UTC");
    }

    #[test]
    fn terminals_get_no_commands() {
        assert_eq!(clean("a\x1b[2Jb\u{9b}\tä\n"), "a\\u{1b}[2Jb\\u{9b}\\tä\n");
    }

    #[test]
    fn modes_are_those_of_ls() {
        for (kind, bits, text) in [
            (EntryKind::File, 0o644, "-rw-r--r--"),
            (EntryKind::Directory, 0o1777, "drwxrwxrwt"),
            (EntryKind::File, 0o4755, "-rwsr-xr-x"),
            (EntryKind::File, 0o6644, "-rwSr-Sr--"),
        ] {
            assert_eq!(mode(&kind, Some(bits)), text);
        }
        assert_eq!(mode(&EntryKind::Stream, None), "s---------");
    }

    #[test]
    fn tables_are_aligned() {
        let mut out = Vec::new();
        table(&mut out, &["ID", "KIND"], &[vec!["abc".into(), "x".into()], vec!["d".into(), "data".into()]]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "ID   KIND\nabc  x\nd    data\n");
    }
}
