//! Attached catalogs: a leader proposes to attach them, to detach those that said goodbye, and to
//! detach those that were silent for a whole grace.

use std::sync::Arc;

use ledger::command::{Command, Request};
use ledger::outcome::{Accepted, Outcome};
use tokio::sync::oneshot;
use wire::convert;
use wire::escaped::escaped;
use wire::watch::clock;
use wire::watch::source_state::Incarnation;

use super::{GONE_MAX, SettlingState, Shared};
use crate::leader_term::Detach;
use crate::pending::Decision;

impl Shared {
    /// Stops serving the catalogs that have been silent for a grace, and proposes to detach them.
    pub(super) fn lapse(self: &Arc<Self>) {
        let now = clock::now();
        let mut books = self.books.lock();
        let SettlingState { leadership, detaching, returns, gone, let_go, .. } = &mut *books;
        let Some(leadership) = leadership else { return };
        // Without a lease of its own the leader can grant nothing: then a silent catalog is not to
        // blame, and no detach could be committed.
        let lapsed = match leadership.quorum().live(now) {
            true => leadership.lapse(now),
            false => Vec::new(),
        };
        for detach in &lapsed {
            let name = leadership.name(detach.who).unwrap_or("a catalog").to_owned();
            returns.fail(detach.who, now);
            let name = escaped(&name);
            tracing::info!("let go of {name}: silent for a whole grace");
            detaching.insert(detach.who, (*detach, false));
            *let_go += 1;
            gone.insert(detach.who);
            if GONE_MAX < gone.len() {
                gone.pop_first();
            }
        }
        let mut wanted = Vec::new();
        for (detach, under_way) in detaching.values_mut().filter(|(_, under_way)| !under_way) {
            *under_way = true;
            wanted.push(leadership.stamp(*detach));
        }
        match lapsed.is_empty() {
            true => drop(books),
            false => self.settle(books),
        }
        for detach in wanted {
            self.propose_detach(detach);
        }
    }

    /// A catalog has said goodbye: it is detached without a grace.
    pub(crate) fn detach(self: &Arc<Self>, detach: Detach) {
        self.books.lock().detaching.insert(detach.who, (detach, true));
        self.propose_detach(detach);
    }

    fn propose_detach(self: &Arc<Self>, detach: Detach) {
        let Detach { who, term, .. } = detach;
        let command = Command::Detach { incarnation: who.0, term };
        let request = Request { key: None, deadline: None, command };
        let this = self.clone();
        let tell = move |decision: Decision| {
            // The detach did not land: the next lapse proposes it again.
            if decision.is_err()
                && let Some((_, under_way)) = this.books.lock().detaching.get_mut(&who)
            {
                *under_way = false;
            }
        };
        self.batcher.offer(request, Box::new(tell));
    }

    /// Proposes an attach, and waits until it is decided.
    pub(crate) async fn attach(&self, who: Incarnation, name: &str) -> Result<(), String> {
        let name = convert::name(name).map_err(|problem| problem.message)?;
        let command = Command::Attach { incarnation: who.0, name };
        let request = Request { key: None, deadline: None, command };
        let (tell, told) = oneshot::channel();
        // A stream that has ended meanwhile needs no answer; its attach lapses after a grace.
        self.batcher.offer(request, Box::new(move |decision| drop(tell.send(decision))));
        match told.await {
            Ok(Ok((_, Outcome::Accepted(Accepted::Done | Accepted::Unchanged)))) => Ok(()),
            Ok(Ok((_, Outcome::Refused(refusal)))) => Err(refusal.to_string()),
            Ok(Ok(_)) | Err(_) => Err("not decided".into()),
            Ok(Err(problem)) => Err(problem.message),
        }
    }
}
