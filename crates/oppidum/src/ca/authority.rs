//! The certificate authority (CA) of a store: makes itself, and issues certificates for subjects.
//!
//! Pure but for random numbers: time is an argument, and files are written elsewhere. All keys are
//! of the curve P-256.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, date_time_ymd,
};
use wire::wall_clock::minute;

use super::certificate::{self, CertificateView};
use super::subject::{CertificateHost, DAY, StoreName, Subject};

/// How long a CA lasts: ten years.
const CA_LIFETIME: Duration = DAY.saturating_mul(3_650);

/// How long before its issue a certificate begins: clocks of a store need not agree.
const BACKDATED: Duration = DAY.saturating_mul(7);

/// The last moment of the year 9999, which a certificate can still express.
const LAST_MOMENT: Duration = Duration::from_secs(253_402_300_799);

/// When a certificate is valid, in whole seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    begins: Duration,
    ends: Duration,
}

impl Validity {
    /// From 1970 to 9999: for a store on one machine, which renews nothing.
    pub(super) const ALWAYS: Self = Self { begins: Duration::ZERO, ends: LAST_MOMENT };

    /// For this long from now on, and for some days before.
    pub(super) fn new(now: Duration, lifetime: Duration) -> Self {
        let whole = |moment: Duration| Duration::from_secs(moment.min(LAST_MOMENT).as_secs());
        let (begins, ends) = (now.saturating_sub(BACKDATED), now.saturating_add(lifetime));
        Self { begins: whole(begins), ends: whole(ends) }
    }

    /// That of a new CA.
    pub(super) fn of_ca(now: Duration) -> Self {
        Self::new(now, CA_LIFETIME)
    }

    /// Its end.
    pub(super) fn ends(self) -> Duration {
        self.ends
    }

    fn apply(self, params: &mut CertificateParams) {
        let epoch = date_time_ymd(1970, 1, 1);
        // Both fit: a validity ends before the year 10000.
        params.not_before = epoch + self.begins;
        params.not_after = epoch + self.ends;
    }
}

/// A certificate and its private key, as PEM. It has no `Debug`, which would show the key.
pub(super) struct CertificatePair {
    /// The certificate.
    pub(super) certificate: String,
    /// The private key, in PKCS#8.
    pub(super) key: String,
}

/// A certificate authority that can issue.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    store: StoreName,
    begins: Duration,
    ends: Duration,
    /// Its name in the certificates that it issues, as bytes.
    name: Vec<u8>,
}

impl Authority {
    /// Makes the CA of a store.
    pub(super) fn create(
        store: &StoreName,
        validity: Validity,
    ) -> Result<(Self, CertificatePair), String> {
        let failed = |error: rcgen::Error| format!("no CA could be made: {error}");
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = named(&store.to_string());
        validity.apply(&mut params);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        let pair = CertificatePair { certificate, key: key.serialize_pem() };
        let views = certificate::parse(pair.certificate.as_bytes());
        let view = views.ok().and_then(|views| views.into_iter().next());
        let view = view.ok_or("no CA could be made: its certificate cannot be read")?;
        Self::new(&view, key).map(|authority| (authority, pair)).map_err(str::to_owned)
    }

    /// A CA that was made before, from its certificate and its key.
    pub(super) fn new(view: &CertificateView, key: KeyPair) -> Result<Self, &'static str> {
        if !view.is_ca {
            return Err("begins with a certificate that is no CA's");
        }
        let Ok(store) = view.common_name.parse::<StoreName>() else {
            return Err("begins with a CA that `oppidum ctl ca init` did not make");
        };
        if key.subject_public_key_info() != view.public_key {
            return Err("does not begin with the certificate of ca.key: put that one first");
        }
        let issuer = Issuer::new(named(&view.common_name), key);
        let CertificateView { begins, ends, subject: name, .. } = view.clone();
        Ok(Self { issuer, store, begins, ends, name })
    }

    /// The private key in a PEM file. `None`: there is none of the right kind.
    pub(super) fn parse_key(pem: &[u8]) -> Option<KeyPair> {
        let pem = std::str::from_utf8(pem).ok()?;
        KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).ok()
    }

    /// Issues a certificate.
    pub(super) fn issue(
        &self,
        subject: &Subject,
        hosts: &[CertificateHost],
        validity: Validity,
    ) -> Result<CertificatePair, String> {
        let failed = |error: rcgen::Error| format!("no certificate could be issued: {error}");
        self.check(validity)?;
        let mut names = subject.dns_names(&self.store).to_vec();
        for host in hosts.iter().map(ToString::to_string) {
            if !names.contains(&host) {
                names.push(host);
            }
        }
        let named = named(&subject.to_string());
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params.distinguished_name = named.distinguished_name;
        validity.apply(&mut params);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        // While a CA is replaced, both have one name: this says which one is meant.
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?.pem();
        let views = certificate::parse(certificate.as_bytes());
        if !views.is_ok_and(|views| views.iter().all(|view| view.issuer == self.name)) {
            return Err("ca.pem begins with a CA that `oppidum ctl ca init` did not make".into());
        }
        Ok(CertificatePair { certificate, key: key.serialize_pem() })
    }

    /// Checks that this CA is valid as long as the certificates that it issues.
    fn check(&self, validity: Validity) -> Result<(), String> {
        let issued = validity.begins.saturating_add(BACKDATED);
        if issued < self.begins {
            let begins = minute(self.begins);
            return Err(format!("this CA begins at {begins} UTC only: set this machine's clock"));
        }
        if validity.ends <= self.ends {
            return Ok(());
        }
        let ca_ends = minute(self.ends);
        match self.ends.saturating_sub(issued).as_secs() / DAY.as_secs() {
            0 => Err(format!("this CA ends at {ca_ends} UTC: replace it (docs/security.md)")),
            days => Err(format!(
                "this CA ends at {ca_ends} UTC, before the certificate would: give at most \
                 `--for {days}d`, or replace the CA (docs/security.md)"
            )),
        }
    }

    /// The name of its store.
    pub(super) fn store(&self) -> &StoreName {
        &self.store
    }
}

/// Parameters with a subject of this common name, and nothing else.
fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
