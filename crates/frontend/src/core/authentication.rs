//! Authentication: who sent a request, by its `Authorization` header, and what it may do.
//!
//! The frontend decides this early, to answer fast; the ledger decides it again, for every order.
//! As long as a store has no API keys at all, the header means nothing, as in release 0.1.

use std::sync::Arc;

use http::StatusCode;
use ledger::access::Access;
use ledger::api_key::{Actor, RequestRate, Scopes};
use ledger::api_key_text::{NotAnApiKey, identify};
use ledger::terms::{LedgerId, Timestamp};
use wire::access::AccessNews;
use wire::peers::EPOCH_TERMS;

/// The sender of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    /// The principal and its API key. `None`: the request came without one.
    pub(crate) actor: Option<Actor>,
    scopes: Scopes,
    /// How many requests the API key allows. `None`: any number.
    rate: Option<RequestRate>,
}

/// The access to the store as a frontend knows it.
#[derive(Clone, Debug)]
pub(crate) struct KnownAccess {
    /// The ledger, and the number of recoveries, after which the ledger may have lost its last
    /// changes. `None`: a replica of release 0.1 told nothing of either.
    origin: Option<(LedgerId, u64)>,
    pub(crate) access: Arc<Access>,
}

impl KnownAccess {
    /// What a replica has told in this term. `None`: it knows nothing.
    pub(crate) fn told(news: &AccessNews, term: u64) -> Option<Self> {
        match news {
            AccessNews::Unknown => None,
            AccessNews::Release01 => Some(Self { origin: None, access: Arc::default() }),
            AccessNews::Told(store) => {
                let origin = Some((store.ledger_id?, term / EPOCH_TERMS));
                Some(Self { origin, access: store.access.clone() })
            }
        }
    }

    /// True if this replaces what was known: a replica that lags never reopens a store, or brings
    /// an API key back that was revoked.
    /// `from_leader`: only the leader's word counts for another ledger.
    pub(crate) fn replaces(&self, known: Option<&Self>, from_leader: bool) -> bool {
        let Some(known) = known else { return true };
        match (self.origin, known.origin) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some((ledger, epoch)), Some((known_ledger, known_epoch))) => {
                let later = (known_epoch, known.access.changed) < (epoch, self.access.changed);
                if ledger == known_ledger { later } else { from_leader }
            }
        }
    }
}

/// Why a request is rejected before it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unauthorized {
    #[error("an API key is needed here: send `Authorization: Bearer opk_…`")]
    NoKey,
    #[error("the Authorization header must be sent once")]
    Several,
    #[error("the API key is malformed: {0}")]
    NotAKey(NotAnApiKey),
    #[error("this store has no such API key")]
    Unknown,
    #[error("the API key has ended: it was revoked, or its time is over")]
    Ended,
    #[error("the API key does not allow this: it lacks the scope `{0}`")]
    Lacks(Scopes),
}

impl Unauthorized {
    /// 401 if another API key would help, else 403.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Lacks(_) => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        }
    }
}

/// What a request sent as its `Authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Authorization<'a> {
    /// No header.
    None,
    /// One header with this value.
    One(&'a [u8]),
    /// More than one.
    Several,
}

impl Sender {
    /// The sender of a request, as of a log time.
    pub(crate) fn of(
        sent: Authorization<'_>,
        access: &Access,
        at: Option<Timestamp>,
    ) -> Result<Self, Unauthorized> {
        let token = match sent {
            Authorization::One(value) => bearer(value),
            Authorization::Several if !access.keys.is_empty() => return Err(Unauthorized::Several),
            Authorization::Several | Authorization::None => None,
        };
        // Other schemes are for a gateway in front, and a store without API keys asks for none.
        let Some(token) = token.filter(|_| !access.keys.is_empty()) else {
            return Ok(Self::without_key(access));
        };
        let (id, digest) = identify(token).map_err(Unauthorized::NotAKey)?;
        let key = access.keys.get(&id).filter(|key| key.digest == digest);
        let key = key.ok_or(Unauthorized::Unknown)?;
        if at.is_some_and(|at| !key.is_live(at)) {
            return Err(Unauthorized::Ended);
        }
        let actor = Some(Actor::new(&key.principal, id));
        Ok(Self { actor, scopes: key.scopes, rate: key.rate })
    }

