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
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use webpki::{EndEntityCert, KeyUsage};

use super::provider;
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
    #[error(
        "{CERTIFICATE} and {KEY} in {} are not a pair: put the key of this certificate beside it",
        .0.display()
    )]
    Mismatch(PathBuf),
    /// The certificate is not valid now.
    #[error("{} {why}", file.display())]
    NotValid {
        /// The file.
        file: PathBuf,
        /// Since when, or until when.
        why: String,
    },
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
        let now = RwLock::new(Arc::new(read(folder)?));
        Ok(Arc::new(Self { folder: folder.to_owned(), now }))
    }

    /// Reads the pair again. True: it is another one, and new connections use it. This reads files:
    /// it belongs on a thread that may block.
    pub fn renew(&self) -> Result<bool, CertificateError> {
        let new = read(&self.folder)?;
        let is_new = self.now.read().cert != new.cert;
        if is_new {
            *self.now.write() = Arc::new(new);
        }
        Ok(is_new)
    }

    /// The folder of the pair.
    pub fn folder(&self) -> &Path {
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

fn read(folder: &Path) -> Result<CertifiedKey, CertificateError> {
    let (file, key_file) = (folder.join(CERTIFICATE), folder.join(KEY));
    let malformed = |file: &Path, what, why: &dyn fmt::Display| CertificateError::Malformed {
        file: file.to_owned(),
        what,
        why: why.to_string(),
    };
    let chain = bytes(&file)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
    // The parser's errors quote lines, and a misplaced key would be one of them.
    let chain = chain.map_err(|_| malformed(&file, "certificate", &"it is not PEM, or cut off"))?;
    let Some(first) = chain.first() else {
        return Err(malformed(&file, "certificate", &"there is no BEGIN CERTIFICATE in it"));
    };
    check(first, &file)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(&key_file)?);
    let key = key.map_err(|_| malformed(&key_file, "private key", &"it is no PEM of a key"))?;
    CertifiedKey::from_der(chain.clone(), key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch(folder.to_owned()),
        error => malformed(&key_file, "usable private key", &error),
    })
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
    let not_valid = |why: String| CertificateError::NotValid { file: file.to_owned(), why };
    let parsed = EndEntityCert::try_from(certificate).map_err(|error| {
        let why = format!("{error:?}");
        CertificateError::Malformed { file: file.to_owned(), what: "certificate", why }
    })?;
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    let usage = KeyUsage::server_auth();
    let checked = parsed.verify_for_usage(
        algorithms,
        &[],
        &[],
        UnixTime::since_unix_epoch(since_epoch()),
        usage,
        None,
        None,
    );
    match checked.err() {
        Some(webpki::Error::CertExpired { not_after, .. }) => {
            let ended = moment(not_after);
            Err(not_valid(format!("expired at {ended}: renew it, or set this machine's clock")))
        }
        Some(webpki::Error::CertNotValidYet { not_before, .. }) => {
            let begins = moment(not_before);
            Err(not_valid(format!("is not valid before {begins}: set this machine's clock")))
        }
        Some(webpki::Error::RequiredEkuNotFoundContext(_)) => {
            Err(not_valid("is not a certificate for a server".to_owned()))
        }
        // Without trust anchors the issuer is always unknown.
        _ => Ok(()),
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
        assert_eq!(certificate.renew(), Ok(false), "the files are the same");
        write(folder.path(), 2021, 3000);
        assert_eq!(certificate.renew(), Ok(true));
        let second = certificate.now.read().clone();
        assert_ne!(first.cert, second.cert);
        // Half of a renewal, an expired pair, and a missing file.
        fs::write(folder.path().join(KEY), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let mismatch = certificate.renew().unwrap_err();
        assert_eq!(mismatch, CertificateError::Mismatch(folder.path().to_owned()));
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
