//! Subjects of internal certificates: the role, the name and the store that the DNS names of a
//! certificate say.
//!
//! A certificate of the internal plane has exactly two names under `oppidum`: `ROLE.STORE.oppidum`
//! and `ROLE-NAME.STORE.oppidum`. Its other names and addresses are those of hosts. A pure module.

use std::fmt;
use std::str::FromStr;

/// The top level of the names that say a role.
const DOMAIN: &str = "oppidum";

/// The most characters of a name, and of the name of a store.
const NAME_BYTES_MAX: usize = 40;

/// What a certificate of the internal plane is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateRole {
    /// A replica.
    Order,
    /// A catalog.
    Catalog,
    /// A frontend.
    Frontend,
    /// A collector of numbers, such as Prometheus.
    Monitor,
    /// An operator, for the tools.
    Operator,
}

/// Every role, for tables and tests.
pub const CERTIFICATE_ROLES: [CertificateRole; 5] = [
    CertificateRole::Order,
    CertificateRole::Catalog,
    CertificateRole::Frontend,
    CertificateRole::Monitor,
    CertificateRole::Operator,
];

impl CertificateRole {
    /// The word in names and files.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Catalog => "catalog",
            Self::Frontend => "frontend",
            Self::Monitor => "monitor",
            Self::Operator => "operator",
        }
    }
}

impl FromStr for CertificateRole {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let role = CERTIFICATE_ROLES.into_iter().find(|role| role.word() == word);
        role.ok_or_else(|| {
            format!("{word:?} is no role: type order, catalog, frontend, monitor or operator")
        })
    }
}

impl fmt::Display for CertificateRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Which certificate is wanted: that of one replica, or any of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The replica with this id.
    Replica(u64),
    /// Any process or person of this role.
    Any(CertificateRole),
}

impl Holder {
    /// The role of the certificate.
    pub const fn role(self) -> CertificateRole {
        match self {
            Self::Replica(_) => CertificateRole::Order,
            Self::Any(role) => role,
        }
    }

    /// True if a certificate of this subject is what is wanted.
    pub(crate) fn is(self, subject: &Subject) -> bool {
        match self {
            Self::Replica(id) => subject.replica() == Some(id),
            Self::Any(role) => subject.role == role,
        }
    }

    /// The DNS name that the certificate must have in this store.
    pub fn dns_name(self, store: &str) -> String {
        format!("{self}.{store}.{DOMAIN}")
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(id) => write!(f, "{}-{id}", CertificateRole::Order),
            Self::Any(role) => role.fmt(f),
        }
    }
}

/// The subject of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The role.
    pub role: CertificateRole,
    /// The name within the role; of a replica, its id.
    pub name: String,
    /// The name of the store.
    pub store: String,
}