    /// The same sender, as of now.
    pub(crate) fn still(
        &self,
        access: &Access,
        at: Option<Timestamp>,
    ) -> Result<Self, Unauthorized> {
        let Some(actor) = &self.actor else {
            return Ok(Self::without_key(access));
        };
        let id = actor.id().ok_or(Unauthorized::Unknown)?;
        let principal = actor.principal().as_bytes();
        let scopes = access.scopes(principal, id, at.unwrap_or_default());
        Ok(Self { scopes: scopes.ok_or(Unauthorized::Ended)?, ..self.clone() })
    }

    fn without_key(access: &Access) -> Self {
        Self { actor: None, scopes: access.anonymous, rate: None }
    }

    /// The principal and the rate of the sender's API key, if it has one.
    pub(crate) fn principal(&self) -> Option<(&str, Option<RequestRate>)> {
        self.actor.as_ref().map(|actor| (actor.principal(), self.rate))
    }

    /// Checks that the sender may do what needs all of `needed`.
    pub(crate) fn check(&self, needed: Scopes) -> Result<(), Unauthorized> {
        match self.actor {
            _ if self.scopes.contain(needed) => Ok(()),
            None => Err(Unauthorized::NoKey),
            Some(_) => Err(Unauthorized::Lacks(needed.without(self.scopes))),
        }
    }

    /// True if the sender may do what needs `scope`.
    pub(crate) fn may(&self, scope: Scopes) -> bool {
        self.scopes.contain(scope)
    }

    /// The sender's actor as it travels with an order.
    pub(crate) fn actor_text(&self) -> &str {
        self.actor.as_ref().map_or("", Actor::as_str)
    }
}

/// The token of a value `Bearer TOKEN` (RFC 6750). The scheme has no case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.trim_ascii().split_at_checked(6)?;
    let is_apart = token.first().is_none_or(u8::is_ascii_whitespace);
    (scheme.eq_ignore_ascii_case(b"bearer") && is_apart).then(|| token.trim_ascii_start())
}

#[cfg(test)]
mod tests {
    use ledger::access::ApiKey;
    use ledger::api_key::{ApiKeyDigest, Principal};
    use ledger::api_key_text::{ApiKeyText, RANDOM_BYTES};
    use ledger::terms::Index;
    use wire::access::StoreAccess;

    use super::*;

    const AT: Option<Timestamp> = Some(Timestamp(1_000));

    fn text(seed: u8) -> ApiKeyText {
        ApiKeyText::new(&[seed; RANDOM_BYTES])
    }

    /// A closed store with one key that ends at 2,000.
    fn closed() -> Access {
        let key = ApiKey {
            digest: text(1).digest(),
            principal: Principal::new("webshop").unwrap(),
            scopes: Scopes::parse("storefront").unwrap(),
            ends: Some(Timestamp(2_000)),
            issued: Timestamp(1),
            rate: None,
            issuer: None,
            note: String::new(),
        };
        let mut access = Access { changed: Index(9), anonymous: Scopes::NONE, ..Access::default() };
        access.keys.insert(text(1).id(), key);
        access
    }

    fn sent(value: &str) -> Result<Sender, Unauthorized> {
        Sender::of(Authorization::One(value.as_bytes()), &closed(), AT)
    }

    #[test]
    fn a_key_is_taken_in_each_legal_form() {
        let key = text(1);
        let secret = key.reveal();
        for value in
            [format!("Bearer {secret}"), format!("bearer   {secret}"), format!(" BEARER {secret} ")]
        {
            let sender = sent(&value).unwrap();
            assert_eq!(sender.actor_text(), format!("webshop/{}", key.id()));
            assert_eq!(sender.check(Scopes::ORDER), Ok(()));
            assert_eq!(sender.check(Scopes::SHOP), Err(Unauthorized::Lacks(Scopes::SHOP)));
        }
    }

