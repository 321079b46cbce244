//! API keys on the wire: the access to a store, as replicas push it, and the commands that change
//! it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::access::{Access, ApiKey};
use ledger::api_key::{Actor, ApiKeyDigest, ApiKeyId, Principal, RequestRate, Scopes, is_note};
use ledger::command::NewApiKey;
use ledger::terms::{Index, Key, LedgerId, Timestamp};

use crate::problem::Problem;
use crate::proto;

fn malformed(what: &str) -> Problem {
    Problem::malformed(what)
}

/// The access to a store, as one of its replicas knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreAccess {
    /// The store's ledger. `None`: the replica does not have the opening of its shop yet, and so
    /// knows nothing.
    pub ledger_id: Option<LedgerId>,
    /// The API keys, and what requests without one may do.
    pub access: Arc<Access>,
}

/// What a process has said about the access to its store.
#[derive(Clone, Debug, Default)]
pub enum AccessNews {
    /// Nothing yet, or something that this program cannot read.
    #[default]
    Unknown,
    /// It is a replica of release 0.1, which has no API keys: its store is open.
    Release01,
    /// The access, which may change.
    Told(Arc<StoreAccess>),
}

impl AccessNews {
    /// Notes one more message; its access is absent unless it is the first or has changed.
    pub(crate) fn note(&mut self, has_told: &mut bool, access: Option<proto::Access>) -> bool {
        let is_first = !std::mem::replace(has_told, true);
        *self = match access.map(store_access) {
            Some(Ok(access)) => Self::Told(access.into()),
            Some(Err(problem)) => {
                tracing::error!("cannot read the API keys of a replica: {problem}");
                Self::Unknown
            }
            None if is_first => Self::Release01,
            None => return false,
        };
        true
    }
}

/// An actor from the wire; an empty text is none.
pub fn actor(text: &str) -> Result<Option<Actor>, Problem> {
    match text {
        "" => Ok(None),
        text => Actor::parse(text).map(Some).ok_or_else(|| malformed("an actor")),
    }
}

/// The actor of a key, for the wire.
pub(crate) fn actor_text(key: &Key) -> String {
    key.actor.as_ref().map_or_else(String::new, ToString::to_string)
}

pub(crate) fn id(text: &str) -> Result<ApiKeyId, Problem> {
    ApiKeyId::new(text.as_bytes()).ok_or_else(|| malformed("the id of an API key"))
}

pub(crate) fn scopes(bits: u32) -> Result<Scopes, Problem> {
    let scopes = u16::try_from(bits).ok().and_then(Scopes::from_bits);
    scopes.ok_or_else(|| malformed("a scope"))
}

pub(crate) fn ends(millis: u64) -> Option<Timestamp> {
    Some(Timestamp(millis)).filter(|ends| ends.0 != 0)
}

fn digest(bytes: &[u8]) -> Result<ApiKeyDigest, Problem> {
    bytes.try_into().map(ApiKeyDigest).map_err(|_| malformed("the digest of an API key"))
}

fn principal(name: &str) -> Result<Principal, Problem> {
    Principal::new(name).ok_or_else(|| malformed("a principal"))
}

fn note(note: String) -> Result<String, Problem> {
    if is_note(&note) { Ok(note) } else { Err(malformed("the note of an API key")) }
}

fn rate(numbers: (u32, u32)) -> Result<Option<RequestRate>, Problem> {
    match numbers {
        (0, 0) => Ok(None),
        (per_second, burst) => RequestRate::new(per_second, burst)
            .map(Some)
            .ok_or_else(|| malformed("the rate of an API key")),
    }
}

pub(crate) fn new_api_key(issue: proto::IssueApiKey) -> Result<NewApiKey, Problem> {
    Ok(NewApiKey {
        id: id(&issue.id)?,
        digest: digest(&issue.digest)?,
        principal: principal(&issue.principal)?,
        scopes: scopes(issue.scopes)?,
        ends: ends(issue.ends_ms),
        rate: rate((issue.rate, issue.burst))?,
        note: note(issue.note)?,
    })
}

