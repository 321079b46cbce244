//! Tests of the files that a process accepts as its credentials.

use std::fs;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use tempfile::TempDir;

use super::super::subject::CertificateRole;
use super::*;

const SEVEN: Holder = Holder::Replica(7);
const CATALOG: Holder = Holder::Any(CertificateRole::Catalog);

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn issuer() -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// What a certificate says, and until which year.
struct Certificate {
    pair: (&'static str, &'static str),
    store: &'static str,
    until: i32,
    usages: Vec<ExtendedKeyUsagePurpose>,
}

impl Certificate {
    fn of(role: &'static str, name: &'static str) -> Self {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Self { pair: (role, name), store: "shop", until: 3000, usages }
    }

    /// Writes it with its key under this name; returns the key's text.
    fn write(&self, issuer: &Issuer, folder: &Path, file: &str) -> String {
        let (role, name) = self.pair;
        let store = self.store;
        let names = [format!("{role}.{store}.oppidum"), format!("{role}-{name}.{store}.oppidum")];
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(1990, 1, 1), date_time_ymd(self.until, 1, 1));
        params.extended_key_usages.clone_from(&self.usages);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        fs::write(folder.join(format!("{file}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
        key.serialize_pem()
    }
}

/// A folder with `ca.pem`, and its authority.
fn folder() -> (TempDir, Issuer) {
    let (folder, issuer) = (tempfile::tempdir().unwrap(), issuer());
    fs::write(folder.path().join(AUTHORITIES), issuer.pem()).unwrap();
    (folder, issuer)
}

/// The error of a folder that must not be accepted, and its `Debug` text.
fn refused(folder: &Path, holder: Holder) -> String {
    let error = Credentials::load(folder, holder).unwrap_err();
    format!("{error} {error:?}")
}

#[test]
fn a_process_takes_the_pair_of_its_role() {
    let (folder, issuer) = folder();
    let folder = folder.path();
    let nothing = refused(folder, SEVEN);
    assert!(nothing.contains("holds no certificate of order-7"), "{nothing}");
    assert!(nothing.contains("type `oppidum ctl ca issue --dir … order 7`"), "{nothing}");
    Certificate::of("order", "7").write(&issuer, folder, "order-7");
    Certificate::of("order", "8").write(&issuer, folder, "order-8");
    let seven = Credentials::load(folder, SEVEN).unwrap();
    assert_eq!(seven.subject().to_string(), "order-7 of store shop");
    let none = refused(folder, CATALOG);
    assert!(none.contains("no certificate of catalog, only order-7, order-8"), "{none}");
    assert!(none.contains("ctl ca issue --dir … catalog NAME"), "{none}");
    Certificate::of("catalog", "a").write(&issuer, folder, "catalog-a");
    assert!(Credentials::load(folder, CATALOG).is_ok());
    Certificate::of("catalog", "b").write(&issuer, folder, "catalog-b");
    let several = refused(folder, CATALOG);
    assert!(several.contains("holds catalog-a, catalog-b, and one is needed"), "{several}");
}

#[test]
fn a_pair_that_cannot_be_right_is_refused_with_what_to_type_and_without_its_key() {
    let (folder, issuer) = folder();
    let folder = folder.path();
    let good = || Certificate::of("order", "7");
    let foreign = self::issuer();
    let wrong: [(Certificate, &Issuer, &str); 7] = [
        (Certificate { until: 1999, ..good() }, &issuer, "expired at 1999-01-01 00:00:00 UTC"),
        (good(), &foreign, "was issued by no authority in ca.pem"),
        (Certificate::of("order", "8"), &issuer, "is that of order-8 of store shop"),
        (Certificate::of("catalog", "7"), &issuer, "is that of catalog-7 of store shop"),
        (Certificate::of("owner", "7"), &issuer, "which say no role of a store"),
        (
            Certificate { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..good() },
            &issuer,
            "is not a certificate for a client",
        ),
        (
            Certificate { usages: vec![ExtendedKeyUsagePurpose::ClientAuth], ..good() },
            &issuer,
            "is not a certificate for a server",
        ),
    ];
    for (certificate, issuer, words) in wrong {
        let key = certificate.write(issuer, folder, "order-7");
        let text = refused(folder, SEVEN);
        assert!(text.contains(words), "{words}: {text}");
        assert!(text.contains("type `oppidum ctl ca issue --dir … order 7`"), "{text}");
        let secret: String = key.lines().nth(1).unwrap().chars().take(20).collect();
        assert!(!text.contains(&secret), "{text}");
    }
    good().write(&issuer, folder, "order-7");
    fs::write(folder.join("order-7.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(refused(folder, SEVEN).contains("are not a pair"));
    fs::remove_file(folder.join("order-7.key")).unwrap();
    assert!(refused(folder, SEVEN).contains("cannot be read"));
    good().write(&issuer, folder, "order-7");
    for content in [None, Some(""), Some("no PEM")] {
        match content {
            None => fs::remove_file(folder.join(AUTHORITIES)).unwrap(),
            Some(content) => fs::write(folder.join(AUTHORITIES), content).unwrap(),
        }
        assert!(Credentials::load(folder, SEVEN).is_err(), "{content:?}");
    }
    let missing = refused(&folder.join("nothing"), SEVEN);
    assert!(missing.contains("cannot be read"), "{missing}");
}

#[test]
fn a_renewal_takes_only_a_pair_of_the_same_process() {
    let (folder, issuer) = folder();
    let folder = folder.path();
    let seven = || Certificate::of("order", "7");
    let key = seven().write(&issuer, folder, "order-7");
    let credentials = Credentials::load(folder, SEVEN).unwrap();
    let first = credentials.now.read().key.cert.clone();
    assert_eq!(credentials.renew(), Ok(false), "the files are the same");
    let foreign = self::issuer();
    for (certificate, issuer) in [
        (Certificate { until: 1999, ..seven() }, &issuer),
        (Certificate { store: "other", ..seven() }, &issuer),
        (Certificate::of("order", "8"), &issuer),
        (seven(), &foreign),
    ] {
        certificate.write(issuer, folder, "order-7");
        assert!(credentials.renew().is_err());
        assert_eq!(credentials.now.read().key.cert, first, "the pair in use stays");
    }
    seven().write(&issuer, folder, "order-7");
    assert_eq!(credentials.renew(), Ok(true));
    assert_ne!(credentials.now.read().key.cert, first);
    // A second authority counts as new, also without a new pair.
    fs::write(folder.join(AUTHORITIES), issuer.pem() + &foreign.pem()).unwrap();
    assert_eq!(credentials.renew(), Ok(true));
    let shown = format!("{credentials:?}");
    let secret: String = key.lines().nth(1).unwrap().chars().take(20).collect();
    assert!(shown.contains("Order") && !shown.contains(&secret), "{shown}");
    assert!(!shown.to_lowercase().contains("key"), "{shown}");
}
