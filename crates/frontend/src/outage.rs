//! Says once when orders begin to be refused for want of a leader, and once when that ends, in the
//! words of the reference systems; and who shows what is stale meanwhile.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::LEADERLESS_MAX;
use crate::replicas::Replicas;
use crate::seek::{Reach, View};

/// How often it is looked, when nothing else has changed.
const LOOK: Duration = Duration::from_millis(200);

/// What to say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    /// There is no leader, and these replicas are left.
    Began(Vec<u64>),
    /// There is one again.
    Ended,
}

/// The pure core: since when there is no leader, and whether that was said.
#[derive(Clone, Debug, Default)]
struct Outage {
    since: Option<Instant>,
    said: bool,
}

impl Outage {
    /// Looks at the replicas. A line, when one is due.
    fn note(&mut self, view: &View, now: Instant) -> Option<Line> {
        if view.leader_up().is_some() {
            self.since = None;
            return std::mem::take(&mut self.said).then_some(Line::Ended);
        }
        let since = *self.since.get_or_insert(now);
        // A failover takes less, and has its own lines.
        if self.said || now.saturating_duration_since(since) < LEADERLESS_MAX {
            return None;
        }
        self.said = true;
        let left = view.replicas.iter().filter(|(_, reach)| *reach == Reach::Up);
        Some(Line::Began(left.map(|(id, _)| *id).collect()))
    }
}

/// Watches the replicas for as long as they are kept.
pub(crate) async fn watch(replicas: &Replicas) {
    let (mut outage, mut news) = (Outage::default(), replicas.news());
    loop {
        match outage.note(&replicas.view(), Instant::now()) {
            Some(Line::Began(left)) => began(&left),
            Some(Line::Ended) => tracing::info!("orders are taken again, and answers are fresh"),
            None => {}
        }
        tokio::select! {
            _ = news.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn began(left: &[u64]) {
    if left.is_empty() {
        tracing::warn!("no replica is reachable: orders are refused, catalogs show what is stale");
        return;
    }
    for id in left {
        tracing::info!("{id} is healthy!");
    }
    let ids: Vec<String> = left.iter().map(u64::to_string).collect();
    let ids = ids.join(" and ");
    tracing::warn!(
        "no leader, no majority of the replicas is reachable: orders are refused, and answers are \
         stale, from {ids} or a catalog"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use Reach::{Refused, Silent, Up};

    #[test]
    fn an_outage_is_said_once_when_it_begins_and_once_when_it_ends() {
        let start = Instant::now();
        let mut outage = Outage::default();
        let mut note = |leader: Option<u64>, reach: [Reach; 3], millis| {
            let replicas = [123, 345, 456].into_iter().zip(reach).collect();
            let view = View { leader, replicas, misplaced: None };
            outage.note(&view, start + Duration::from_millis(millis))
        };
        assert_eq!(note(Some(345), [Up, Up, Up], 0), None);
        assert_eq!(note(Some(345), [Up, Refused, Up], 10), None);
        assert_eq!(note(Some(456), [Up, Refused, Up], 500), None, "a failover");
        assert_eq!(note(Some(345), [Refused, Refused, Up], 1_000), None);
        let began = note(None, [Refused, Silent, Up], 1_900);
        assert_eq!(began, Some(Line::Began(vec![456])));
        for millis in (2_000..60_000).step_by(50) {
            assert_eq!(note(None, [Refused, Refused, Up], millis), None);
        }
        assert_eq!(note(Some(456), [Up, Refused, Up], 60_000), Some(Line::Ended));
        assert_eq!(note(Some(456), [Up, Refused, Up], 60_050), None);
    }
}
