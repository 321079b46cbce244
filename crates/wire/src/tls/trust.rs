//! The certificate authorities that a client trusts, and its part of a handshake.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, TlsStream};

use super::provider;
use super::stream::MaybeTlsStream;
use crate::net::TcpStream;

/// The certificate authorities that a client trusts.
#[derive(Clone)]
pub struct Trust(TlsConnector);

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

impl Trust {
    /// The authorities in a file of certificates, or those of the system.
    ///
    /// # Errors
    ///
    /// Why no authority could be loaded, as a sentence for the operator.
    pub fn load(file: Option<&Path>) -> Result<Self, String> {
        let certificates = match file {
            Some(file) => of_file(file)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let mut roots = RootCertStore::empty();
        let (known, _) = roots.add_parsable_certificates(certificates);
        if known == 0 {
            return Err(match file {
                Some(file) => format!("{} holds no certificate", file.display()),
                None => {
                    "this system has no certificate authorities: install `ca-certificates`, or \
                         name a file of them (`--ca-file`)"
                        .to_owned()
                }
            });
        }
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Performs the client's part of a handshake with a server of this name.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> Result<MaybeTlsStream, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let connected = self.0.connect(name, stream).await.map_err(|error| advised(&error))?;
        Ok(TlsStream::from(connected).into())
    }
}

/// The error of a handshake, with what to do.
fn advised(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let advice = match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "; its certificate authority is not trusted here: name its file (`--ca-file`)"
        }
        Some(rustls::Error::InvalidMessage(_)) => "; the server speaks no TLS: try http://",
        Some(error) if error.to_string().contains("CaUsedAsEndEntity") => {
            "; the server shows the certificate of an authority (CA:TRUE), not one of its own"
        }
        _ => "",
    };
    format!("{error}{advice}")
}

fn of_file(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let odd = |why: String| format!("{} cannot be read: {why}", file.display());
    let bytes = std::fs::read(file).map_err(|error| odd(error.to_string()))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    all.map_err(|_| odd("it is not PEM, or cut off".to_owned()))
}
