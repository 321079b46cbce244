//! Certificate actors: the holder of a certificate of the internal plane, as a record names it.
//!
//! The replica that accepts a request writes it, from the certificate of the connection; no request
//! brings it along. It is no API key: it has no scopes, owns no idempotency key, and no rule looks
//! at it.

use std::fmt;

use smol_str::SmolStr;

/// The longest name in a certificate, in bytes.
pub const CERTIFICATE_NAME_BYTES_MAX: usize = 40;

/// The role of a certificate that a record can name. Frontends act for clients, and replicas for
/// the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActorRole {
    /// An operator, with a tool.
    Operator,
    /// A catalog, which restocks.
    Catalog,
}

/// The holder of a certificate: `operator anna` as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateActor {
    role: ActorRole,
    /// 1 to [`CERTIFICATE_NAME_BYTES_MAX`] characters `a-z`, `0-9`, `-`.
    name: SmolStr,
}

impl ActorRole {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Catalog => "catalog",
        }
    }
}

impl CertificateActor {
    /// The holder with this name, or `None` if the name is empty, too long, or has other
    /// characters.
    pub fn new(role: ActorRole, name: &str) -> Option<Self> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let fits = (1..=CERTIFICATE_NAME_BYTES_MAX).contains(&name.len());
        (fits && name.bytes().all(allowed)).then(|| Self { role, name: name.into() })
    }

    /// The role.
    pub fn role(&self) -> ActorRole {
        self.role
    }

    /// The name within the role.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for CertificateActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role.word(), self.name)
    }
}
