//! Observes the leaders of the store: how often they change, and how long a failover takes.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::metrics::Histogram;

use crate::failover_timer::FailoverTimer;
use crate::history::view::View;
use crate::liveness::failover::{LEADER_SILENCE, ReportedLoss};
use crate::peers::Peers;
use crate::role::Role;

/// What a replica has observed of its leaders.
#[derive(Debug)]
pub(crate) struct LeaderMetrics {
    pub(crate) changes: Counter,
    pub(crate) failovers: Histogram,
}

impl Default for LeaderMetrics {
    fn default() -> Self {
        Self { changes: Counter::default(), failovers: Histogram::of_durations() }
    }
}

/// Where the loss of a leader, and its successor, show.
pub(crate) struct LeaderEvents {
    pub(crate) me: u64,
    pub(crate) role: watch::Receiver<Role>,
    pub(crate) reported_loss: watch::Receiver<ReportedLoss>,
    pub(crate) peers: Peers,
    pub(crate) view: Arc<View>,
}

impl LeaderMetrics {
    /// Counts leaders and measures failovers, until `stop`.
    pub(crate) async fn observe(self: Arc<Self>, events: LeaderEvents, stop: CancellationToken) {
        let LeaderEvents { me, mut role, mut reported_loss, peers, view } = events;
        let mut applied = view.applied();
        let mut timer = FailoverTimer::default();
        let start = Instant::now();
        let since_start = |at: Instant| at.saturating_duration_since(start);
        loop {
            if let Some(leader) = role.borrow_and_update().leader(me)
                && timer.note_leader(leader)
            {
                self.changes.inc();
            }
            applied.mark_unchanged();
            let (now, term) = (Instant::now(), applied_term(&view));
            if let Some((lost, _)) = *reported_loss.borrow_and_update() {
                let heard = peers.last_heard(lost).unwrap_or(now);
                // The proof of a death comes sooner than silence.
                let is_silent = LEADER_SILENCE <= now.saturating_duration_since(heard);
                timer.note_loss(lost, since_start(if is_silent { heard } else { now }), term);
            }
            if let Some(heard) = timer.lost().and_then(|lost| peers.last_heard(lost)) {
                timer.note_heard(since_start(heard));
            }
            if let Some(took) = timer.note_applied(term, since_start(now)) {
                self.failovers.observe(took);
            }
            tokio::select! {
                changed = role.changed() => if changed.is_err() { return },
                changed = reported_loss.changed() => if changed.is_err() { return },
                changed = applied.changed(), if timer.lost().is_some() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    }
}

/// The term of the last applied entry.
fn applied_term(view: &View) -> u64 {
    view.applied_log_id().map_or(0, |id| id.leader_id.term)
}
