//! Credentials: the certificate of a process on the internal plane, and the authorities of its
//! store, for both ends of mutual TLS.
//!
//! A folder holds `ca.pem`, the certificates of one or more authorities, and pairs `ROLE-NAME.pem`
//! and `ROLE-NAME.key`. A process takes the pair of its role and shows it as a server and as a
//! client. A pair that does not match, is not valid now, or has another issuer, role or store is
//! never used: at the start it is an error, and later the pair in use stays. No error and no
//! `Debug` output contains a key.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use tokio::time::Instant;
use tokio_rustls::{TlsConnector, TlsStream};
use webpki::EndEntityCert;

use super::certificate::{self, CertificateError, PairFiles, Usage};
use super::provider;
use super::renewal::Renewable;
use super::stream::MaybeTlsStream;
use super::subject::{Holder, Subject};
use crate::net::TcpStream;

/// The file of the authorities.
const AUTHORITIES: &str = "ca.pem";

/// The minimum time between two warnings about the certificates of other processes.
const WARNED_EVERY: Duration = Duration::from_mins(1);

/// Why a process cannot use a folder of certificates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The pair cannot be used.
    #[error("{why}; {}", issue(.holder))]
    Pair {
        /// The wanted pair.
        holder: Holder,
        /// The error.
        why: CertificateError,
    },
    /// The authorities cannot be used.
    #[error("{0}; it is in the folder of `oppidum ctl ca`: copy it from there")]
    Authorities(CertificateError),
    /// The folder has no pair for this process, or several.
    #[error("{why}; {}", issue(.holder))]
    NoPair {
        /// The wanted pair.
        holder: Holder,
        /// What was found.
        why: String,
    },
    /// The names in the certificate are not those of its file.
    #[error("{} {why}; {}", file.display(), issue(.holder))]
    OtherSubject {
        /// The wanted pair.
        holder: Holder,
        /// The file.
        file: PathBuf,
        /// The names.
        why: String,
    },
    /// The library rejects the files.
    #[error("{} cannot be used: {why}", folder.display())]
    Unusable {
        /// The folder.
        folder: PathBuf,
        /// The library's error.
        why: String,
    },
}

/// The command that makes a missing pair.
fn issue(holder: &Holder) -> String {
    let name = match holder {
        Holder::Replica(id) => id.to_string(),
        Holder::Any(_) => "NAME".to_owned(),
    };
    format!("type `oppidum ctl ca issue --dir … {} {name}`", holder.role())
}

/// The protocol that a connection is for (RFC 7301, ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2, for calls.
    Http2,
    /// HTTP/1.1, for pages.
    Http1,
}

/// Why another process is not accepted: each kind has warnings of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mismatch {
    /// A caller speaks no TLS.
    Plaintext,
    /// The handshake with a caller failed.
    Handshake,
    /// The certificate of a caller has no role in the store.
    Caller,
    /// A server is not the expected one.
    Server,
}

/// The credentials of one process. They change when its files change.
pub struct Credentials {
    folder: PathBuf,
    holder: Holder,
    subject: Arc<Subject>,
    now: RwLock<Material>,
    /// When the last warning of each kind was logged.
    warned: Mutex<BTreeMap<Mismatch, Instant>>,
}

/// What both ends of new connections use.
#[derive(Clone)]
struct Material {
    authorities: Vec<CertificateDer<'static>>,
    key: Arc<CertifiedKey>,
    server: Arc<ServerConfig>,
    calls: Arc<ClientConfig>,
    pages: Arc<ClientConfig>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Credentials");
        shown.field("folder", &self.folder).field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the pair of `holder` in a folder: that of the replica, or the only pair of the role.
    pub fn load(folder: &Path, holder: Holder) -> Result<Arc<Self>, CredentialsError> {
        let (subject, material) = read(folder, holder)?;
        Ok(Arc::new(Self {
            folder: folder.to_owned(),
            holder,
            subject: Arc::new(subject),
            now: RwLock::new(material),
            warned: Mutex::default(),
        }))
    }

    /// The subject of the certificate.
    pub fn subject(&self) -> &Arc<Subject> {
        &self.subject
    }

    /// The Unix time at which the certificate in use ends.
    pub fn not_after(&self) -> Option<u64> {
        certificate::not_after(self.now.read().key.cert.first()?)
    }

