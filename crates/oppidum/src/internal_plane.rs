//! The internal plane: the credentials of a process, and the routes of the tools.
//!
//! A tool reads the operator's certificate when it first dials a process, so that commands of the
//! public plane need none. Of a store that `up` runs on this machine, it finds the certificate
//! without a flag.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use wire::dial::Route;
use wire::exit::Stop;
use wire::tls::credentials::Credentials;
use wire::tls::subject::{CertificateRole, Holder};

use crate::address::is_loopback;
use crate::listeners;

/// The folder of the operator's certificate. `None`: the tools dial in plaintext.
static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();

/// The operator's credentials, once a tool has needed them.
static OPERATOR: OnceLock<Arc<Credentials>> = OnceLock::new();

/// The credentials of a process or of an operator, in a folder.
pub(crate) fn load(folder: &Path, holder: Holder) -> Result<Arc<Credentials>, Stop> {
    Credentials::load(folder, holder).map_err(|error| Stop::Setup(format!("tls: {error}")))
}

/// Notes the folder from which this tool takes the operator's certificate. Only the first call
/// counts.
pub(crate) fn set_folder(folder: Option<PathBuf>) {
    let _ = FOLDER.set(folder);
}

/// Looks for the folder of the operator's certificate, if none was given: the process at `url` may
/// be one of this machine and this user, and have it in its command line, as under `up`.
pub(crate) async fn find_folder(url: &str) {
    if FOLDER.get().is_some() {
        return;
    }
    let uri: http::Uri = url.parse().unwrap_or_default();
    let port = uri.port_u16().filter(|_| uri.host().is_some_and(is_loopback));
    let found = match port {
        Some(port) => tokio::task::spawn_blocking(move || of_process(port)).await.ok().flatten(),
        None => None,
    };
    set_folder(found);
}

/// The folder of certificates of the process that listens on a port, if it has an operator's.
/// Blocking.
fn of_process(port: u16) -> Option<PathBuf> {
    let folder = listeners::folder_of(port, "--tls")?;
    let operator = format!("{}-", CertificateRole::Operator);
    let mut files = std::fs::read_dir(&folder).ok()?.flatten();
    files.any(|file| file.file_name().to_string_lossy().starts_with(&operator)).then_some(folder)
}

/// True if this tool has no folder of certificates, and dials in plaintext.
pub(crate) fn is_plaintext() -> bool {
    FOLDER.get().is_none_or(Option::is_none)
}

/// The route of a tool to processes of this role.
pub(crate) fn route(role: CertificateRole) -> Result<Route, Stop> {
    route_to(Holder::Any(role))
}

fn route_to(server: Holder) -> Result<Route, Stop> {
    let Some(folder) = FOLDER.get().and_then(Option::as_ref) else {
        return Ok(Route::plaintext());
    };
    if let Some(credentials) = OPERATOR.get() {
        return Ok(Route::to(server, Some(credentials)));
    }
    let credentials = load(folder, Holder::Any(CertificateRole::Operator))?;
    Ok(Route::to(server, Some(OPERATOR.get_or_init(|| credentials))))
}

/// The route of a tool to the replica with this id, or to any if the id is not known. No other
/// process passes for it, even at an address that a page told wrongly.
pub(crate) fn to_replica(id: Option<u64>) -> Result<Route, Stop> {
    route_to(id.map_or(Holder::Any(CertificateRole::Order), Holder::Replica))
}
