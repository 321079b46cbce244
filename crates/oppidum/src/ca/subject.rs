//! The subject of a certificate: a role and a name in a store, as command lines, files and DNS
//! names spell them.
//!
//! The certificate of replica 123 is in `order-123.pem`, and is valid for `order.STORE.oppidum` and
//! `order-123.STORE.oppidum`. Each process asks TLS for the name that it expects at the other end.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use wire::tls::subject::CertificateRole;

use crate::address::{Host, ReplicaId};

/// The longest name of a store or a process: a part of a DNS name has at most 63 characters, and
/// a role stands before the name.
const NAME_CHARS_MAX: usize = 40;

/// The most `--host` values of one certificate, which every handshake sends.
pub(super) const HOSTS_MAX: usize = 32;

/// The domain of all names that say a role.
const DOMAIN: &str = ".oppidum";

/// One day.
pub(super) const DAY: Duration = Duration::from_hours(24);

/// How long certificates of a role last by default. A person's is copied to more places than a
/// process's.
pub(super) fn default_lifetime(role: CertificateRole) -> Duration {
    match role {
        CertificateRole::Operator => DAY * 30,
        _ => DAY * 90,
    }
}

/// The name of a store in its certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreName(String);

impl FromStr for StoreName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        checked(text).map(|()| Self(text.to_owned()))
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A role and a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    role: CertificateRole,
    name: String,
}

impl Subject {
    /// The subject of this name: of a replica its id.
    pub(crate) fn new(role: CertificateRole, name: &str) -> Result<Self, String> {
        let name = match role {
            CertificateRole::Order => name.parse().map(|ReplicaId(id)| id.to_string())?,
            _ => checked(name).map(|()| name.to_owned())?,
        };
        Ok(Self { role, name })
    }

    /// The subject of a file of this name, `ROLE-NAME.pem`. `None`: the file has another name.
    pub(super) fn of_file(file: &str) -> Option<Self> {
        let (role, name) = file.strip_suffix(".pem")?.split_once('-')?;
        let subject = Self::new(role.parse().ok()?, name).ok()?;
        // `order-0123.pem` is not the file of replica 123.
        (subject.name == name).then_some(subject)
    }

    /// The names that say its role, in its store.
    pub(super) fn dns_names(&self, store: &StoreName) -> [String; 2] {
        let role = self.role.word();
        [format!("{role}.{store}{DOMAIN}"), format!("{self}.{store}{DOMAIN}")]
    }

    /// Its role.
    pub(super) fn role(&self) -> CertificateRole {
        self.role
    }

    /// Its name in its role.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// The subjects of these words, in turn a role and a name.
pub(super) fn all_of(words: &[String]) -> Result<Vec<Subject>, String> {
    let subject = |pair: &[String]| match pair {
        [role, name] => Subject::new(role.parse()?, name),
        [role, ..] => Err(format!("give the name after the role {role:?}")),
        [] => Err("give a role and a name".to_owned()),
    };
    words.chunks(2).map(subject).collect()
}

/// `ROLE-NAME`, the name of its files.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.role.word(), self.name)
    }
}

/// A DNS name or an IP address by which other programs call a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateHost(String);

impl FromStr for CertificateHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let host = text.parse::<Host>()?.key();
        if says_role(&host) {
            return Err(format!("{text:?} is no host: names in {DOMAIN} say roles"));
        }
        match ServerName::try_from(&*host) {
            Ok(_) => Ok(Self(host)),
            Err(_) => Err(format!("{text:?} is no DNS name or IP address")),
        }
    }
}

impl fmt::Display for CertificateHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a DNS name says a role.
pub(super) fn says_role(name: &str) -> bool {
    name.ends_with(DOMAIN)
}

/// Checks the name of a store or a process.
fn checked(name: &str) -> Result<(), String> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let inner = !name.starts_with('-') && !name.ends_with('-');
    if (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(letter) && inner {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no name for a certificate: a name has 1 to {NAME_CHARS_MAX} letters a-z, \
         digits or `-`, and no `-` at its ends, such as web-1"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_one_spelling_in_files_and_dns_names() {
        let store: StoreName = "shop-1".parse().unwrap();
        for (role, name, file) in [
            ("order", "123", "order-123"),
            ("order", "0123", "order-123"),
            ("frontend", "web-1", "frontend-web-1"),
            ("operator", "anna", "operator-anna"),
        ] {
            let subject = Subject::new(role.parse().unwrap(), name).unwrap();
            assert_eq!(subject.to_string(), file);
            assert_eq!(Subject::of_file(&format!("{file}.pem")), Some(subject.clone()));
            assert_eq!(
                subject.dns_names(&store),
                [format!("{role}.shop-1.oppidum"), format!("{file}.shop-1.oppidum")]
            );
        }
        for other in ["ca.pem", "order-0123.pem", "order-.pem", "shop-1.pem", "order-1.key", ""] {
            assert_eq!(Subject::of_file(other), None, "{other}");
        }
    }

    #[test]
    fn several_subjects_are_named_in_one_line() {
        let all = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            all_of(&words).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(all("order 123 frontend web").unwrap(), ["order-123", "frontend-web"]);
        assert!(all("order 123 frontend").unwrap_err().contains("after the role \"frontend\""));
        assert!(all("order web").is_err() && all("web order").unwrap_err().contains("no role"));
    }

    /// Kind: a name that no certificate can have, or that says the role of another process.
    #[test]
    fn a_name_that_no_certificate_can_have_is_refused() {
        let longest = "a".repeat(NAME_CHARS_MAX);
        assert!(longest.parse::<StoreName>().is_ok());
        let long = "a".repeat(NAME_CHARS_MAX + 1);
        for name in ["", "-a", "a-", "-", "A", "a.b", "a_b", "a b", "ä", "a\n", "../a", &long] {
            assert!(name.parse::<StoreName>().is_err(), "{name:?}");
            assert!(Subject::new(CertificateRole::Frontend, name).is_err(), "{name:?}");
        }
        for id in ["", "0", "-1", "+1", "1.5", "a", "9223372036854775808"] {
            assert!(Subject::new(CertificateRole::Order, id).is_err(), "{id:?}");
        }
        for role in ["", "Order", "orders", "ca", "order-1"] {
            assert!(role.parse::<CertificateRole>().is_err(), "{role:?}");
        }
        // The longest names are DNS names still.
        let subject = Subject::new(CertificateRole::Frontend, &longest).unwrap();
        for name in subject.dns_names(&longest.parse().unwrap()) {
            assert!(ServerName::try_from(name).is_ok());
        }
    }

    #[test]
    fn hosts_are_dns_names_and_addresses() {
        for (text, host) in [
            ("10.0.0.1", "10.0.0.1"),
            ("[::1]", "::1"),
            ("fe80::1", "fe80::1"),
            ("Shop.Example.", "shop.example"),
            ("order-1", "order-1"),
        ] {
            assert_eq!(text.parse::<CertificateHost>().unwrap().to_string(), host);
        }
        for (text, words) in [
            ("order.oppidum.oppidum", "names in .oppidum say roles"),
            ("Order-1.Oppidum.OPPIDUM.", "names in .oppidum say roles"),
            ("10.0.0.1:1115", "has a port"),
            ("https://shop", "is a URL"),
            ("10.0.0.0/8", "is no"),
            ("*.shop.example", "is no"),
            ("-a.example", "is no DNS name"),
            ("", "is no"),
            ("10.0.0", "is no IPv4 address"),
        ] {
            let why = text.parse::<CertificateHost>().unwrap_err();
            assert!(why.contains(words), "{text:?}: {why}");
        }
    }
}
