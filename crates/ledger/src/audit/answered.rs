//! The auditor's key windows: keys that a ledger must still remember, with their first answers.

use std::collections::{BTreeMap, VecDeque};

use crate::command::Request;
use crate::outcome::{Outcome, Refusal};
use crate::terms::{EntryTime, Index, Key, Origin, Timestamp};

/// The keys of one origin and one kind of answer.
#[derive(Debug, Default)]
pub(super) struct Answered {
    first: BTreeMap<PrincipalKey, FirstAnswer>,
    /// Keys and the log time of their answers, oldest first: of each principal's clients, or of all
    /// frontends under the empty name.
    orders: BTreeMap<String, VecDeque<(PrincipalKey, Timestamp)>>,
}

/// A key's principal and text: with each API key of a principal, the key is the same.
type PrincipalKey = (String, String);

fn owned(key: &Key) -> PrincipalKey {
    (key.principal().to_owned(), key.text().to_owned())
}

/// A first answer, with its index and the fingerprint of its command.
#[derive(Debug)]
struct FirstAnswer {
    index: Index,
    fingerprint: [u8; 16],
    outcome: Outcome,
}

impl Answered {
    /// The answer that a request with this key must get, and the index of the first one. `None`:
    /// the key is fresh.
    pub(super) fn expected(&self, key: &Key, request: &Request) -> Option<(Index, Outcome)> {
        let FirstAnswer { index, fingerprint, outcome } = self.first.get(&owned(key))?;
        let expected = if *fingerprint == request.command.fingerprint() {
            Outcome::Repeated { index: *index, first: Box::new(outcome.clone()) }
        } else {
            Outcome::Refused(Refusal::KeyReused)
        };
        Some((*index, expected))
    }

    /// Remembers a first answer. Beyond `keys_max`, the principal with the most keys loses its
    /// oldest; of several, the last in name order.
    pub(super) fn remember(
        &mut self,
        key: &Key,
        decided: EntryTime,
        request: &Request,
        outcome: &Outcome,
        keys_max: usize,
    ) {
        let fingerprint = request.command.fingerprint();
        let first = FirstAnswer { index: decided.index, fingerprint, outcome: outcome.clone() };
        self.first.insert(owned(key), first);
        let owner = match key.origin {
            Origin::Client => key.principal(),
            Origin::Frontend => "",
        };
        self.orders.entry(owner.to_owned()).or_default().push_back((owned(key), decided.at));
        // A key that comes again was forgotten before, so each key is counted once.
        while keys_max < self.first.len() {
            let most = self.orders.iter_mut().max_by_key(|(name, keys)| (keys.len(), *name));
            let Some((key, _)) = most.and_then(|(_, keys)| keys.pop_front()) else { break };
            self.first.remove(&key);
        }
    }

    /// Forgets answers older than `age_max_ms`.
    pub(super) fn expire(&mut self, now: Timestamp, age_max_ms: u64) {
        let old = |at: Timestamp| at.0.saturating_add(age_max_ms) < now.0;
        for keys in self.orders.values_mut() {
            while let Some((key, _)) = keys.pop_front_if(|(_, at)| old(*at)) {
                self.first.remove(&key);
            }
        }
    }
}
