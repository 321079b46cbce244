//! Ctrl-C in an experiment: the first signal ends it in order, the second by force; neither leaves
//! processes or folders behind.

use tokio_util::sync::CancellationToken;
use wire::exit::Stop;

use crate::lab::remark;
use crate::output;
use crate::signals::Signals;

/// The requests to end an experiment.
#[derive(Debug)]
pub(crate) struct Interrupt {
    stop: CancellationToken,
    hurry: CancellationToken,
}

impl Interrupt {
    /// Catches signals from now on: they end the experiment, not the program.
    pub(crate) fn listen() -> Result<Self, Stop> {
        let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
        let mut signals = Signals::catch()?;
        let (first, second) = (stop.clone(), hurry.clone());
        tokio::spawn(async move {
            loop {
                signals.next().await;
                if first.is_cancelled() {
                    second.cancel();
                }
                first.cancel();
            }
        });
        Ok(Self { stop, hurry })
    }

    /// Waits for the first signal.
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Waits for the second signal.
    pub(crate) async fn hurried(&self) {
        self.hurry.cancelled().await;
    }

    /// The result of an interrupted experiment.
    pub(crate) fn stop() -> Stop {
        Stop::Setup("stopped before the end".into())
    }

    /// Runs a future until it completes or the first signal arrives.
    pub(crate) async fn unless<T>(
        &self,
        doing: impl Future<Output = Result<T, Stop>>,
    ) -> Result<T, Stop> {
        tokio::select! {
            done = doing => done,
            () = self.stopped() => {
                if output::notes_to_a_terminal() {
                    // Keeps an unfinished line of the terminal apart from the next one.
                    remark("");
                }
                Err(Self::stop())
            }
        }
    }
}
