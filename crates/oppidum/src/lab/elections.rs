//! Elections, as the replicas' log lines report them.

use std::time::Instant;

use crate::up::archive::LogLine;

/// A replica became the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Election {
    /// The time of the first log line about it.
    pub(crate) at: Instant,
    /// The id of the new leader.
    pub(crate) leader: u64,
}

/// Every change of leader in the log lines since the store opened. A returning replica reports a
/// leader that is known already: this is no change.
pub(crate) fn elections(matched: &[LogLine]) -> Vec<Election> {
    let mut elections: Vec<Election> = Vec::new();
    for matched_line in matched.iter().filter(|matched_line| matched_line.name.starts_with("order"))
    {
        let leader = matched_line.line.split("New leader id: ").nth(1);
        let leader = leader.and_then(|id| id.trim().parse().ok());
        let current = elections.last().map(|election| election.leader);
        if let Some(leader) = leader.filter(|leader| Some(*leader) != current) {
            elections.push(Election { at: matched_line.at, leader });
        }
    }
    elections
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_leader_that_is_reported_again_is_no_election() {
        let began = Instant::now();
        let line = |ms, name: &str, line: &str| LogLine {
            at: began + Duration::from_millis(ms),
            name: name.into(),
            line: line.into(),
        };
        let matched = [
            line(0, "order-123", "07:42:40.000 New leader id: 456"),
            line(1, "order-456", "07:42:40.001 New leader id: 456"),
            line(10, "order-345", "07:42:41.731 New leader id: 123"),
            line(11, "frontend-1", "07:42:41.732 New leader id: 123"),
            line(15, "order-123", "07:42:41.738 New leader id: 345"),
            line(16, "order-345", "07:42:41.744 New leader id: 345"),
            line(90, "order-456", "07:42:42.275 New leader id: 345"),
        ];
        let leaders: Vec<_> = elections(&matched).iter().map(|e| e.leader).collect();
        assert_eq!(leaders, [456, 123, 345]);
    }
}
