//! Renews the certificate of the public port while the frontend runs.
//!
//! The files are read every [`RENEWAL_PERIOD`] and at each SIGHUP. New connections get the new
//! certificate; open ones go on. Files that cannot be used are reported once, and the certificate
//! in use stays.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use wire::tls::certificate::ServerCertificate;

use crate::limits::RENEWAL_PERIOD;

/// Renews until `stop`.
pub(crate) async fn run(certificate: Arc<ServerCertificate>, stop: &CancellationToken) {
    let caught = signal(SignalKind::hangup());
    let mut hangups = caught.inspect_err(|error| tracing::warn!("no SIGHUP: {error}")).ok();
    let folder = certificate.folder().display().to_string();
    let mut reported = None;
    loop {
        let is_asked = tokio::select! {
            () = tokio::time::sleep(RENEWAL_PERIOD) => false,
            () = hangup(hangups.as_mut()) => true,
            () = stop.cancelled() => return,
        };
        let read = certificate.clone();
        let renewed = match tokio::task::spawn_blocking(move || read.renew()).await {
            Ok(renewed) => renewed,
            Err(error) => {
                tracing::error!("the certificate in {folder} cannot be read again: {error}");
                continue;
            }
        };
        match renewed {
            Ok(true) => tracing::info!("new connections use the new certificate in {folder}"),
            Ok(false) if is_asked => {
                tracing::info!("the certificate in {folder} is in use already");
            }
            Ok(false) => {}
            Err(error) if is_asked || reported.as_ref() != Some(&error) => {
                tracing::warn!("{error}; the certificate in use stays");
                reported = Some(error);
                continue;
            }
            Err(_) => continue,
        }
        reported = None;
    }
}

/// Waits for the next SIGHUP.
async fn hangup(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