    #[test]
    fn each_other_header_says_what_is_wrong() {
        let key = text(1);
        let secret = key.reveal();
        let unknown = text(2);
        let mistyped = format!("{}0", &secret[..42]);
        for (value, why) in [
            ("Bearer".into(), Unauthorized::NotAKey(NotAnApiKey::Form)),
            ("Bearer eyJhbGciOi".into(), Unauthorized::NotAKey(NotAnApiKey::Form)),
            (format!("Bearer {secret}, {secret}"), Unauthorized::NotAKey(NotAnApiKey::Form)),
            (format!("Bearer {mistyped}"), Unauthorized::NotAKey(NotAnApiKey::Mistyped)),
            (format!("Bearer {}", unknown.reveal()), Unauthorized::Unknown),
        ] {
            assert_eq!(sent(&value), Err(why), "{value:?}");
            assert!(!why.to_string().contains(secret), "no message repeats a key");
        }
        let several = Sender::of(Authorization::Several, &closed(), AT);
        assert_eq!(several, Err(Unauthorized::Several));
        for other in ["", "Basic eA==", &format!("Bearer{secret}"), secret] {
            let sender = sent(other).unwrap();
            assert_eq!(sender.check(Scopes::QUERY), Err(Unauthorized::NoKey), "{other:?}");
        }
    }

    fn told(ledger: u8, epoch: u64, changed: u64) -> KnownAccess {
        let access = Arc::new(Access { changed: Index(changed), ..closed() });
        let store = StoreAccess { ledger_id: Some(LedgerId([ledger; 16])), access };
        KnownAccess::told(&AccessNews::Told(Arc::new(store)), epoch * EPOCH_TERMS + 7).unwrap()
    }

    /// Kind: a replica that is behind, and the only one that is heard.
    #[test]
    fn a_replica_that_lags_does_not_reopen_a_store() {
        let known = told(1, 2, 50);
        let replaces = |other: &KnownAccess| other.replaces(Some(&known), true);
        assert!(
            !replaces(&told(1, 2, 0)) && !replaces(&told(1, 2, 49)) && !replaces(&told(1, 1, 90))
        );
        assert!(replaces(&told(1, 2, 51)), "a later change");
        assert!(replaces(&told(1, 3, 9)), "a recovered store, which has lost some");
        let other = told(2, 0, 0);
        assert!(replaces(&other) && !other.replaces(Some(&known), false), "another store");
        let old = KnownAccess::told(&AccessNews::Release01, 1).unwrap();
        assert!(old.replaces(None, false) && !replaces(&old));
        assert!(known.replaces(Some(&old), false));
        let empty = StoreAccess { ledger_id: None, access: Arc::default() };
        assert!(KnownAccess::told(&AccessNews::Told(Arc::new(empty)), 7).is_none());
        assert!(KnownAccess::told(&AccessNews::Unknown, 7).is_none());
    }

    #[test]
    fn a_key_of_the_same_id_and_another_secret_is_unknown() {
        let mut access = closed();
        access.keys.values_mut().for_each(|key| key.digest = ApiKeyDigest([0; 16]));
        let value = format!("Bearer {}", text(1).reveal());
        let found = Sender::of(Authorization::One(value.as_bytes()), &access, AT);
        assert_eq!(found, Err(Unauthorized::Unknown));
    }

    #[test]
    fn a_key_ends_at_its_time() {
        let value = format!("Bearer {}", text(1).reveal());
        let at = |millis| {
            let sent = Authorization::One(value.as_bytes());
            Sender::of(sent, &closed(), Some(Timestamp(millis))).map(|_| ())
        };
        assert_eq!((at(1_999), at(2_000)), (Ok(()), Err(Unauthorized::Ended)));
    }

    #[test]
    fn without_a_key_the_anonymous_scopes_count_and_a_store_without_keys_ignores_the_header() {
        let anonymous = Sender::of(Authorization::None, &closed(), AT).unwrap();
        assert_eq!(anonymous.check(Scopes::QUERY), Err(Unauthorized::NoKey));
        let open = Access::default();
        for sent in [Authorization::None, Authorization::One(b"Basic eA=="), Authorization::Several]
        {
            let sender = Sender::of(sent, &open, AT).unwrap();
            assert_eq!((sender.actor_text(), sender.check(Scopes::ORDER)), ("", Ok(())));
            assert!(!sender.may(Scopes::MONITOR));
        }
    }
}
