//! The certificate of a listener: read from a folder, checked, and renewed while the process runs.
//!
//! A folder holds `cert.pem`, the certificate with its chain, and `key.pem`, its private key. A
//! pair that does not match, or is not valid now, is never used: at the start it is an error, and
//! later the pair in use stays. No error and no `Debug` output contains a key.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use webpki::{EndEntityCert, KeyUsage};

use super::provider;
use super::renewal::Renewable;
use crate::wall_clock::{date, since_epoch, time_of_day};

/// The file of the certificate and its chain.
const CERTIFICATE: &str = "cert.pem";

/// The file of the private key.
const KEY: &str = "key.pem";

/// Why a pair cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A file is missing or cannot be read.
    #[error("{} cannot be read: {why}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The system's error.
        why: String,
    },
    /// A file has no usable content.
    #[error("{} holds no {what}: {why}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What was expected.
        what: &'static str,
        /// The error of the parser.
        why: String,
    },
    /// The certificate and the key belong to different pairs.
    #[error("{0} are not a pair: put the key of this certificate beside it")]
    Mismatch(PairFiles),
    /// No authority that is trusted has issued the certificate.
    #[error("{} was issued by no authority in ca.pem", .0.display())]
    Foreign(PathBuf),
    /// The certificate is not valid now.
    #[error("{} {why}", file.display())]
    NotValid {
        /// The file.
        file: PathBuf,
        /// Since when, or until when.
        why: String,
    },
}

/// The two files of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    folder: PathBuf,
    certificate: String,
    key: String,
}

impl PairFiles {
    /// The files of a public port: `cert.pem` and `key.pem`.
    fn of_public_port(folder: &Path) -> Self {
        let (certificate, key) = (CERTIFICATE.to_owned(), KEY.to_owned());
        Self { folder: folder.to_owned(), certificate, key }
    }

    /// The files `NAME.pem` and `NAME.key`.
    pub(super) fn named(folder: &Path, name: &str) -> Self {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        Self { folder: folder.to_owned(), certificate, key }
    }

    /// The file of the certificate.
    pub(super) fn certificate(&self) -> PathBuf {
        self.folder.join(&self.certificate)
    }
}

impl fmt::Display for PairFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and {} in {}", self.certificate, self.key, self.folder.display())
    }
}

/// The certificate that a listener shows.
pub struct ServerCertificate {
    folder: PathBuf,
    now: RwLock<Arc<CertifiedKey>>,
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl ServerCertificate {
    /// Reads the pair in a folder.
    pub fn load(folder: &Path) -> Result<Arc<Self>, CertificateError> {
        let now = RwLock::new(Arc::new(read(&PairFiles::of_public_port(folder))?));
        Ok(Arc::new(Self { folder: folder.to_owned(), now }))
    }

    /// The Unix time at which the certificate in use ends.
    pub fn not_after(&self) -> Option<u64> {
        not_after(self.now.read().cert.first()?)
    }

    /// Reads the pair again. True: it is another one, and new connections use it. This reads files:
    /// it belongs on a thread that may block.
    pub fn renew(&self) -> Result<bool, CertificateError> {
        let new = read(&PairFiles::of_public_port(&self.folder))?;
        let is_new = self.now.read().cert != new.cert;
        if is_new {
            *self.now.write() = Arc::new(new);
        }
        Ok(is_new)
    }
}

impl Renewable for ServerCertificate {
    fn read_again(&self) -> Result<bool, String> {
        self.renew().map_err(|error| error.to_string())
    }

    fn folder(&self) -> &Path {
        &self.folder
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now.read().clone())
    }
}

/// The configuration of a listener that speaks HTTP/1.1 over TLS 1.2 and 1.3.
pub fn server_config(
    certificate: Arc<ServerCertificate>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let versions = [&version::TLS13, &version::TLS12];
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&versions)?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A returning client needs no signature, and the server remembers no session.
    config.ticketer = ring::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// Reads a pair that is valid now. The issuer is not checked.
pub(super) fn read(files: &PairFiles) -> Result<CertifiedKey, CertificateError> {
    let (file, key_file) = (files.certificate(), files.folder.join(&files.key));
    let chain = certificates(&file)?;
    let Some(first) = chain.first() else {
        return Err(malformed(&file, "certificate", "there is no BEGIN CERTIFICATE in it"));
    };
    check(first, &file)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(&key_file)?);
    let key = key.map_err(|_| malformed(&key_file, "private key", "it is no PEM of a key"))?;
    CertifiedKey::from_der(chain.clone(), key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch(files.clone()),
        error => malformed(&key_file, "usable private key", &error.to_string()),
    })
}

/// Reads the certificates in a file.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let pem = bytes(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    // The parser's errors quote lines, and a misplaced key would be one of them.
    all.map_err(|_| malformed(file, "certificate", "it is not PEM, or cut off"))
}

fn malformed(file: &Path, what: &'static str, why: &str) -> CertificateError {
    CertificateError::Malformed { file: file.to_owned(), what, why: why.to_owned() }
}

fn bytes(file: &Path) -> Result<Vec<u8>, CertificateError> {
    let odd = |error: std::io::Error| CertificateError::Unreadable {
        file: file.to_owned(),
        why: error.to_string(),
    };
    fs::read(file).map_err(odd)
}

/// Checks that a certificate is valid now, for a server. Its issuer is for the client to judge.
fn check(certificate: &CertificateDer<'_>, file: &Path) -> Result<(), CertificateError> {
    // Without trust anchors the issuer is always unknown.
    match verify((certificate, &[]), &[], Usage::Server, file) {
        Err(CertificateError::Foreign(_)) => Ok(()),
        checked => checked,
    }
}

