//! The certificate authority of a store, made by the test itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use wire::tls::credentials::Credentials;
use wire::tls::subject::Holder;

/// Every certificate of the test's store.
const PAIRS: [(&str, &str); 6] = [
    ("order", "123"),
    ("order", "345"),
    ("order", "456"),
    ("catalog", "a"),
    ("frontend", "web"),
    ("operator", "anna"),
];

/// The authority of a store, and the folder with all of its pairs.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    pub(crate) fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        let authority = Self { issuer, folder: folder.to_owned() };
        authority.issue_all();
        authority
    }

    /// Puts a new pair for each process and for the operator into the folder.
    pub(crate) fn issue_all(&self) {
        for pair in PAIRS {
            self.issue(pair, "oppidum", 3000);
        }
    }

    /// Puts a pair into the folder; it ends with this year.
    pub(crate) fn issue(&self, (role, name): (&str, &str), store: &str, year: i32) {
        let pair = format!("{role}-{name}");
        let names = [format!("{role}.{store}.oppidum"), format!("{pair}.{store}.oppidum")];
        let names: Vec<String> = names.into_iter().chain(["127.0.0.1".to_owned()]).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(year, 12, 31);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file(&format!("{pair}.pem")), certificate.pem()).unwrap();
        fs::write(self.file(&format!("{pair}.key")), key.serialize_pem()).unwrap();
    }

    /// The folder, as `--tls` takes it.
    pub(crate) fn folder(&self) -> &str {
        self.folder.to_str().unwrap()
    }

    /// A file of the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The credentials of one of the pairs.
    pub(crate) fn credentials(&self, holder: Holder) -> Arc<Credentials> {
        Credentials::load(&self.folder, holder).unwrap()
    }
}
