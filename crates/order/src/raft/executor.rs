//! Runs blocking work: on threads beside the runtime or, in a simulation, inline in the caller.
//!
//! A simulation runs on one thread, so that a seed decides everything. There the caller does the
//! work at once and then waits for the time that a disk would take, before it reports the work as
//! done: a crash in that time finds the work half done.

use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;

/// Runs blocking work.
#[derive(Clone, Default)]
pub enum Executor {
    /// On the runtime's blocking threads.
    #[default]
    Threads,
    /// In the calling task, which then waits for the future that this function returns.
    Inline(Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>),
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Threads => "Threads",
            Self::Inline(_) => "Inline",
        })
    }
}

impl Executor {
    /// Does blocking work without holding up other tasks.
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
