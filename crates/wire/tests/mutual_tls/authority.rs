//! A certificate authority of a store, for tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use tempfile::TempDir;

/// An authority, with a folder of its certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// The folder of `ca.pem` and of the pairs.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file of its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Puts a new pair into a folder, under the name of its role and its own name.
    pub(crate) fn issue_into(&self, folder: &Path, pair: (&str, &str), store: &str) {
        let until = Duration::from_hours(8_000_000);
        self.issue_until(folder, pair, store, until);
    }

    /// The same, with the end of its validity, counted from the Unix epoch.
    pub(crate) fn issue_until(
        &self,
        folder: &Path,
        (role, name): (&str, &str),
        store: &str,
        until: Duration,
    ) {
        let names = [
            format!("{role}.{store}.oppidum"),
            format!("{role}-{name}.{store}.oppidum"),
            "127.0.0.1".to_owned(),
        ];
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(1970, 1, 1) + until;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(folder.join(format!("{role}-{name}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{role}-{name}.key")), key.serialize_pem()).unwrap();
    }
}
