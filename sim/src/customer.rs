//! Customers that talk to replicas: one order at a time, under its key, until it is decided.
//!
//! They do the work of a frontend: after an unknown outcome they send the same key again, to the
//! current leader. Sometimes they repeat an order that was answered long ago, or query a product.
//! Half of them have an API key, which they replace now and then: the old one must decide nothing
//! any more.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::api_key::{ALPHABET, Actor, ApiKeyDigest, ApiKeyId, Principal, Scopes};
use ledger::command::{Command, Line, NewApiKey, Request, Side};
use ledger::outcome::{Accepted, Outcome, Refusal};
use ledger::terms::{Index, Key, Name, Origin, Quantity};
use tokio_util::sync::CancellationToken;
use wire::convert;
use wire::dial::Route;
use wire::peers::Peer;
use wire::problem::Problem;
use wire::proto::answer::What as Answered;
use wire::proto::ask::What as Asks;
use wire::proto::{self};
use wire::stream::Caller;

use crate::history::{History, ShownProduct, ShownStock, WantedOrder};
use crate::net::Net;
use crate::plan::NAMES;
use ground::rng::Rng;

/// How long one request waits.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A customer.
pub struct Customer {
    name: String,
    peers: Vec<Peer>,
    luck: Rng,
    net: Net,
    history: History,
    callers: BTreeMap<u64, Caller>,
    /// The next replica to ask.
    favourite: usize,
    wanted_orders: Vec<WantedOrder>,
    /// The API key of a customer that has one.
    actor: Option<Actor>,
    /// How many orders were sent under API keys that had ended.
    probes: u64,
}

impl std::fmt::Debug for Customer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Customer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Customer {
    /// A customer that knows these replicas.
    pub fn new(name: &str, peers: Vec<Peer>, seed: u64, net: &Net, history: &History) -> Self {
        Self {
            name: name.to_owned(),
            peers,
            luck: Rng::new(seed, name),
            net: net.clone(),
            history: history.clone(),
            callers: BTreeMap::new(),
            favourite: 0,
            wanted_orders: Vec::new(),
            actor: None,
            probes: 0,
        }
    }

