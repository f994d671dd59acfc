//! Commands as sources and targets: the output of a dump, the input of a restore.
//!
//! A command's failure is a failure of the backup: its output ends with an error, never with a quiet
//! end of file, so that nothing is committed. Commands are started directly, without a shell; nothing
//! is added to their arguments or environment.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use backup_core::progress::CancelToken;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

/// How much of the end of a command's error output is kept.
const STDERR_KEPT: usize = 4096;

/// How long the error output may stay open after a command's end.
const STDERR_PATIENCE: Duration = Duration::from_secs(2);

/// How long a cancellation may go unnoticed while a command says nothing.
const CANCEL_PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The standard output of a command, as [`Read`].
///
/// The end of the stream is reported only when the command has ended with status 0; any other end is
/// an error of the last read, with the end of what the command wrote to standard error. Dropped
/// before that, the command is killed.
pub struct CommandSource {
    running: Running,
    output: Option<ChildStdout>,
    cancel: Option<CancelToken>,
}

impl CommandSource {
    /// Starts `command`. Its standard input is empty; arguments, environment and directory are the caller's.
    ///
    /// # Errors
    ///
    /// Where it cannot be started, naming it.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut running = Running::spawn(command)?;
        let output = running.child.stdout.take();
        Ok(Self { running, output, cancel: None })
    }

    /// Starts the program `arguments[0]` with the other arguments.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn); [`io::ErrorKind::InvalidInput`] without arguments.
    pub fn new(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> io::Result<Self> {
        Self::spawn(from_arguments(arguments)?)
    }

    /// Reads fail once `cancel` is used, also those that wait for a silent command.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// Waits until there is something to read, or for a cancellation.
    fn wait_for_output(&self) -> io::Result<()> {
        let (Some(output), Some(cancel)) = (&self.output, &self.cancel) else { return Ok(()) };
        wait(PollFd::new(output, PollFlags::IN), cancel, &self.running.program)
    }
}

impl Read for CommandSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait_for_output()?;
        if let Some(output) = &mut self.output {
            match output.read(buffer)? {
                0 if !buffer.is_empty() => self.output = None,
                read => return Ok(read),
            }
        }
        // Asked again after the end, it gives the same answer: a failure cannot be read over.
        self.running.finish(self.cancel.as_ref())?;
        Ok(0)
    }
}

impl fmt::Debug for CommandSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandSource").field("program", &self.running.program).finish_non_exhaustive()
    }
}

/// The standard input of a command, as [`Write`].
///
/// Call [`finish`](Self::finish): only its `Ok` says that the command took everything. Dropped without
/// it, the command is killed.
pub struct CommandSink {
    running: Running,
    input: Option<ChildStdin>,
    cancel: Option<CancelToken>,
}

impl CommandSink {
    /// Starts `command`. Its standard output goes where this process's goes unless the caller set it.
    ///
    /// # Errors
    ///
    /// Where it cannot be started, naming it.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::piped());
        let mut running = Running::spawn(command)?;
        let input = running.child.stdin.take();
        Ok(Self { running, input, cancel: None })
    }

    /// Starts the program `arguments[0]` with the other arguments; its output is discarded.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn); [`io::ErrorKind::InvalidInput`] without arguments.
    pub fn new(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> io::Result<Self> {
        let mut command = from_arguments(arguments)?;
        command.stdout(Stdio::null());
        Self::spawn(command)
    }

    /// Writes fail once `cancel` is used, also those that wait for a command that does not read.
    ///
    /// # Errors
    ///
    /// Where the pipe cannot be told not to block.
    pub fn with_cancel(mut self, cancel: CancelToken) -> io::Result<Self> {
        if let Some(input) = &self.input {
            // This end only: the command's end of the pipe has flags of its own.
            fcntl_setfl(input, fcntl_getfl(input)? | OFlags::NONBLOCK)?;
        }
        self.cancel = Some(cancel);
        Ok(self)
    }

    /// Waits until something can be written, or for a cancellation.
    fn wait_for_input(&self) -> io::Result<()> {
        let (Some(input), Some(cancel)) = (&self.input, &self.cancel) else { return Ok(()) };
        wait(PollFd::new(input, PollFlags::OUT), cancel, &self.running.program)
    }

    /// Ends the command's input and waits for the command.
    ///
    /// # Errors
    ///
    /// Where it ended with another status than 0 or by a signal, with the end of its error output.
    pub fn finish(mut self) -> io::Result<()> {
        self.input = None;
        self.running.finish(self.cancel.as_ref())
    }

    /// The error of a write, together with what became of the command: a broken pipe alone says little.
    fn explain(&mut self, error: io::Error) -> io::Error {
        if error.kind() != io::ErrorKind::BrokenPipe {
            return error;
        }
        self.input = None;
        let reason = match self.running.end(self.cancel.as_ref()) {
            Ok(end) => end.to_string(),
            Err(failure) => failure.to_string(),
        };
        let program = &self.running.program;
        io::Error::new(error.kind(), format!("command {program} did not read all of its input: {reason}"))
    }
}

