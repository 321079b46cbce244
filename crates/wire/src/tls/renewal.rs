//! Renewal of certificates while a process runs.
//!
//! The files are read every [`RENEWAL_PERIOD`] and at each SIGHUP. New connections get the new
//! certificate; open ones go on. Files that cannot be used are reported once, and the certificate
//! in use stays.

use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::limits::RENEWAL_PERIOD;

/// A certificate in files that may be replaced while it is in use.
pub trait Renewable: Send + Sync + 'static {
    /// Reads the files again. True: new connections use another certificate from now on. This
    /// reads files: it belongs on a thread that may block.
    ///
    /// # Errors
    ///
    /// Why the files cannot be used, as a sentence for the operator.
    fn read_again(&self) -> Result<bool, String>;

    /// The folder of the files.
    fn folder(&self) -> &Path;
}

/// Renews these certificates, which may be none, until `stop`.
pub async fn run(certificates: Vec<Arc<dyn Renewable>>, stop: &CancellationToken) {
    let caught = signal(SignalKind::hangup());
    let mut hangups = caught.inspect_err(|error| tracing::warn!("no SIGHUP: {error}")).ok();
    let mut reported = vec![None; certificates.len()];
    loop {
        let is_asked = tokio::select! {
            () = tokio::time::sleep(RENEWAL_PERIOD), if !certificates.is_empty() => false,
            () = hangup(hangups.as_mut()) => true,
            () = stop.cancelled() => return,
        };
        if certificates.is_empty() {
            tracing::info!("SIGHUP: this process has no certificates that could be read again");
        }
        for (certificate, reported) in certificates.iter().zip(&mut reported) {
            renew(certificate, is_asked, reported).await;
        }
    }
}

/// Renews one certificate, and logs the result. `reported`: the error that was logged last.
async fn renew(certificate: &Arc<dyn Renewable>, is_asked: bool, reported: &mut Option<String>) {
    let folder = certificate.folder().display();
    let read = certificate.clone();
    let renewed = match tokio::task::spawn_blocking(move || read.read_again()).await {
        Ok(renewed) => renewed,
        Err(error) => {
            tracing::error!("the certificate in {folder} cannot be read again: {error}");
            return;
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
            *reported = Some(error);
            return;
        }
        Err(_) => return,
    }
    *reported = None;
}

/// Waits for the next SIGHUP.
async fn hangup(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
