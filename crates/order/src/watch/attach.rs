//! The entries of the log about catalogs: to attach them, to detach those that said goodbye, and to
//! detach those that were silent for a whole grace.

use ledger::command::{Command, Request};
use ledger::outcome::{Accepted, Outcome};
use tokio::sync::oneshot;
use wire::convert;
use wire::escaped::escaped;
use wire::watch::clock;
use wire::watch::source_state::Incarnation;

use crate::leader_term::Detach;
use crate::pending::{Decisions, Pending};
use crate::watch::settling::Settling;

impl Settling {
    /// Stops serving the catalogs that have been silent for a grace, and proposes to detach them.
    pub(super) fn lapse(&self) {
        let lapse = self.with(|state| state.lapse(clock::now()));
        for name in &lapse.fenced {
            let name = escaped(name);
            tracing::info!(peer = %name, "detaching {name}: silent for a whole grace");
        }
        if !lapse.fenced.is_empty() {
            // Their streams end; they still count until their detaches are applied.
            self.send_due();
        }
        for detach in lapse.detaches {
            self.propose_detach(detach);
        }
    }

    pub(super) fn propose_detach(&self, detach: Detach) {
        let Detach { who, term, .. } = detach;
        let command = Command::Detach { incarnation: who.0, term };
        let request = Request { key: None, deadline: None, certificate: None, command };
        let this = self.clone();
        let respond = move |decisions: Decisions| {
            if decisions.is_err() {
                this.with(|state| state.detach_failed(who));
            }
        };
        self.batcher().offer(Pending::lone(&request), Box::new(respond));
    }

    /// Proposes an attach, and waits until it is decided.
    pub(super) async fn attach(&self, who: Incarnation, name: &str) -> Result<(), String> {
        let name = convert::name(name).map_err(|problem| problem.message)?;
        let command = Command::Attach { incarnation: who.0, name };
        let request = Request { key: None, deadline: None, certificate: None, command };
        let (reply, answer) = oneshot::channel();
        // A stream that has ended meanwhile needs no answer; its attach lapses after a grace.
        let respond = move |decisions: Decisions| drop(reply.send(decisions));
        self.batcher().offer(Pending::lone(&request), Box::new(respond));
        let (_, outcomes) = match answer.await {
            Ok(decided) => decided.map_err(|problem| problem.message)?,
            Err(_) => return Err("not decided".into()),
        };
        match outcomes.first() {
            Some(Outcome::Accepted(Accepted::Done | Accepted::Unchanged)) => Ok(()),
            Some(Outcome::Refused(refusal)) => Err(refusal.to_string()),
            _ => Err("not decided".into()),
        }
    }
}
