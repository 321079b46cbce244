//! Waiting for a moment that there may not be.

use tokio::time::Instant;

/// Returns at that moment, or never when there is none.
pub async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
