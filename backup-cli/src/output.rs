//! What people and programs see: results on standard output, everything else on standard error.

pub(crate) mod file;
pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod text;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use serde::Serialize;

use crate::exit::Failure;

/// The way results, warnings and failures are shown, by `--json` and `--quiet`.
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    /// The bar that is on the terminal, which lines must not run into.
    bar: Mutex<Option<ProgressBar>>,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet, bar: Mutex::new(None) }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether summaries are wanted (listings always are).
    pub(crate) fn has_summaries(&self) -> bool {
        !self.json && !self.quiet
    }

    /// How to show progress.
    pub(crate) fn progress_style(&self) -> progress::Style {
        if self.json || self.quiet {
            progress::Style::None
        } else if io::stderr().is_terminal() {
            progress::Style::Bar
        } else {
            progress::Style::Lines
        }
    }

    /// The result of a command as one line of JSON.
    pub(crate) fn json<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Failure> {
        let mut out = BufWriter::new(io::stdout().lock());
        serde_json::to_writer(&mut out, value).map_err(|error| Failure::Output(error.into()))?;
        out.write_all(b"\n").and_then(|()| out.flush()).map_err(Failure::Output)
    }

    /// The result of a command whose content owns standard output: JSON on standard error.
    pub(crate) fn json_beside_content<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| Failure::Output(error.into()))?;
        writeln!(io::stderr(), "{text}").map_err(Failure::Output)
    }

    /// Text of a result.
    pub(crate) fn text(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
        let mut out = BufWriter::new(io::stdout().lock());
        write(&mut out).and_then(|()| out.flush()).map_err(Failure::Output)
    }

    /// Something to know that stops nothing. Shown with `--quiet`, too.
    pub(crate) fn warning(&self, message: &str) {
        if self.json {
            self.line(&serde_json::json!({"warning": message}).to_string());
        } else {
            self.line(&format!("backup: warning: {}", text::clean(message)));
        }
    }

    /// Why the exit code is not 0 although there is a result; with `--json` the result says it.
    pub(crate) fn error_line(&self, message: &str) {
        if !self.json {
            self.line(&format!("backup: {}", text::clean(message)));
        }
    }

    /// Why the command ended early.
    pub(crate) fn failure(&self, failure: &Failure) {
        if failure.exit() == crate::exit::Exit::BrokenPipe {
            return;
        }
        let chain = failure.chain();
        if self.json {
            self.line(&json::failure(failure.kind(), &chain).to_string());
        } else {
            self.line(&text::clean(&format!("backup: {}", chain.join(": "))));
        }
    }

    fn line(&self, line: &str) {
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing can be said when standard error is gone.
        let print = || drop(writeln!(io::stderr(), "{line}"));
        match &*bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn set_bar(&self, bar: Option<ProgressBar>) {
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = bar;
    }
}
