//! Who does the work that blocks: threads beside the runtime or, in a simulation, whoever asks.
//!
//! A simulation runs on one thread, so that a seed decides everything. There the work is done at
//! once, and what a disk would have taken for it is waited for afterwards, before anybody hears
//! that it is done: a crash in that time finds it half done.

use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;

/// Who does the work that blocks.
#[derive(Clone, Default)]
pub enum Hand {
    /// Threads of their own.
    #[default]
    Threads,
    /// Whoever asks; then it waits for as long as this says.
    Inline(Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>),
}

impl std::fmt::Debug for Hand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Threads => "Threads",
            Self::Inline(_) => "Inline",
        })
    }
}

impl Hand {
    /// Does work that blocks, and holds up nothing else meanwhile.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(task).await.map_err(io::Error::other)?,
            Self::Inline(took) => {
                let done = task();
                took().await;
                done
            }
        }
    }
}
