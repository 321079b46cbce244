//! Whether a request may be answered: its sender is authenticated, and may do what it asks.

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use ledger::api_key::Scopes;
use ledger::terms::Timestamp;
use wire::problem::{Code, Problem};

use super::Api;
use super::scope_check::{Identified, rejected};
use crate::answer::{self, Answer};
use crate::authentication::{Authorization, Sender};
use crate::client_address::ClientAddress;
use crate::remembered_key::RememberedKey;

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
    /// The sender of a request that is within the rate of its client; else the answer, 429 for a
    /// request that is one too many.
    pub(super) fn identify(
        &self,
        sent: Authorization<'_>,
        remembered: Option<&mut RememberedKey>,
        from: ClientAddress,
    ) -> Identified {
        let mut sender = self.sender(sent, remembered);
        match &mut sender {
            Ok(sender) => self.shared.rates.take(from, Some(sender))?,
            Err(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
                self.shared.rates.take(from, None)?;
                self.shared.rates.note_failure(from, answer);
            }
            // While no replica is heard, no API key is told from none.
            Err(_) => {}
        }
        sender
    }

    /// Checks again what a sender may do, after its body has arrived.
    pub(super) fn still_allowed(&self, sender: &Sender, needed: Scopes) -> Result<(), Box<Answer>> {
        let replicas = &self.shared.replicas;
        let at = replicas.log_time_ms().map(Timestamp);
        let access = replicas.access().unwrap_or_default();
        sender.still(&access, at).and_then(|now| now.check(needed)).map_err(rejected)
    }

    /// The sender of a request; else the answer.
    fn sender(
        &self,
        sent: Authorization<'_>,
        remembered: Option<&mut RememberedKey>,
    ) -> Identified {
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
        let sender = match remembered {
            Some(remembered) => remembered.sender(sent, &access, at),
            None => Sender::of(sent, &access, at),
        };
        let sender = sender.map_err(rejected)?;
        if sender.actor.is_some() && !replicas.hear_any() {
            // A key may have been revoked meanwhile.
            let why = "no replica is reachable, so no API key can be checked";
            return Err(answer::problem(&Problem::definite(Code::NoQuorum, why)).into());
        }
        Ok(sender)
    }
}
