//! Logs once when orders begin to be refused for want of a leader, and once when that ends, in the
//! words of the reference systems. Also names the processes that show stale answers meanwhile.

use tokio::time::Instant;

use crate::limits::LEADERLESS_MAX;
use crate::retry::{Reach, ReplicaView};

/// The line to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutageLine {
    /// There is no leader; these replicas are reachable.
    Began(Vec<u64>),
    /// There is a leader again.
    Ended,
}

/// The pure core: since when there is no leader, and whether that has been logged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outage {
    since: Option<Instant>,
    is_logged: bool,
}

impl Outage {
    /// Notes the view of the replicas. Returns the line that is due, if any.
    pub(crate) fn note(&mut self, view: &ReplicaView, now: Instant) -> Option<OutageLine> {
        if view.leader_up().is_some() {
            self.since = None;
            return std::mem::take(&mut self.is_logged).then_some(OutageLine::Ended);
        }
        let since = *self.since.get_or_insert(now);
        // A failover is shorter than this, and logs its own lines.
        if self.is_logged || now.saturating_duration_since(since) < LEADERLESS_MAX {
            return None;
        }
        self.is_logged = true;
        let reachable = view.replicas.iter().filter(|(_, reach)| *reach == Reach::Up);
        Some(OutageLine::Began(reachable.map(|(id, _)| *id).collect()))
    }
}

impl OutageLine {
    /// Writes the line to the log.
    pub(crate) fn log(&self) {
        match self {
            Self::Began(reachable) => began(reachable),
            Self::Ended => tracing::info!("orders are accepted again, and answers are fresh"),
        }
    }
}

fn began(reachable: &[u64]) {
    if reachable.is_empty() {
        tracing::warn!("no replica is reachable: orders are refused, catalogs show what is stale");
        return;
    }
    for id in reachable {
        tracing::info!(peer = id, "{id} is healthy!");
    }
    let ids: Vec<String> = reachable.iter().map(u64::to_string).collect();
    let ids = ids.join(" and ");
    tracing::warn!(
        reachable = %ids,
        "no leader, no majority of the replicas is reachable: orders are refused, and answers are \
         stale, from {ids} or a catalog"
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use Reach::{Refused, Silent, Up};

    #[test]
    fn the_beginning_and_the_end_of_an_outage_are_logged_once() {
        let start = Instant::now();
        let mut outage = Outage::default();
        let mut note = |leader: Option<u64>, reach: [Reach; 3], millis| {
            let replicas = [123, 345, 456].into_iter().zip(reach).collect();
            let view = ReplicaView { leader, replicas, misplaced: None };
            outage.note(&view, start + Duration::from_millis(millis))
        };
        assert_eq!(note(Some(345), [Up, Up, Up], 0), None);
        assert_eq!(note(Some(345), [Up, Refused, Up], 10), None);
        assert_eq!(note(Some(456), [Up, Refused, Up], 500), None, "a failover");
        assert_eq!(note(Some(345), [Refused, Refused, Up], 1_000), None);
        let began = note(None, [Refused, Silent, Up], 1_900);
        assert_eq!(began, Some(OutageLine::Began(vec![456])));
        for millis in (2_000..60_000).step_by(50) {
            assert_eq!(note(None, [Refused, Refused, Up], millis), None);
        }
        assert_eq!(note(Some(456), [Up, Refused, Up], 60_000), Some(OutageLine::Ended));
        assert_eq!(note(Some(456), [Up, Refused, Up], 60_050), None);
    }
}
