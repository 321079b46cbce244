//! Ctrl-C: the first signal ends an experiment in order, the second in a hurry; neither leaves
//! processes or folders behind.

use std::io::IsTerminal;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use wire::exit::Stop;

use crate::lab::remark;

/// Whether somebody wishes this to end.
#[derive(Debug)]
pub(crate) struct Interrupt {
    stop: CancellationToken,
    hurry: CancellationToken,
}

impl Interrupt {
    /// From now on signals end the experiment and not the program.
    pub(crate) fn listen() -> Result<Self, Stop> {
        let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        for kind in kinds {
            let (stop, hurry) = (stop.clone(), hurry.clone());
            let mut signals = signal(kind)
                .map_err(|error| Stop::Setup(format!("signals cannot be heard: {error}")))?;
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    if stop.is_cancelled() {
                        hurry.cancel();
                    }
                    stop.cancel();
                }
            });
        }
        Ok(Self { stop, hurry })
    }

    /// Waits for the first signal.
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Waits for the second.
    pub(crate) async fn hurried(&self) {
        self.hurry.cancelled().await;
    }

    /// What an experiment that was stopped comes to.
    pub(crate) fn stop() -> Stop {
        Stop::Setup("stopped before the end".into())
    }

    /// Goes on until it is done or somebody wishes it to end.
    pub(crate) async fn unless<T>(
        &self,
        doing: impl Future<Output = Result<T, Stop>>,
    ) -> Result<T, Stop> {
        tokio::select! {
            done = doing => done,
            () = self.stopped() => {
                if std::io::stderr().is_terminal() {
                    // What was being written stays on its own line.
                    remark("");
                }
                Err(Self::stop())
            }
        }
    }
}
