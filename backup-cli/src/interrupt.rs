//! SIGINT and SIGTERM: the first asks the running operation to stop, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use backup_core::progress::CancelToken;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::exit::{Exit, Failure};

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
            }
        })
        .map_err(failed)?;
    Ok(token)
}
