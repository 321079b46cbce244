//! The facts that a process shows on its internal listener.

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use serde_json::Value;

use crate::metrics::Page;
use crate::status::ProcessStatus;

/// The facts that a process publishes about itself.
pub trait Facts: Send + Sync + 'static {
    /// The status of the process.
    fn status(&self) -> ProcessStatus;

    /// True when the process is ready to do all of its work.
    fn ready(&self) -> bool;

    /// True for a host name of this process, apart from addresses and the machine's name.
    fn is_called(&self, _name: &str) -> bool {
        false
    }

    /// Writes the numbers of `/metrics` that the listener does not know itself.
    fn measure(&self, _page: &mut Page<'_>) {}

    /// The JSON of `/status`.
    fn page(&self) -> BoxFuture<'_, Value> {
        ready(serde_json::to_value(self.status()).unwrap_or_default()).boxed()
    }

    /// Decides whether `/readyz` answers 200; the error is one line that says why not.
    fn readiness(&self) -> Result<(), String> {
        if self.ready() { Ok(()) } else { Err("not ready".into()) }
    }
}
