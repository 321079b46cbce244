//! The auditor's API keys: who may ask for what, computed again without the ledger's [`Access`].
//!
//! [`Access`]: crate::access::Access

use std::collections::BTreeMap;

use crate::api_key::{Actor, Scopes};
use crate::command::{Command, NewApiKey, Request};
use crate::outcome::{Accepted, Refusal};
use crate::terms::Timestamp;

/// The most API keys of a ledger, defined again: the auditor shares no limit with the rules.
const KEYS_MAX: usize = 10_000;

/// The most principals that they belong to.
const OWNERS_MAX: usize = 1_000;

/// The live API keys, and what requests without one may do.
#[derive(Debug, Default)]
pub(super) struct Rights {
    /// By id: the key, and the log time from which on it allows nothing.
    keys: BTreeMap<String, (NewApiKey, Option<Timestamp>)>,
    /// `None`: never set, so the store is open.
    anonymous: Option<Scopes>,
}

impl Rights {
    /// The refusal of a request whose sender may not ask for its command.
    pub(super) fn refusal(&self, request: &Request, at: Timestamp) -> Option<Refusal> {
        let needed = match &request.command {
            Command::Place(_) => "order",
            Command::Define(_)
            | Command::SetPrice { .. }
            | Command::RestockBy { .. }
            | Command::RestockTo { .. } => "shop",
            Command::IssueApiKey(_)
            | Command::RevokeApiKey { .. }
            | Command::SetAnonymousScopes(_) => "keys",
            Command::OperatorAction(_) => "operate",
            Command::Open(_)
            | Command::Attach { .. }
            | Command::Detach { .. }
            | Command::Reopen { .. } => "no scope",
        };
        let Some(actor) = request.key.as_ref().and_then(|key| key.actor.as_ref()) else {
            let anonymous =
                self.anonymous.map_or_else(|| "order".to_owned(), |some| some.to_string());
            let closed = needed == "order" && !names(&anonymous, needed);
            return closed.then_some(Refusal::NotAuthenticated);
        };
        match self.scopes(actor, at) {
            None => Some(Refusal::NotAuthenticated),
            Some(scopes) if names(&scopes.to_string(), needed) => None,
            Some(_) => Some(Refusal::NotAllowed),
        }
    }

    fn scopes(&self, actor: &Actor, at: Timestamp) -> Option<Scopes> {
        let (principal, id) = actor.as_str().split_once('/')?;
        let (key, ends) = self.keys.get(id)?;
        let lives = key.principal.as_str() == principal && ends.is_none_or(|ends| at < ends);
        lives.then_some(key.scopes)
    }

    /// The outcome of a command about API keys. `None`: it is about something else.
    pub(super) fn decide(
        &mut self,
        request: &Request,
        at: Timestamp,
    ) -> Option<Result<Accepted, Refusal>> {
        Some(match &request.command {
            Command::IssueApiKey(new) => {
                let issuer = request.key.as_ref().and_then(|key| key.actor.as_ref());
                let own = issuer.map(|issuer| self.scopes(issuer, at).unwrap_or_default());
                let lacks = own.is_some_and(|own| new.scopes.bits() & !own.bits() != 0);
                let id = new.id.as_str().to_owned();
                if lacks {
                    Err(Refusal::NotAllowed)
                } else if self.keys.contains_key(&id) {
                    Err(Refusal::ApiKeyExists)
                } else if self.is_full(new.principal.as_str(), at) {
                    Err(Refusal::ApiKeysLimit)
                } else {
                    self.keys.insert(id, (new.clone(), new.ends));
                    Ok(Accepted::Done)
                }
            }
            Command::RevokeApiKey { id, ends } => match self.keys.get_mut(id.as_str()) {
                None => Err(Refusal::NoSuchApiKey),
                Some((_, known)) => {
                    let ends = ends.unwrap_or(at).max(at);
                    if known.is_some_and(|known| known <= ends) {
                        Ok(Accepted::Unchanged)
                    } else {
                        *known = Some(ends);
                        Ok(Accepted::Done)
                    }
                }
            },
            Command::SetAnonymousScopes(scopes) => {
                let open = Scopes::parse("query,order,order:any,import").unwrap_or_default();
                if ["operate", "keys"].iter().any(|never| names(&scopes.to_string(), never)) {
                    return Some(Err(Refusal::NotAllowed));
                }
                let before = self.anonymous.replace(*scopes).unwrap_or(open);
                Ok(if before == *scopes { Accepted::Unchanged } else { Accepted::Done })
            }
            _ => return None,
        })
    }

    /// True if no further key of this principal fits, even without those that have ended.
    fn is_full(&mut self, principal: &str, at: Timestamp) -> bool {
        let fits = |keys: &BTreeMap<String, (NewApiKey, Option<Timestamp>)>| {
            let mut principals: Vec<_> =
                keys.values().map(|(key, _)| key.principal.as_str()).chain([principal]).collect();
            principals.sort_unstable();
            principals.dedup();
            keys.len() < KEYS_MAX && principals.len() <= OWNERS_MAX
        };
        if fits(&self.keys) {
            return false;
        }
        self.keys.retain(|_, (_, ends)| ends.is_none_or(|ends| at < ends));
        !fits(&self.keys)
    }
}

fn names(scopes: &str, needed: &str) -> bool {
    scopes.split(", ").any(|scope| scope == needed)
}
