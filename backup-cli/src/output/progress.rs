//! Progress of one operation: a bar on a terminal, a line now and then elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backup_adapters::tree::EXISTS;
use backup_core::progress::{Event, Observer};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::{Output, text};

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Not at all.
    None,
    /// A line after ten seconds, and then at growing intervals.
    Lines,
    /// A bar that is drawn again and again.
    Bar,
}

/// Problems that are printed; the result has them all (or the first thousand of them).
const PROBLEMS_SHOWN: u64 = 50;

/// Of what exists already in the target of a restore: mostly that is all of it, for one reason.
const EXISTING_SHOWN: u64 = 3;

/// Counts the events of one operation and shows them. The display ends when this is dropped.
pub(crate) struct Progress<'a> {
    output: &'a Output,
    state: Arc<State>,
}

struct State {
    bar: Option<ProgressBar>,
    lines: Option<Lines>,
    started: Instant,
    expected: AtomicU64,
    bytes: AtomicU64,
    entries: AtomicU64,
    /// Problems, shown later by whoever holds the output.
    problems: AtomicU64,
    /// Those among them that exist already in the target.
    existing: AtomicU64,
    messages: Mutex<Vec<String>>,
}

impl<'a> Progress<'a> {
    /// Begins to show an operation named by `verb` ("backing up").
    pub(crate) fn start(output: &'a Output, verb: &str) -> Self {
        let style = output.progress_style();
        let bar = (style == Style::Bar).then(|| bar(verb));
        output.set_bar(bar.clone());
        let lines = (style == Style::Lines).then(|| Lines::new(verb));
        let state = State {
            bar,
            lines,
            started: Instant::now(),
            expected: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            problems: AtomicU64::new(0),
            existing: AtomicU64::new(0),
            messages: Mutex::new(Vec::new()),
        };
        Self { output, state: Arc::new(state) }
    }

    /// What the engine reports to.
    pub(crate) fn observer(&self) -> Arc<dyn Observer> {
        Arc::clone(&self.state) as Arc<dyn Observer>
    }

    /// Seconds since the operation began.
    pub(crate) fn seconds(&self) -> f64 {
        self.state.started.elapsed().as_secs_f64()
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.state.bar {
            bar.finish_and_clear();
        }
        self.output.set_bar(None);
        let messages = std::mem::take(&mut *self.state.messages.lock().unwrap_or_else(PoisonError::into_inner));
        if self.output.is_json() {
            return;
        }
        for message in messages {
            self.output.warning(&message);
        }
        let existing = self.state.existing.load(Ordering::Relaxed);
        if existing > 0 {
            let count = text::count(existing, "entry exists", "entries exist");
            self.output.warning(&format!("{count} already in the target: --overwrite replaces what is there"));
        }
        let omitted = self.state.problems.load(Ordering::Relaxed).saturating_sub(PROBLEMS_SHOWN);
        if omitted > 0 {
            self.output.warning(&format!("and {}", text::count(omitted, "problem more", "problems more")));
        }
    }
}

impl Observer for State {
    fn event(&self, event: &Event<'_>) {
        match *event {
            Event::Expected { bytes, .. } => {
                self.expected.store(bytes, Ordering::Relaxed);
                if let Some(bar) = &self.bar.as_ref().filter(|_| bytes > 0) {
                    bar.set_length(bytes);
                    set_style(bar, KNOWN_TOTAL);
                }
            }
            Event::EntryStarted { path } => {
                if let Some(bar) = &self.bar {
                    bar.set_message(path.to_string());
                }
            }
            Event::EntryFinished { .. } => {
                self.entries.fetch_add(1, Ordering::Relaxed);
                self.line();
            }
            Event::Bytes { count, .. } => {
                self.bytes.fetch_add(count, Ordering::Relaxed);
                if let Some(bar) = &self.bar {
                    bar.inc(count);
                }
                self.line();
            }
            Event::Problem { name, message } => self.problem(name, message),
            _ => {}
        }
    }
}

impl State {
    fn problem(&self, name: &str, message: &str) {
        if message == EXISTS {
            if self.existing.fetch_add(1, Ordering::Relaxed) < EXISTING_SHOWN {
                let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
                messages.push(format!("{name}: {message}"));
            }
            return;
        }
        if self.problems.fetch_add(1, Ordering::Relaxed) < PROBLEMS_SHOWN {
            let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
            messages.push(format!("{name}: {message}"));
        }
    }

    fn line(&self) {
        let Some(lines) = &self.lines else { return };
        let elapsed = self.started.elapsed();
        if lines.is_due(elapsed) {
            let line = line(
                &lines.verb,
                elapsed.as_secs_f64(),
                self.bytes.load(Ordering::Relaxed),
                self.expected.load(Ordering::Relaxed),
                self.entries.load(Ordering::Relaxed),
            );
            eprintln_quietly(&line);
        }
    }
}

/// When the next line is due: after 10, 20, 40, 80 seconds, then every minute.
struct Lines {
    verb: String,
    next: AtomicU64,
}

impl Lines {
    const FIRST: u64 = 10_000;
    const LONGEST: u64 = 60_000;

    fn new(verb: &str) -> Self {
        Self { verb: verb.to_owned(), next: AtomicU64::new(Self::FIRST) }
    }

    fn is_due(&self, elapsed: Duration) -> bool {
        let now = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let next = self.next.load(Ordering::Relaxed);
        if now < next {
            return false;
        }
        let following = now.saturating_add(now.min(Self::LONGEST));
        self.next.compare_exchange(next, following, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

fn line(verb: &str, seconds: f64, bytes: u64, expected: u64, entries: u64) -> String {
    let mut line = format!("backup: {verb}: {}", text::size(bytes));
    if expected >= bytes && expected > 0 {
        line.push_str(&format!(" of {} ({} %)", text::size(expected), u128::from(bytes) * 100 / u128::from(expected)));
    }
    line.push_str(&format!(", {}, {}", text::rate(bytes, seconds), text::count(entries, "entry", "entries")));
    line
}

fn eprintln_quietly(line: &str) {
    use std::io::Write as _;
    drop(writeln!(std::io::stderr(), "{line}"));
}

const UNKNOWN_TOTAL: &str = "{prefix} {bytes:>10} {binary_bytes_per_sec:>13} {elapsed:>5} {wide_msg}";
const KNOWN_TOTAL: &str =
    "{prefix} {bytes:>10} of {total_bytes:<10} {binary_bytes_per_sec:>13} [{bar:20}] eta {eta} {wide_msg}";

fn bar(verb: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    set_style(&bar, UNKNOWN_TOTAL);
    bar.set_prefix(verb.to_owned());
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

fn set_style(bar: &ProgressBar, template: &str) {
    // The templates are constants; without one the bar only looks different.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_few() {
        let lines = Lines::new("x");
        let due: Vec<u64> = (0..400).filter(|second| lines.is_due(Duration::from_secs(*second))).collect();
        assert_eq!(due, [10, 20, 40, 80, 140, 200, 260, 320, 380]);
    }

    #[test]
    fn a_line_tells_what_is_known() {
        assert_eq!(line("backing up", 2.0, 2048, 0, 1), "backup: backing up: 2.0 KiB, 1.0 KiB/s, 1 entry");
        assert_eq!(
            line("restoring", 2.0, 2048, 4096, 3),
            "backup: restoring: 2.0 KiB of 4.0 KiB (50 %), 1.0 KiB/s, 3 entries"
        );
    }
}