pub(crate) fn new_api_key_to(new: &NewApiKey) -> proto::IssueApiKey {
    let (rate, burst) = RequestRate::numbers(new.rate);
    proto::IssueApiKey {
        id: new.id.to_string(),
        digest: new.digest.0.to_vec().into(),
        principal: new.principal.to_string(),
        scopes: u32::from(new.scopes.bits()),
        ends_ms: new.ends.map_or(0, |ends| ends.0),
        note: new.note.clone(),
        rate,
        burst,
    }
}

/// The access to a store, from the wire.
fn store_access(access: proto::Access) -> Result<StoreAccess, Problem> {
    let keys = access.keys.into_iter().map(|key| Ok((id(&key.id)?, api_key(key)?)));
    let ledger_id: Option<[u8; 16]> = match &*access.ledger_id {
        [] => None,
        bytes => Some(bytes.try_into().map_err(|_| malformed("the id of a ledger"))?),
    };
    let access = Access {
        changed: Index(access.changed),
        anonymous: scopes(access.anonymous_scopes)?,
        keys: keys.collect::<Result<BTreeMap<_, _>, Problem>>()?,
    };
    Ok(StoreAccess { ledger_id: ledger_id.map(LedgerId), access: Arc::new(access) })
}

/// The access to a store, for the wire.
pub(crate) fn store_access_to(store: &StoreAccess) -> proto::Access {
    let StoreAccess { ledger_id, access } = store;
    let key = |(id, key): (&ApiKeyId, &ApiKey)| proto::ApiKey {
        id: id.to_string(),
        digest: key.digest.0.to_vec().into(),
        principal: key.principal.to_string(),
        scopes: u32::from(key.scopes.bits()),
        ends_ms: key.ends.map_or(0, |ends| ends.0),
        issued_ms: key.issued.0,
        issuer: key.issuer.as_ref().map_or_else(String::new, ToString::to_string),
        note: key.note.clone(),
        rate: RequestRate::numbers(key.rate).0,
        burst: RequestRate::numbers(key.rate).1,
    };
    proto::Access {
        changed: access.changed.0,
        anonymous_scopes: access.anonymous.bits().into(),
        keys: access.keys.iter().map(key).collect(),
        ledger_id: ledger_id.map_or_else(Vec::new, |id| id.0.to_vec()).into(),
    }
}

fn api_key(key: proto::ApiKey) -> Result<ApiKey, Problem> {
    Ok(ApiKey {
        digest: digest(&key.digest)?,
        principal: principal(&key.principal)?,
        scopes: scopes(key.scopes)?,
        ends: ends(key.ends_ms),
        rate: rate((key.rate, key.burst))?,
        issued: Timestamp(key.issued_ms),
        issuer: actor(&key.issuer)?,
        note: note(key.note)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind: a store that is closed, and counts as open because its keys cannot be read.
    #[test]
    fn an_access_that_cannot_be_read_is_unknown_and_not_open() {
        let mut news = AccessNews::default();
        let mut has_told = false;
        let newer = proto::Access { anonymous_scopes: 1 << 12, ..proto::Access::default() };
        assert!(news.note(&mut has_told, Some(newer)));
        assert!(matches!(news, AccessNews::Unknown));
        assert!(!news.note(&mut has_told, None), "a later message without it changes nothing");
        assert!(matches!(news, AccessNews::Unknown));
        let closed = proto::Access { changed: 3, ..proto::Access::default() };
        assert!(news.note(&mut has_told, Some(closed)));
        let AccessNews::Told(store) = &news else { panic!("{news:?}") };
        assert_eq!((store.access.changed, store.access.anonymous), (Index(3), Scopes::NONE));
    }

    #[test]
    fn a_replica_of_release_0_1_says_nothing_in_its_first_message() {
        let (mut news, mut has_told) = (AccessNews::default(), false);
        assert!(news.note(&mut has_told, None) && matches!(news, AccessNews::Release01));
    }
}
