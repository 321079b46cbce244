//! Optional timer: waits for a moment that may be absent.

use tokio::time::Instant;

/// Returns at `due`; without one it never returns, so that a `select!` branch stays pending.
pub async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
