//! SIGINT and SIGTERM: the first asks the running operation to stop, the second ends the process.
//!
//! While a password is waited for, or a key derived from it, nothing runs that could be asked and nothing has been written:
//! the first signal ends the process then, and leaves the terminal as it was.

use std::fs::File;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backup_core::progress::CancelToken;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::exit::{Exit, Failure};

/// What is waited for, if anything.
static WAITING: Mutex<Option<Waiting>> = Mutex::new(None);

/// What a signal must undo before it ends the process.
enum Waiting {
    /// A terminal that shows nothing of what is typed, and its state before; `None` where that is not known.
    Terminal(Option<(File, Termios)>),
    /// A command that tells the password.
    Command(Option<Pid>),
    /// A key that is derived.
    Derivation,
}

/// Ends the waiting when it goes.
pub(crate) struct WhileWaiting;

impl Drop for WhileWaiting {
    fn drop(&mut self) {
        *waiting() = None;
    }
}

/// Somebody types a password.
pub(crate) fn while_typing() -> WhileWaiting {
    let terminal = File::open("/dev/tty").ok();
    let state = terminal.and_then(|terminal| tcgetattr(&terminal).ok().map(|state| (terminal, state)));
    *waiting() = Some(Waiting::Terminal(state));
    WhileWaiting
}

/// The command with this process id tells a password.
pub(crate) fn while_running(command: u32) -> WhileWaiting {
    *waiting() = Some(Waiting::Command(i32::try_from(command).ok().and_then(Pid::from_raw)));
    WhileWaiting
}

/// A key is derived from a password, which takes long on purpose.
pub(crate) fn while_deriving() -> WhileWaiting {
    *waiting() = Some(Waiting::Derivation);
    WhileWaiting
}

fn waiting() -> MutexGuard<'static, Option<Waiting>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the process if something is waited for.
fn end_waiting() {
    match &*waiting() {
        None => return,
        // Both may have gone meanwhile.
        Some(Waiting::Terminal(Some((terminal, state)))) => drop(tcsetattr(terminal, OptionalActions::Now, state)),
        Some(Waiting::Command(Some(command))) => drop(kill_process(*command, Signal::TERM)),
        Some(Waiting::Terminal(None) | Waiting::Command(None) | Waiting::Derivation) => {}
    }
    std::process::exit(Exit::Interrupted as i32);
}

/// Installs the handlers. The token is used when the first signal arrives.
pub(crate) fn install() -> Result<CancelToken, Failure> {
    let failed = |error| Failure::io("cannot install signal handlers", error);
    let token = CancelToken::new();
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The order counts: the shutdown looks at the flag before the same signal sets it.
        flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, Arc::clone(&asked)).map_err(failed)?;
        flag::register(signal, Arc::clone(&asked)).map_err(failed)?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let cancel = token.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if signals.forever().next().is_some() {
                cancel.cancel();
                end_waiting();
            }
        })
        .map_err(failed)?;
    Ok(token)
}
