//! Reads certificates: what a list shows of them, and what a CA checks of its own.
//!
//! Whether a certificate is valid is for TLS to decide. No error quotes a file, which may be a
//! private key in the wrong place.

use std::net::IpAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use wire::escaped::escaped;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::subject::says_role;

/// What is read of a certificate.
#[derive(Clone, Debug)]
pub(super) struct CertificateView {
    /// The subject's name, as bytes.
    pub(super) subject: Vec<u8>,
    /// The issuer's name, as bytes.
    pub(super) issuer: Vec<u8>,
    /// The subject's common name; empty: it has none.
    pub(super) common_name: String,
    /// Whether it may issue certificates.
    pub(super) is_ca: bool,
    /// The DNS names and IP addresses for which it is valid, escaped.
    pub(super) names: Vec<String>,
    /// The beginning of its validity, since the Unix epoch.
    pub(super) begins: Duration,
    /// The end of its validity, since the Unix epoch.
    pub(super) ends: Duration,
    /// The public key and its algorithm, as bytes.
    pub(super) public_key: Vec<u8>,
}

impl CertificateView {
    /// The names by which programs call its holder, beside those that say its role.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).filter(|name| !says_role(name))
    }
}

/// Reads every certificate in a PEM file: at least one.
pub(super) fn parse(pem: &[u8]) -> Result<Vec<CertificateView>, &'static str> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|_| "is not PEM, or cut off")?;
    if all.is_empty() {
        return Err("holds no certificate: there is no BEGIN CERTIFICATE in it");
    }
    all.iter().map(|der| view(der).ok_or("holds a certificate that cannot be read")).collect()
}

/// The view of one certificate in DER. `None`: it is malformed.
fn view(der: &[u8]) -> Option<CertificateView> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let subject = certificate.subject();
    let common_name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
    let names = certificate.subject_alternative_name().ok()?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let moment = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = certificate.validity();
    Some(CertificateView {
        subject: subject.as_raw().to_vec(),
        issuer: certificate.issuer().as_raw().to_vec(),
        common_name: escaped(common_name.unwrap_or_default()).to_string(),
        is_ca: certificate.is_ca(),
        names: names.iter().filter_map(name).collect(),
        begins: moment(validity.not_before.timestamp()),
        ends: moment(validity.not_after.timestamp()),
        public_key: certificate.public_key().raw.to_vec(),
    })
}

/// A DNS name or an IP address. `None`: it is neither.
fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(escaped(*name).to_string()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn a_certificate_is_read_as_it_was_written() {
        let key = KeyPair::generate().unwrap();
        let hosts = ["a.example", "10.0.0.1", "::1"].map(str::to_owned);
        let mut params = CertificateParams::new(hosts.to_vec()).unwrap();
        (params.not_before, params.not_after) =
            (date_time_ymd(1970, 1, 1), date_time_ymd(9999, 12, 31));
        let pem = params.self_signed(&key).unwrap().pem();
        let [view] = &parse(pem.as_bytes()).unwrap()[..] else { panic!("one certificate") };
        assert_eq!(view.names, hosts);
        assert_eq!((view.begins, view.ends.as_secs()), (Duration::ZERO, 253_402_214_400));
        assert_eq!((view.is_ca, view.subject == view.issuer), (false, true));
        assert_eq!(view.common_name, "rcgen self signed cert");
        assert_eq!(parse(format!("{pem}{pem}").as_bytes()).unwrap().len(), 2);
    }

    /// Kind: a panic on a damaged file, or an error that quotes a private key.
    #[test]
    fn a_damaged_certificate_is_an_error() {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["a".to_owned()]).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let der = certificate.der();
        for end in 0..der.len() {
            assert!(view(&der[..end]).is_none(), "cut off at {end}");
        }
        let mut longer = der.to_vec();
        longer.push(0);
        assert!(view(&longer).is_none());
        for at in 0..der.len() {
            for bit in [0x01, 0x20, 0x80] {
                let mut damaged = der.to_vec();
                damaged[at] ^= bit;
                let _ = view(&damaged);
            }
        }
        let pem = certificate.pem();
        for (content, words) in [
            (String::new(), "no BEGIN CERTIFICATE"),
            (key.serialize_pem(), "no BEGIN CERTIFICATE"),
            (pem[..pem.len() / 2].to_owned(), "not PEM, or cut off"),
            (key.serialize_pem().replace('\n', ""), "not PEM, or cut off"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
                "cannot be read",
            ),
        ] {
            let why = parse(content.as_bytes()).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}