    /// Orders until stopped; every order that was sent is repeated until it is answered.
    pub async fn shop(mut self, stop: CancellationToken) -> Self {
        if self.luck.percent(50) {
            self.renew_api_key().await;
        }
        while !stop.is_cancelled() {
            if self.actor.is_some() && self.luck.percent(5) {
                self.renew_api_key().await;
            }
            match self.luck.below(10) {
                0 if !self.wanted_orders.is_empty() => {
                    let again =
                        self.wanted_orders[self.luck.place(self.wanted_orders.len())].clone();
                    self.settle(&again).await;
                }
                1 | 2 => self.look().await,
                _ => {
                    let wanted = self.wanted();
                    self.wanted_orders.push(wanted.clone());
                    self.settle(&wanted).await;
                }
            }
            let pause = self.luck.below(40);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self
    }

    /// Repeats all orders of the run: each must have the same answer as before.
    pub async fn ask_again(mut self) {
        for wanted in std::mem::take(&mut self.wanted_orders) {
            self.settle(&wanted).await;
        }
    }

    fn wanted(&mut self) -> WantedOrder {
        let side = if self.luck.percent(20) { Side::Sell } else { Side::Buy };
        WantedOrder {
            key: format!("{}-{}", self.name, self.wanted_orders.len()),
            name: self.luck.one(&NAMES).to_owned(),
            quantity: self.luck.between(1, 3),
            side,
        }
    }

    /// Repeats an order until it has a definite answer.
    async fn settle(&mut self, wanted: &WantedOrder) {
        self.history.note_sent(wanted, self.net.now());
        let request = request(wanted, self.actor.clone());
        if let Some((index, outcome)) = self.decide(&request).await {
            if matches!(&outcome, Outcome::Refused(refusal) if refusal.is_about_rights()) {
                self.history.is_wrong(format!("a live API key got {outcome:?}"));
            }
            self.history.note_answer(&wanted.key, self.net.now(), index, outcome);
        }
    }

    /// Sends a request until it is decided. `None`: it got an answer that cannot be.
    async fn decide(&mut self, request: &Request) -> Option<(Index, Outcome)> {
        let what = Asks::Request(convert::request_to(request));
        loop {
            match self.ask(what.clone()).await {
                Ok(proto::Answer { as_of, what: Some(Answered::Outcome(outcome)), .. }) => {
                    let index = Index(as_of);
                    let outcome = convert::outcome_from(outcome, index);
                    return match outcome {
                        Ok(outcome) => Some((index, outcome)),
                        Err(problem) => {
                            self.history.is_wrong(problem.message);
                            None
                        }
                    };
                }
                Ok(other) => {
                    self.history.is_wrong(format!("{other:?} answers a command"));
                    return None;
                }
                Err(problem) => self.elsewhere(&problem).await,
            }
        }
    }

    /// Issues a new API key of this customer and ends the one before, under which an order must be
    /// refused from then on.
    async fn renew_api_key(&mut self) {
        let id: Vec<u8> = (0..8).map(|_| self.luck.one(ALPHABET.as_slice())).collect();
        let id = ApiKeyId::new(&id).expect("its letters are from the alphabet");
        let principal = Principal::new(&self.name).expect("names of customers are short");
        let new = NewApiKey {
            id,
            digest: ApiKeyDigest([0; 16]),
            principal: principal.clone(),
            scopes: Scopes::ORDER,
            ends: None,
            rate: None,
            note: String::new(),
        };
        let command = Command::IssueApiKey(new);
        let issue = Request {
            key: Key::new(Origin::Client, id.as_str()),
            deadline: None,
            certificate: None,
            command,
        };
        let issued = self.decide(&issue).await;
        self.expect_done("an API key is issued", issued);
        let Some(old) = self.actor.replace(Actor::new(&principal, id)) else { return };
        let Some(old_id) = old.id() else { return };
        let command = Command::RevokeApiKey { id: old_id, ends: None };
        let key = Key::new(Origin::Client, &format!("{old_id}-ends"));
        let revoked =
            self.decide(&Request { key, deadline: None, certificate: None, command }).await;
        self.expect_done("an API key is revoked", revoked);
        self.probes += 1;
        let probe =
            WantedOrder { key: format!("{}-probe-{}", self.name, self.probes), ..self.wanted() };
        let decided = self.decide(&request(&probe, Some(old))).await;
        let is_refused =
            |outcome: &Outcome| *outcome == Outcome::Refused(Refusal::NotAuthenticated);
        if !decided.as_ref().is_none_or(|(_, outcome)| is_refused(outcome)) {
            self.history.is_wrong(format!("an API key that had ended got {decided:?}"));
        }
    }

    /// A command was accepted, now or in an earlier try.
    fn expect_done(&self, what: &str, decided: Option<(Index, Outcome)>) {
        let done = Outcome::Accepted(Accepted::Done);
        match decided {
            Some((_, outcome)) if outcome == done => {}
            Some((_, Outcome::Repeated { first, .. })) if *first == done => {}
            other => self.history.is_wrong(format!("{what}: {other:?}")),
        }
    }

    /// Queries a product once.
    async fn look(&mut self) {
        let name = self.luck.one(&NAMES).to_owned();
        let began = self.net.now();
        let query = proto::Query { name: name.clone(), floor: 0, stale_ok: false };
        let stock = match self.ask(Asks::Query(query)).await {
            Ok(proto::Answer { stale: true, .. }) => return,
            Ok(proto::Answer { as_of, what: Some(Answered::Product(product)), .. }) => {
                Some((as_of, ShownStock::Exactly(product.stock)))
            }
            Ok(proto::Answer { as_of, what: Some(Answered::Nothing(_)), .. }) => {
                Some((as_of, ShownStock::NoProduct))
            }
            Ok(other) => return self.history.is_wrong(format!("{other:?} answers a query")),
            Err(problem) => return self.elsewhere(&problem).await,
        };
        if let Some((as_of, stock)) = stock {
            self.history.shows(ShownProduct { began, name, as_of: Index(as_of), stock });
        }
    }

    /// After a problem: tries the replica it names, or the next one, a little later.
    async fn elsewhere(&mut self, problem: &Problem) {
        let named = problem.leader.and_then(|id| self.peers.iter().position(|p| p.id == id));
        self.favourite = named.unwrap_or_else(|| self.luck.place(self.peers.len()));
        let pause = self.luck.between(2, 30);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    async fn ask(&mut self, what: Asks) -> Result<proto::Answer, Problem> {
        let peer = &self.peers[self.favourite % self.peers.len()];
        let open = self.callers.get(&peer.id).filter(|caller| !caller.is_closed());
        let caller = match open {
            Some(caller) => caller.clone(),
            None => {
                let refused =
                    |error| Problem::definite(wire::problem::Code::Refused, format!("{error}"));
                let caller = Caller::connect(&Route::plaintext(), &peer.address).await;
                let caller = caller.map_err(refused)?;
                self.callers.insert(peer.id, caller.clone());
                caller
            }
        };
        caller.ask(what, ANSWER_TIMEOUT).await
    }
}

fn request(wanted: &WantedOrder, actor: Option<Actor>) -> Request {
    let line = Line {
        name: Name::new(&wanted.name).expect("names of the plan are short"),
        quantity: Quantity::new(wanted.quantity).expect("customers want one to three"),
        side: wanted.side,
    };
    let key = Key::new(Origin::Client, &wanted.key).expect("keys are short and visible");
    Request {
        key: Some(key.sent_by(actor)),
        deadline: None,
        certificate: None,
        command: Command::Place(vec![line]),
    }
}