impl Subject {
    /// The subject that the DNS names of a certificate say.
    ///
    /// # Errors
    ///
    /// What is wrong with the names, as the end of a sentence about the certificate.
    pub fn of_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let suffix = format!(".{DOMAIN}");
        let names = names.map(str::to_ascii_lowercase);
        let mut ours: Vec<String> = names.filter(|name| name.ends_with(&suffix)).collect();
        ours.sort();
        ours.dedup();
        let odd = || match ours.as_slice() {
            [] => format!("has no name ROLE-NAME.STORE.{DOMAIN}"),
            ours => format!("has the names {}, which say no role of a store", ours.join(", ")),
        };
        let subject = ours.iter().find_map(|name| Self::of_name(name)).ok_or_else(odd)?;
        let mut expected = [
            Holder::Any(subject.role).dns_name(&subject.store),
            format!("{}.{}.{DOMAIN}", subject.pair(), subject.store),
        ];
        expected.sort();
        if ours == expected { Ok(subject) } else { Err(odd()) }
    }

    /// The subject in a name such as `order-123.shop.oppidum`.
    fn of_name(name: &str) -> Option<Self> {
        let mut labels = name.split('.');
        let (first, store, domain) = (labels.next()?, labels.next()?, labels.next()?);
        if labels.next().is_some() || domain != DOMAIN || !is_name(store) {
            return None;
        }
        let (role, name) = Self::parse_pair(first)?;
        Some(Self { role, name: name.to_owned(), store: store.to_owned() })
    }

    /// The role and the name of a pair such as `order-123`.
    pub(super) fn parse_pair(pair: &str) -> Option<(CertificateRole, &str)> {
        let (role, name) = pair.split_once('-')?;
        let role = role.parse::<CertificateRole>().ok()?;
        let is_sound = match role {
            // The digits of an id have one form only.
            CertificateRole::Order => {
                name.parse::<u64>().is_ok_and(|id| 0 < id && id.to_string() == name)
            }
            _ => is_name(name),
        };
        is_sound.then_some((role, name))
    }

    /// The name of the pair's files: `order-123`.
    pub fn pair(&self) -> String {
        format!("{}-{}", self.role, self.name)
    }

    /// The id of the replica; `None` for any other role.
    pub fn replica(&self) -> Option<u64> {
        self.name.parse().ok().filter(|_| self.role == CertificateRole::Order)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of store {}", self.pair(), self.store)
    }
}

/// True for 1 to 40 letters `a-z`, digits and `-`.
fn is_name(text: &str) -> bool {
    let is_sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Result<String, String> {
        Subject::of_names(names.iter().copied()).map(|subject| subject.to_string())
    }

    #[test]
    fn a_subject_is_read_from_exactly_two_names() {
        let order = ["order.shop.oppidum", "order-7.shop.oppidum"];
        assert_eq!(of(&order).as_deref(), Ok("order-7 of store shop"));
        let hosts = ["db1.example", "order-7.shop.oppidum", "localhost", "order.shop.oppidum"];
        assert_eq!(of(&hosts).as_deref(), Ok("order-7 of store shop"));
        let anna = ["operator.s-1.oppidum", "OPERATOR-Anna-B.s-1.oppidum"];
        assert_eq!(of(&anna).as_deref(), Ok("operator-anna-b of store s-1"));
        for odd in [
            &[][..],
            &["localhost"],
            &order[..1],
            &order[1..],
            &["order.shop.oppidum", "order-7.other.oppidum"],
            &["catalog.shop.oppidum", "order-7.shop.oppidum"],
            &["order.shop.oppidum", "order-7.shop.oppidum", "order-8.shop.oppidum"],
            &["order.shop.oppidum", "order-7.shop.oppidum", "frontend.shop.oppidum"],
            &["order.shop.oppidum", "order-7.shop.oppidum", "*.shop.oppidum"],
            &["order.shop.oppidum", "order-07.shop.oppidum"],
            &["order.shop.oppidum", "order-+7.shop.oppidum"],
            &["order.shop.oppidum", "order-0.shop.oppidum"],
            &["order.shop.oppidum", "order-web.shop.oppidum"],
            &["owner.shop.oppidum", "owner-anna.shop.oppidum"],
            &["catalog.a.b.oppidum", "catalog-1.a.b.oppidum"],
        ] {
            assert!(of(odd).is_err(), "{odd:?}");
        }
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        let long = [format!("catalog-{long}.s.oppidum"), "catalog.s.oppidum".to_owned()];
        assert!(of(&[&long[0], &long[1]]).is_err());
    }

    #[test]
    fn only_a_replica_has_an_id() {
        let subject = |role, name: &str| Subject { role, name: name.into(), store: "s".into() };
        assert_eq!(subject(CertificateRole::Order, "7").replica(), Some(7));
        assert_eq!(subject(CertificateRole::Catalog, "7").replica(), None);
        assert_eq!(Holder::Replica(7).dns_name("s"), "order-7.s.oppidum");
        assert_eq!(Holder::Any(CertificateRole::Catalog).dns_name("s"), "catalog.s.oppidum");
    }
}
