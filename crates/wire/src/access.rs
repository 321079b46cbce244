//! API keys on the wire: who may do what, as replicas push it, and the commands that change it.

use std::collections::BTreeMap;

use ledger::access::Access;
use ledger::api_key::{Actor, ApiKey, ApiKeyDigest, ApiKeyId, Principal, Scopes, is_note};
use ledger::command::NewApiKey;
use ledger::terms::{Index, Key, Timestamp};

use crate::convert::{Converted, malformed};
use crate::proto;

/// An actor from the wire; an empty text is none.
pub fn actor(text: &str) -> Converted<Option<Actor>> {
    match text {
        "" => Ok(None),
        text => Actor::parse(text).map(Some).ok_or_else(|| malformed("an actor")),
    }
}

/// The actor of a key, for the wire.
pub(crate) fn actor_text(key: &Key) -> String {
    key.actor.as_ref().map_or_else(String::new, ToString::to_string)
}

pub(crate) fn id(text: &str) -> Converted<ApiKeyId> {
    ApiKeyId::new(text.as_bytes()).ok_or_else(|| malformed("the id of an API key"))
}

pub(crate) fn scopes(bits: u32) -> Converted<Scopes> {
    let scopes = u16::try_from(bits).ok().and_then(Scopes::from_bits);
    scopes.ok_or_else(|| malformed("a scope"))
}

pub(crate) fn ends(millis: u64) -> Option<Timestamp> {
    Some(Timestamp(millis)).filter(|ends| ends.0 != 0)
}

fn digest(bytes: &[u8]) -> Converted<ApiKeyDigest> {
    bytes.try_into().map(ApiKeyDigest).map_err(|_| malformed("the digest of an API key"))
}

fn principal(name: &str) -> Converted<Principal> {
    Principal::new(name).ok_or_else(|| malformed("a principal"))
}

fn note(note: String) -> Converted<String> {
    if is_note(&note) { Ok(note) } else { Err(malformed("the note of an API key")) }
}

pub(crate) fn new_api_key(issue: proto::IssueApiKey) -> Converted<NewApiKey> {
    Ok(NewApiKey {
        id: id(&issue.id)?,
        digest: digest(&issue.digest)?,
        principal: principal(&issue.principal)?,
        scopes: scopes(issue.scopes)?,
        ends: ends(issue.ends_ms),
        note: note(issue.note)?,
    })
}

pub(crate) fn new_api_key_to(new: &NewApiKey) -> proto::IssueApiKey {
    proto::IssueApiKey {
        id: new.id.to_string(),
        digest: new.digest.0.to_vec().into(),
        principal: new.principal.to_string(),
        scopes: u32::from(new.scopes.bits()),
        ends_ms: new.ends.map_or(0, |ends| ends.0),
        note: new.note.clone(),
    }
}

/// Who may do what, from the wire.
pub fn access(access: proto::Access) -> Converted<Access> {
    let keys = access.keys.into_iter().map(|key| Ok((id(&key.id)?, api_key(key)?)));
    Ok(Access {
        changed: Index(access.changed),
        anonymous: scopes(access.anonymous_scopes)?,
        keys: keys.collect::<Converted<BTreeMap<_, _>>>()?,
    })
}

/// Who may do what, for the wire.
pub fn access_to(access: &Access) -> proto::Access {
    let key = |(id, key): (&ApiKeyId, &ApiKey)| proto::ApiKey {
        id: id.to_string(),
        digest: key.digest.0.to_vec().into(),
        principal: key.principal.to_string(),
        scopes: u32::from(key.scopes.bits()),
        ends_ms: key.ends.map_or(0, |ends| ends.0),
        issued_ms: key.issued.0,
        issuer: key.issuer.as_ref().map_or_else(String::new, ToString::to_string),
        note: key.note.clone(),
    };
    proto::Access {
        changed: access.changed.0,
        anonymous_scopes: access.anonymous.bits().into(),
        keys: access.keys.iter().map(key).collect(),
    }
}

fn api_key(key: proto::ApiKey) -> Converted<ApiKey> {
    Ok(ApiKey {
        digest: digest(&key.digest)?,
        principal: principal(&key.principal)?,
        scopes: scopes(key.scopes)?,
        ends: ends(key.ends_ms),
        issued: Timestamp(key.issued_ms),
        issuer: actor(&key.issuer)?,
        note: note(key.note)?,
    })
}
