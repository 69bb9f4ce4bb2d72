//! How a long-lived process is told to stop: Ctrl-C, SIGTERM, or, where its parent wants that, the end of its standard
//! input.

use crate::failure::Failure;
use std::io::Read;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

/// Waits for the word to stop.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    stdin: Option<oneshot::Receiver<()>>,
}

impl Stop {
    /// Begins to listen.
    pub(crate) fn new(with_stdin: bool) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::internal(format!("signals cannot be handled: {error}"));
        let stdin = with_stdin.then(|| {
            let (ended, wait) = oneshot::channel();
            // A thread of its own: the runtime would wait for a blocking read at its end.
            std::thread::spawn(move || {
                let mut sink = [0_u8; 256];
                while matches!(std::io::stdin().read(&mut sink), Ok(n) if n > 0) {}
                let _ = ended.send(());
            });
            wait
        });
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            stdin,
        })
    }

    /// Returns when it is time to stop.
    pub(crate) async fn wait(mut self) {
        let stdin = async {
            match self.stdin.take() {
                Some(ended) => drop(ended.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = stdin => {}
        }
    }
}