impl Write for CommandSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        loop {
            self.wait_for_input()?;
            let Some(input) = &mut self.input else {
                return Err(self.explain(io::ErrorKind::BrokenPipe.into()));
            };
            match input.write(data) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written.map_err(|error| self.explain(error)),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.input {
            Some(input) => input.flush().map_err(|error| self.explain(error)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for CommandSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandSink").field("program", &self.running.program).finish_non_exhaustive()
    }
}

/// A started command, and the thread that reads its error output so that it never blocks on it.
struct Running {
    program: String,
    child: Child,
    errors: Arc<Mutex<VecDeque<u8>>>,
    /// Disconnected when the error output has ended.
    is_over: mpsc::Receiver<()>,
    end: Option<End>,
}

/// How a command ended.
#[derive(Clone)]
struct End {
    status: ExitStatus,
    /// The last [`STDERR_KEPT`] bytes of its error output.
    errors: String,
}

impl Running {
    fn spawn(mut command: Command) -> io::Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("command {program} cannot be started: {error}")))?;
        let errors = Arc::new(Mutex::new(VecDeque::new()));
        let (over, is_over) = mpsc::channel();
        let drained = child.stderr.take().map(|stderr| {
            let errors = Arc::clone(&errors);
            thread::Builder::new().name("command-stderr".into()).spawn(move || {
                keep_end(stderr, &errors);
                drop(over);
            })
        });
        let running = Self { program, child, errors, is_over, end: None };
        // Where the thread cannot be started, dropping `running` kills the command.
        drained.transpose()?;
        Ok(running)
    }

    /// Waits for the end; an error where the status is not 0.
    fn finish(&mut self, cancel: Option<&CancelToken>) -> io::Result<()> {
        let end = self.end(cancel)?;
        if end.status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("command {} failed: {end}", self.program)))
    }

    fn end(&mut self, cancel: Option<&CancelToken>) -> io::Result<End> {
        if let Some(end) = &self.end {
            return Ok(end.clone());
        }
        let status = match cancel {
            None => self.child.wait()?,
            Some(cancel) => self.wait_unless(cancel)?,
        };
        // A process that the command left behind may hold its error output open for ever.
        let _ = self.is_over.recv_timeout(STDERR_PATIENCE);
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let errors = String::from_utf8_lossy(errors.make_contiguous()).trim().to_owned();
        let end = End { status, errors };
        self.end = Some(end.clone());
        Ok(end)
    }

    /// A command may close its pipe and live on for ever.
    fn wait_unless(&mut self, cancel: &CancelToken) -> io::Result<ExitStatus> {
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if cancel.is_cancelled() {
                return Err(cancelled(&self.program));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.end.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if self.errors.is_empty() { Ok(()) } else { write!(f, ": {}", self.errors) }
    }
}