/// The Unix time at which a certificate ends: what the library says of it at the end of time.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<u64> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    let checked = parsed.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &[],
        &[],
        UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX)),
        KeyUsage::server_auth(),
        None,
        None,
    );
    match checked.err()? {
        webpki::Error::CertExpired { not_after, .. } => Some(not_after.as_secs()),
        _ => None,
    }
}

/// The end of a connection that shows a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Server,
    Client,
}

/// Checks that a certificate with its chain is valid now for this usage, under these authorities.
pub(super) fn verify(
    (certificate, chain): (&CertificateDer<'_>, &[CertificateDer<'_>]),
    authorities: &[TrustAnchor<'_>],
    usage: Usage,
    file: &Path,
) -> Result<(), CertificateError> {
    let not_valid = |why: String| CertificateError::NotValid { file: file.to_owned(), why };
    let parsed = EndEntityCert::try_from(certificate)
        .map_err(|error| malformed(file, "certificate", &format!("{error:?}")))?;
    let checked = parsed.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        authorities,
        chain,
        UnixTime::since_unix_epoch(since_epoch()),
        match usage {
            Usage::Server => KeyUsage::server_auth(),
            Usage::Client => KeyUsage::client_auth(),
        },
        None,
        None,
    );
    match checked.err() {
        None => Ok(()),
        Some(webpki::Error::CertExpired { not_after, .. }) => {
            let ended = moment(not_after);
            Err(not_valid(format!("expired at {ended}: renew it, or set this machine's clock")))
        }
        Some(webpki::Error::CertNotValidYet { not_before, .. }) => {
            let begins = moment(not_before);
            Err(not_valid(format!("is not valid before {begins}: set this machine's clock")))
        }
        Some(webpki::Error::RequiredEkuNotFoundContext(_)) => {
            let end = match usage {
                Usage::Server => "server",
                Usage::Client => "client",
            };
            Err(not_valid(format!("is not a certificate for a {end}")))
        }
        Some(_) => Err(CertificateError::Foreign(file.to_owned())),
    }
}

/// A moment in UTC, to the second.
fn moment(at: UnixTime) -> String {
    let since = Duration::from_secs(at.as_secs());
    let time = time_of_day(since);
    format!("{} {} UTC", date(since), time.split('.').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// Writes a pair that is valid between two years.
    fn write(folder: &Path, from: i32, to: i32) -> KeyPair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["shop".to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.join(CERTIFICATE), certificate.pem()).unwrap();
        fs::write(folder.join(KEY), key.serialize_pem()).unwrap();
        key
    }

    #[test]
    fn a_new_pair_is_used_and_a_bad_one_leaves_the_old_one_in_use() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 2020, 3000);
        let certificate = ServerCertificate::load(folder.path()).unwrap();
        let first = certificate.now.read().clone();
        assert_eq!(certificate.not_after(), Some(32_503_680_000), "the first day of 3000");
        assert_eq!(certificate.renew(), Ok(false), "the files are the same");
        write(folder.path(), 2021, 3000);
        assert_eq!(certificate.renew(), Ok(true));
        let second = certificate.now.read().clone();
        assert_ne!(first.cert, second.cert);
        // Half of a renewal, an expired pair, and a missing file.
        fs::write(folder.path().join(KEY), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let mismatch = certificate.renew().unwrap_err();
        let files = PairFiles::of_public_port(folder.path());
        assert_eq!(mismatch, CertificateError::Mismatch(files));
        write(folder.path(), 2020, 2021);
        assert!(certificate.renew().is_err());
        fs::remove_file(folder.path().join(KEY)).unwrap();
        assert!(certificate.renew().is_err());
        assert_eq!(certificate.now.read().cert, second.cert, "the last good pair stays");
    }

    /// Kind: an error that does not say which file to mend, or that shows a key.
    #[test]
    fn an_unusable_pair_is_refused_with_its_file_and_without_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let key = write(folder.path(), 2020, 3000).serialize_pem();
        let secret: String = key.lines().nth(1).unwrap().chars().take(20).collect();
        let (file, key_file) = (folder.path().join(CERTIFICATE), folder.path().join(KEY));
        let pem = fs::read_to_string(&file).unwrap();
        let refused = |words: &[&str]| {
            let error = ServerCertificate::load(folder.path()).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
            assert!(!text.contains(&secret), "{text}");
        };
        // A key whose line ends were lost, in the wrong file.
        let one_line = key.replace('\n', "");
        for (content, words) in [
            (&*one_line, ["cert.pem", "not PEM"]),
            ("", ["cert.pem", "no certificate"]),
            (&key, ["cert.pem", "no certificate"]),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ["cert.pem", "no"]),
        ] {
            fs::write(&file, content).unwrap();
            refused(&words);
        }
        fs::write(&file, &pem).unwrap();
        for content in ["", &pem, &key[..key.len() / 2]] {
            fs::write(&key_file, content).unwrap();
            refused(&["key.pem", "no private key"]);
        }
        fs::remove_file(&key_file).unwrap();
        refused(&["key.pem", "cannot be read"]);
        write(folder.path(), 2020, 2021);
        refused(&["cert.pem", "expired at 2021-01-01 00:00:00 UTC"]);
        write(folder.path(), 2999, 3000);
        refused(&["cert.pem", "not valid before 2999-01-01"]);
    }

    #[test]
    fn debug_output_of_a_certificate_has_no_key() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 2020, 3000);
        let shown = format!("{:?}", ServerCertificate::load(folder.path()).unwrap());
        assert!(shown.contains("folder") && !shown.to_lowercase().contains("key"), "{shown}");
    }
}