    /// Reads the files again. True: they are others, and new connections use them. This reads
    /// files: it belongs on a thread that may block.
    pub fn renew(&self) -> Result<bool, CredentialsError> {
        let (subject, new) = read(&self.folder, self.holder)?;
        if subject != *self.subject {
            let file = PairFiles::named(&self.folder, &subject.pair()).certificate();
            let why = format!("is that of {subject}, and this process is {}", self.subject);
            return Err(CredentialsError::OtherSubject { holder: self.holder, file, why });
        }
        let mut now = self.now.write();
        let is_new = now.key.cert != new.key.cert || now.authorities != new.authorities;
        if is_new {
            *now = new;
        }
        Ok(is_new)
    }

    /// The configuration of a listener for the next connection. A client need not show a
    /// certificate, but only one of the store's authorities is accepted.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        self.now.read().server.clone()
    }

    /// The subject of the certificate that a client has shown, which the handshake has verified.
    /// `None`: it has shown none.
    pub(crate) fn caller(
        &self,
        shown: Option<&[CertificateDer<'_>]>,
        from: IpAddr,
    ) -> Option<Arc<Subject>> {
        let certificate = shown?.first()?;
        let subject = subject_of(certificate);
        let subject = subject.and_then(|subject| match subject.store == self.subject.store {
            true => Ok(subject),
            false => Err(format!("is that of {subject}, and this is {}", self.subject)),
        });
        match subject {
            Ok(subject) => Some(Arc::new(subject)),
            Err(why) => {
                let what = format_args!("the certificate of the caller at {from} {why}");
                self.warn(Mismatch::Caller, what);
                None
            }
        }
    }

    /// Performs the client's part of a handshake with `server`.
    ///
    /// # Errors
    ///
    /// Why the server was not accepted, or the connection failed, as a sentence for the operator.
    pub(crate) async fn connect(
        &self,
        server: Holder,
        protocol: Protocol,
        stream: TcpStream,
    ) -> Result<MaybeTlsStream, String> {
        let config = {
            let now = self.now.read();
            match protocol {
                Protocol::Http2 => now.calls.clone(),
                Protocol::Http1 => now.pages.clone(),
            }
        };
        let store = &self.subject.store;
        let name = ServerName::try_from(server.dns_name(store)).map_err(|e| e.to_string())?;
        match TlsConnector::from(config).connect(name, stream).await {
            Ok(connected) => {
                let stream = MaybeTlsStream::from(TlsStream::from(connected));
                match self.check_server(server, stream.shown_certificates()) {
                    Ok(()) => Ok(stream),
                    Err(why) => {
                        self.warn(Mismatch::Server, format_args!("{why}"));
                        Err(why)
                    }
                }
            }
            Err(error) => {
                let why = self.explained(server, &error);
                if let Some(why) = &why {
                    self.warn(Mismatch::Server, format_args!("{why}"));
                }
                Err(why.unwrap_or_else(|| format!("the handshake failed: {error}")))
            }
        }
    }

    /// Checks that the certificate of a server has this role and no other name under `oppidum`.
    fn check_server(
        &self,
        server: Holder,
        shown: Option<&[CertificateDer<'_>]>,
    ) -> Result<(), String> {
        let store = &self.subject.store;
        let first =
            shown.and_then(|shown| shown.first()).ok_or("the server shows no certificate")?;
        let subject =
            subject_of(first).map_err(|why| format!("the certificate of {server} {why}"))?;
        if subject.store == *store && server.is(&subject) {
            Ok(())
        } else {
            Err(format!("a server is not accepted as {server} of store {store}: it is {subject}"))
        }
    }

    /// Why the certificates of both ends do not fit. `None`: the connection itself failed.
    fn explained(&self, server: Holder, error: &io::Error) -> Option<String> {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())?;
        let store = &self.subject.store;
        let why = match inner {
            rustls::Error::InvalidMessage(_) => {
                return Some(format!(
                    "no TLS with {server} of store {store}: a process without --tls, or another \
                     program, answers at its address"
                ));
            }
            rustls::Error::InvalidCertificate(why) => why.to_string(),
            other => other.to_string(),
        };
        Some(format!("a server is not accepted as {server} of store {store}: {why}"))
    }

    /// Warns about another process, at most once a minute for each kind.
    pub(crate) fn warn(&self, kind: Mismatch, what: fmt::Arguments<'_>) {
        let mut warned = self.warned.lock();
        if warned.get(&kind).is_none_or(|last| WARNED_EVERY <= last.elapsed()) {
            warned.insert(kind, Instant::now());
            drop(warned);
            tracing::warn!("{what}");
        }
    }
}

impl Renewable for Credentials {
    fn read_again(&self) -> Result<bool, String> {
        self.renew().map_err(|error| error.to_string())
    }

    fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The subject in a certificate.
fn subject_of(certificate: &CertificateDer<'_>) -> Result<Subject, String> {
    let parsed = EndEntityCert::try_from(certificate).map_err(|error| format!("is {error:?}"))?;
    Subject::of_names(parsed.valid_dns_names())
}

/// Reads and checks the authorities and the pair of `holder`.
fn read(folder: &Path, holder: Holder) -> Result<(Subject, Material), CredentialsError> {
    let files = PairFiles::named(folder, &pair_of(folder, holder)?);
    let file = files.certificate();
    let pair = |why| CredentialsError::Pair { holder, why };
    let key = certificate::read(&files).map_err(pair)?;
    let authorities = certificate::certificates(&folder.join(AUTHORITIES));
    let authorities = authorities.map_err(CredentialsError::Authorities)?;
    let unusable = |why: &dyn fmt::Display| CredentialsError::Unusable {
        folder: folder.to_owned(),
        why: why.to_string(),
    };
    let anchors: Result<Vec<TrustAnchor<'_>>, _> =
        authorities.iter().map(webpki::anchor_from_trusted_cert).collect();
    let anchors = anchors.map_err(|error| unusable(&format!("{AUTHORITIES}: {error:?}")))?;
    let Some((first, chain)) = key.cert.split_first() else {
        return Err(unusable(&"it holds no certificate"));
    };
    for usage in [Usage::Server, Usage::Client] {
        certificate::verify((first, chain), &anchors, usage, &file).map_err(pair)?;
    }
    let other = |why| CredentialsError::OtherSubject { holder, file: file.clone(), why };
    let subject = subject_of(first).map_err(other)?;
    if !holder.is(&subject) {
        return Err(other(format!("is that of {subject}")));
    }
    let material = configure(authorities, key).map_err(|error| unusable(&error))?;
    Ok((subject, material))
}

/// The name of the pair of `holder` in a folder.
fn pair_of(folder: &Path, holder: Holder) -> Result<String, CredentialsError> {
    let unreadable = |error: io::Error| {
        let (file, why) = (folder.to_owned(), error.to_string());
        CredentialsError::Pair { holder, why: CertificateError::Unreadable { file, why } }
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let pair = name.to_str().and_then(|name| name.strip_suffix(".pem"));
        found.extend(pair.filter(|pair| Subject::parse_pair(pair).is_some()).map(str::to_owned));
    }
    found.sort();
    let is_wanted = |pair: &&String| match holder {
        Holder::Replica(_) => **pair == holder.to_string(),
        Holder::Any(role) => Subject::parse_pair(pair).is_some_and(|(its, _)| its == role),
    };
    let wanted: Vec<&String> = found.iter().filter(is_wanted).collect();
    let folder = folder.display();
    let why = match wanted.as_slice() {
        [one] => return Ok((*one).clone()),
        [] if found.is_empty() => format!("{folder} holds no certificate of {holder}"),
        [] => format!("{folder} holds no certificate of {holder}, only {}", found.join(", ")),
        several => {
            let several: Vec<&str> = several.iter().map(|pair| pair.as_str()).collect();
            format!(
                "{folder} holds {}, and one is needed: remove the others, or",
                several.join(", ")
            )
        }
    };
    Err(CredentialsError::NoPair { holder, why })
}

/// The configurations of both ends: TLS 1.3 only, and each connection proves its certificate
/// anew, so none outlives its certificate by a ticket.
fn configure(
    authorities: Vec<CertificateDer<'static>>,
    key: CertifiedKey,
) -> Result<Material, rustls::Error> {
    let key = Arc::new(key);
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots.add(authority.clone())?;
    }
    let roots = Arc::new(roots);
    let shown = || Arc::new(SingleCertAndKey::from(key.clone()));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider());
    let verifier = verifier.allow_unauthenticated().build();
    let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
    let server = ServerConfig::builder_with_provider(provider());
    let server = server.with_protocol_versions(&[&version::TLS13])?;
    let server = server.with_client_cert_verifier(verifier);
    let mut server = server.with_cert_resolver(shown());
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let client = ClientConfig::builder_with_provider(provider());
    let client = client.with_protocol_versions(&[&version::TLS13])?;
    let client = client.with_root_certificates(roots);
    let mut client = client.with_client_cert_resolver(shown());
    client.resumption = Resumption::disabled();
    let with = |protocol: &[u8]| {
        let mut config = client.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    };
    let (calls, pages) = (with(b"h2"), with(b"http/1.1"));
    Ok(Material { authorities, key, server: Arc::new(server), calls, pages })
}

#[cfg(test)]
mod tests;
