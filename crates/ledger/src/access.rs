//! Access: the API keys that are live, what each allows, and what requests without one may do.
//!
//! A ledger that has met no command about API keys is *open*: requests without one may query and
//! order, as in stores of release 0.1. Its formats are those of release 0.1, too.
//!
//! # Invariants
//!
//! * A key decides nothing after the index at which it was revoked, wherever a request already was:
//!   every request of a key is checked when it is applied.
//! * No key issues a scope that it lacks.

use std::collections::{BTreeMap, BTreeSet};

use crate::api_key::{Actor, ActorParts, ApiKeyDigest, ApiKeyId, Principal, RequestRate, Scopes};
use crate::command::NewApiKey;
use crate::outcome::{Accepted, Refusal};
use crate::terms::{Index, Timestamp};

/// The most API keys that a ledger holds at the same time.
pub const API_KEYS_MAX: usize = 10_000;

/// The most principals whose API keys a ledger holds at the same time. Each has key windows of its
/// own.
pub const PRINCIPALS_MAX: usize = 1_000;

/// The API keys of a store, and the rights of requests without one, as of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The index of the last change; 0: there was no command about API keys yet.
    pub changed: Index,
    /// What requests without an API key may do.
    pub anonymous: Scopes,
    /// The API keys, by id: those that are live, and some that have ended.
    pub keys: BTreeMap<ApiKeyId, ApiKey>,
}

/// An API key as the ledger holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// The digest of the whole key.
    pub digest: ApiKeyDigest,
    /// The owner.
    pub principal: Principal,
    /// What the key allows.
    pub scopes: Scopes,
    /// The log time from which on the key allows nothing. `None`: never.
    pub ends: Option<Timestamp>,
    /// How many requests frontends take from its holder. `None`: any number.
    pub rate: Option<RequestRate>,
    /// The log time at which the key was issued.
    pub issued: Timestamp,
    /// Who issued the key. `None`: an operator without an API key.
    pub issuer: Option<Actor>,
    /// A note for people, as [`is_note`](crate::api_key::is_note) accepts it.
    pub note: String,
}

impl ApiKey {
    /// True if the key allows anything at this log time.
    pub fn is_live(&self, at: Timestamp) -> bool {
        self.ends.is_none_or(|ends| at < ends)
    }
}

impl Default for Access {
    /// The access of an open store.
    fn default() -> Self {
        Self { changed: Index(0), anonymous: Scopes::OPEN, keys: BTreeMap::new() }
    }
}

impl Access {
    /// Notes that a command about API keys was decided at this index, even if it was refused: from
    /// now on this ledger is not one of release 0.1.
    pub(crate) fn begin(&mut self, index: Index) {
        if self.changed == Index(0) {
            self.changed = index;
        }
    }

    /// What this API key allows at a log time. `None`: there is no such key of this principal, or
    /// it has ended.
    pub fn scopes(&self, principal: &[u8], id: ApiKeyId, at: Timestamp) -> Option<Scopes> {
        let key = self.keys.get(&id)?;
        let is_its = key.principal.as_str().as_bytes() == principal;
        (is_its && key.is_live(at)).then_some(key.scopes)
    }

    /// Checks that a request may ask for what needs `needed`.
    pub(crate) fn check(
        &self,
        actor: ActorParts<'_>,
        needed: Scopes,
        at: Timestamp,
    ) -> Result<(), Refusal> {
        let scopes = match actor {
            None => self.anonymous,
            Some((principal, id)) => {
                self.scopes(principal, id, at).ok_or(Refusal::NotAuthenticated)?
            }
        };
        match actor {
            _ if scopes.contain(needed) => Ok(()),
            None => Err(Refusal::NotAuthenticated),
            Some(_) => Err(Refusal::NotAllowed),
        }
    }

    /// True if this actor may look at the orders of this principal. `None`: a request without an
    /// API key.
    pub fn shows_orders_of(&self, principal: &str, actor: Option<&Actor>, at: Timestamp) -> bool {
        let (own, scopes) = match actor {
            None => ("", self.anonymous),
            Some(actor) => {
                let id = actor.id();
                let scopes = id.and_then(|id| self.scopes(actor.principal().as_bytes(), id, at));
                (actor.principal(), scopes.unwrap_or_default())
            }
        };
        let needed = if own == principal { Scopes::ORDER } else { Scopes::ORDER_ANY };
        scopes.contain(needed) || scopes.contain(Scopes::ORDER_ANY)
    }

    /// The number of principals that have API keys.
    pub fn principal_count(&self) -> usize {
        self.principals().collect::<BTreeSet<_>>().len()
    }

    fn principals(&self) -> impl Iterator<Item = &Principal> {
        self.keys.values().map(|key| &key.principal)
    }

    /// True if another API key of this principal would be one too many.
    fn is_full_for(&self, principal: &Principal) -> bool {
        if API_KEYS_MAX <= self.keys.len() {
            return true;
        }
        let is_new = !self.principals().any(|own| own == principal);
        is_new && PRINCIPALS_MAX <= self.principal_count()
    }

    /// Issues an API key; `issuer` is the API key that asks for it.
    pub(crate) fn issue(
        &mut self,
        new: &NewApiKey,
        issuer: ActorParts<'_>,
        (index, at): (Index, Timestamp),
    ) -> Result<Accepted, Refusal> {
        if let Some((principal, id)) = issuer {
            let own = self.scopes(principal, id, at).unwrap_or_default();
            if !own.contain(new.scopes) {
                return Err(Refusal::NotAllowed);
            }
        }
        if self.keys.contains_key(&new.id) {
            return Err(Refusal::ApiKeyExists);
        }
        if self.is_full_for(&new.principal) {
            self.keys.retain(|_, key| key.is_live(at));
        }
        if self.is_full_for(&new.principal) {
            return Err(Refusal::ApiKeysLimit);
        }
        let issuer = issuer.and_then(|(_, id)| {
            let issuer = self.keys.get(&id)?;
            Some(Actor::new(&issuer.principal, id))
        });
        let key = ApiKey {
            digest: new.digest,
            principal: new.principal.clone(),
            scopes: new.scopes,
            ends: new.ends,
            rate: new.rate,
            issued: at,
            issuer,
            note: new.note.clone(),
        };
        self.keys.insert(new.id, key);
        self.changed = index;
        Ok(Accepted::Done)
    }

    /// Ends an API key at a log time, or now. A key can only be made to end earlier.
    pub(crate) fn revoke(
        &mut self,
        id: ApiKeyId,
        ends: Option<Timestamp>,
        (index, at): (Index, Timestamp),
    ) -> Result<Accepted, Refusal> {
        let key = self.keys.get_mut(&id).ok_or(Refusal::NoSuchApiKey)?;
        let ends = ends.map_or(at, |ends| ends.max(at));
        if key.ends.is_some_and(|before| before <= ends) {
            return Ok(Accepted::Unchanged);
        }
        key.ends = Some(ends);
        self.changed = index;
        Ok(Accepted::Done)
    }

    /// Sets what requests without an API key may do.
    pub(crate) fn set_anonymous(
        &mut self,
        scopes: Scopes,
        index: Index,
    ) -> Result<Accepted, Refusal> {
        if !Scopes::ANONYMOUS_MAX.contain(scopes) {
            return Err(Refusal::NotAllowed);
        }
        if self.anonymous == scopes {
            return Ok(Accepted::Unchanged);
        }
        self.anonymous = scopes;
        self.changed = index;
        Ok(Accepted::Done)
    }
}
