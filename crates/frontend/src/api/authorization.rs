//! Whether a request may be answered: its sender is authenticated, and may do what it asks.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use ledger::api_key::Scopes;
use ledger::terms::Timestamp;
use wire::problem::{Code, Problem};

use super::Api;
use crate::answer::{self, Answer};
use crate::authentication::{Authorization, Sender, Unauthorized};

impl<'a> Authorization<'a> {
    /// What these headers hold.
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let mut all = headers.get_all(AUTHORIZATION).iter();
        match (all.next(), all.next()) {
            (None, _) => Self::None,
            (Some(one), None) => Self::One(one.as_bytes()),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

impl Api {
    /// The sender of a request, if it may do what needs `needed`; else the answer.
    pub(super) fn allowed(
        &self,
        sent: Authorization<'_>,
        needed: Scopes,
    ) -> Result<Sender, Box<Answer>> {
        let sender = self.sender(sent)?;
        sender.check(needed).map_err(rejected)?;
        Ok(sender)
    }

    /// The sender of a look-up, if it may see its own orders or every order; else the answer.
    pub(super) fn allowed_to_look_up(
        &self,
        sent: Authorization<'_>,
    ) -> Result<Sender, Box<Answer>> {
        let sender = self.sender(sent)?;
        if !sender.may(Scopes::ORDER_ANY) {
            sender.check(Scopes::ORDER).map_err(rejected)?;
        }
        Ok(sender)
    }

    /// Checks again what a sender may do, after its body has arrived.
    pub(super) fn still_allowed(&self, sender: &Sender, needed: Scopes) -> Result<(), Box<Answer>> {
        let replicas = &self.shared.replicas;
        let at = replicas.log_time_ms().map(Timestamp);
        let access = replicas.access().unwrap_or_default();
        sender.still(&access, at).and_then(|now| now.check(needed)).map_err(rejected)
    }

    /// The sender of a request; else the answer.
    pub(super) fn sender(&self, sent: Authorization<'_>) -> Result<Sender, Box<Answer>> {
        let replicas = &self.shared.replicas;
        let Some(access) = replicas.access() else {
            let why = "starting: no replica has said yet who may do what";
            return Err(answer::problem(&Problem::definite(Code::Starting, why)).into());
        };
        // Most requests of an open store come without a key, and need no time.
        let at = match sent {
            Authorization::None => None,
            _ => replicas.log_time_ms().map(Timestamp),
        };
        let sender = Sender::of(sent, &access, at).map_err(rejected)?;
        if sender.actor.is_some() && !replicas.hear_any() {
            // A key may have been revoked meanwhile.
            let why = "no replica is reachable, so no API key can be checked";
            return Err(answer::problem(&Problem::definite(Code::NoQuorum, why)).into());
        }
        Ok(sender)
    }
}

fn rejected(why: Unauthorized) -> Box<Answer> {
    answer::rejection(why.status(), &why.to_string()).into()
}
