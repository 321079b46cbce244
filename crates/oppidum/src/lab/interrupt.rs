//! Ctrl-C: the first signal ends an experiment in order, the second in a hurry; neither leaves
//! processes or folders behind.

use tokio_util::sync::CancellationToken;
use wire::exit::Stop;

use crate::lab::remark;
use crate::output;
use crate::signals::Signals;

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
                if output::notes_to_a_terminal() {
                    // What was being written stays on its own line.
                    remark("");
                }
                Err(Self::stop())
            }
        }
    }
}