/// Waits until `pipe` is ready or broken; an error once `cancel` is used.
fn wait(pipe: PollFd<'_>, cancel: &CancelToken, program: &str) -> io::Result<()> {
    let mut pipes = [pipe];
    loop {
        if cancel.is_cancelled() {
            return Err(cancelled(program));
        }
        match poll(&mut pipes, Some(&CANCEL_PATIENCE)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Not `Interrupted`: readers and writers take that as "try again".
fn cancelled(program: &str) -> io::Error {
    io::Error::other(format!("command {program} was cancelled"))
}

fn from_arguments(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> io::Result<Command> {
    let mut arguments = arguments.into_iter();
    let Some(program) = arguments.next() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a command needs a program"));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Reads everything and keeps the end of it.
fn keep_end(mut reader: impl Read, kept: &Mutex<VecDeque<u8>>) {
    let mut buffer = [0; STDERR_KEPT];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(buffer.iter().take(read));
                let surplus = kept.len().saturating_sub(STDERR_KEPT);
                kept.drain(..surplus);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> [&str; 3] {
        ["sh", "-c", script]
    }

    fn output(script: &str) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        CommandSource::new(shell(script))?.read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn the_output_is_what_was_written() {
        assert_eq!(output(r"printf 'a\000b'").unwrap(), b"a\0b");
        assert_eq!(output("true").unwrap(), b"");
        assert_eq!(output("head -c 3000000 /dev/zero").unwrap().len(), 3_000_000);
        assert_eq!(output("echo out; echo warning >&2").unwrap(), b"out\n", "a warning is no failure");
        assert_eq!(output("cat").unwrap(), b"", "the input is empty");
    }

    #[test]
    fn failures_are_errors_that_say_what_happened() {
        let error = output("echo data; echo 'disk on fire' >&2; exit 3").unwrap_err().to_string();
        assert_eq!(error, "command sh failed: exit status: 3: disk on fire");
        let error = output("kill -9 $$").unwrap_err().to_string();
        assert!(error.starts_with("command sh failed: signal: 9"), "{error}");
        let error = CommandSource::new(["/nonexistent/dump", "--password=hunter2"]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("/nonexistent/dump"), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(CommandSource::new([""; 0]).is_err());
    }

    #[test]
    fn a_failure_cannot_be_read_over() {
        let mut source = CommandSource::new(shell("printf 123; exit 1")).unwrap();
        let mut buffer = [0; 10];
        let mut seen = 0;
        let first = loop {
            match source.read(&mut buffer) {
                Ok(read) => seen += read,
                Err(error) => break error.to_string(),
            }
            assert!(seen <= 3);
        };
        assert_eq!(seen, 3);
        assert_eq!(source.read(&mut buffer).unwrap_err().to_string(), first);
    }

    #[test]
    fn much_error_output_neither_blocks_nor_fills_memory() {
        let script = "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo END >&2; exit 1";
        let error = output(script).unwrap_err().to_string();
        assert!(error.ends_with("xEND") && error.len() < STDERR_KEPT + 100, "{} bytes", error.len());
    }

    #[test]
    fn a_silent_command_is_cancelled() {
        let cancel = CancelToken::new();
        let mut source = CommandSource::new(shell("printf 1; exec sleep 1000")).unwrap().with_cancel(cancel.clone());
        source.read_exact(&mut [0]).unwrap();
        cancel.cancel();
        let error = source.read(&mut [0]).unwrap_err();
        assert!(error.to_string().contains("cancelled"), "{error}");
    }

    #[test]
    fn a_command_that_does_not_read_is_cancelled() {
        let cancel = CancelToken::new();
        let mut sink = CommandSink::new(shell("exec sleep 1000")).unwrap().with_cancel(cancel.clone()).unwrap();
        // More than a pipe holds; the token is used while the write waits.
        let error = thread::scope(|scope| {
            let writing = scope.spawn(|| sink.write_all(&[0; 1 << 20]).unwrap_err());
            cancel.cancel();
            writing.join().unwrap()
        });
        assert!(error.to_string().contains("cancelled"), "{error}");

        let mut sink = CommandSink::new(shell("test $(wc -c) = 3000000")).unwrap();
        sink = sink.with_cancel(CancelToken::new()).unwrap();
        sink.write_all(&vec![1; 3_000_000]).unwrap();
        sink.finish().unwrap();
    }

    #[test]
    fn dropped_early_the_command_ends() {
        let mut source = CommandSource::new(["cat", "/dev/zero"]).unwrap();
        source.read_exact(&mut [0; 1000]).unwrap();
        let id = source.running.child.id();
        drop(source);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists(), "killed and waited for");
    }

    #[test]
    fn what_was_written_is_the_input() {
        let here = tempfile::tempdir().unwrap();
        let file = here.path().join("out");
        let script = format!("cat > {}", file.display());
        let mut sink = CommandSink::new(shell(&script)).unwrap();
        sink.write_all(&vec![7; 200_000]).unwrap();
        sink.flush().unwrap();
        sink.finish().unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), vec![7; 200_000]);
    }

    #[test]
    fn a_failed_target_is_told_at_the_end() {
        let mut sink = CommandSink::new(shell("cat > /dev/null; echo 'no space' >&2; exit 5")).unwrap();
        sink.write_all(b"data").unwrap();
        assert_eq!(sink.finish().unwrap_err().to_string(), "command sh failed: exit status: 5: no space");
    }

    #[test]
    fn a_broken_pipe_says_why() {
        let mut sink = CommandSink::new(shell("exec <&-; echo 'cannot import' >&2; exit 4")).unwrap();
        let error = loop {
            if let Err(error) = sink.write_all(&[0; 100_000]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let expected = "command sh did not read all of its input: exit status: 4: cannot import";
        assert_eq!(error.to_string(), expected);
        assert!(sink.write(b"more").is_err());
        assert!(sink.finish().is_err());
    }
}
