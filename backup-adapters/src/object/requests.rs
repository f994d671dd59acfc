//! Asynchronous requests for callers that block.

use std::future::Future;
use std::io;
use std::sync::mpsc;

use backup_core::storage::StorageError;
use tokio::runtime::{Builder, Runtime};

/// Enough to sign, encrypt and copy what the network takes; requests that wait need no thread.
const THREADS: usize = 2;

/// The threads that run the requests of one storage.
#[derive(Debug)]
pub(super) struct Requests(Option<Runtime>);

impl Requests {
    pub(super) fn new() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("object-storage")
            .enable_io()
            .enable_time()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs a request to its end while the caller waits.
    ///
    /// The caller waits on a channel and not with `block_on`, which panics on threads of other runtimes.
    pub(super) fn run<T, F>(&self, request: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StorageError>> + Send + 'static,
    {
        let ended = || StorageError::Other("the request ended without an answer".into());
        let Some(runtime) = &self.0 else { return Err(ended()) };
        let (sender, receiver) = mpsc::sync_channel(1);
        runtime.spawn(async move {
            // Nobody waits any more only where the caller's thread is gone.
            let _ = sender.send(request.await);
        });
        receiver.recv().unwrap_or_else(|_| Err(ended()))
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        // Dropping a runtime waits, which panics on threads of other runtimes. Nothing is under way here.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
