//! Renews the certificate of the public port while the frontend runs.
//!
//! The files are read every [`RENEWAL_PERIOD`] and at each SIGHUP. New connections get the new
//! certificate; open ones go on. Files that cannot be used are reported once, and the certificate
//! in use stays.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use wire::tls::certificate::ServerCertificate;

use crate::limits::RENEWAL_PERIOD;

/// Renews until `stop`.
pub(crate) async fn run(certificate: Arc<ServerCertificate>, stop: &CancellationToken) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => return tracing::warn!("SIGHUP cannot be caught: {error}"),
    };
    let folder = certificate.folder().display().to_string();
    let mut reported = None;
    loop {
        let is_asked = tokio::select! {
            () = tokio::time::sleep(RENEWAL_PERIOD) => false,
            _ = hangups.recv() => true,
            () = stop.cancelled() => return,
        };
        let read = certificate.clone();
        let Ok(renewed) = tokio::task::spawn_blocking(move || read.renew()).await else { return };
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
