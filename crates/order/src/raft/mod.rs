//! The Raft adapter: the only folder that names the consensus engine.
//!
//! Its duties, in the order in which an order meets them:
//!
//! 1. An entry that is reported written is on this replica's disk ([`log_store`]).
//! 2. A vote is on disk before another replica learns of it ([`log_store`]).
//! 3. Data on disk stays readable for ever: the formats are ours, with a version ([`codec`]).
//! 4. Every replica applies the same entries in the same order, each once ([`state_machine`]).
//! 5. The history is written behind the log, consistent at each moment
//!    ([`history`](crate::history)).
//! 6. A snapshot never claims more than is durable here ([`snapshots`](crate::history::snapshots)).
//! 7. A leader that restarts after a crash does not lead before it is elected again ([`config`]).

pub(crate) mod bootstrap;
pub(crate) mod bounds;
mod certified;
pub(crate) mod change_membership;
pub(crate) mod commit_coalescing;
pub(crate) mod confirm;
pub(crate) mod convert;
pub(crate) mod engine;
pub(crate) mod receiver;
pub(crate) mod transport;

pub mod backend;
pub mod codec;
pub(crate) mod compaction;
pub(crate) mod divergence;
pub mod executor;
pub(crate) mod log_damage;
pub mod log_store;
pub(crate) mod log_types;
pub mod recovery;
pub mod restoration;
pub mod state_machine;
pub mod types;

use openraft::{Config, ConfigError, SnapshotPolicy};

/// The leader's heartbeat interval: 50 ms.
pub const HEARTBEAT_MS: u64 = 50;

/// How long followers trust a silent leader: also its lease, therefore the same on every replica.
pub const ELECTION_TIMEOUT_MAX_MS: u64 = 300;

/// The shortest wait of a follower before it stands for election, by rank: the highest id waits
/// least.
pub const ELECTION_TIMEOUT_MIN_MS: [u64; 3] = [150, 200, 250];

/// Whether a restarted leader goes on leading without an election. Never: it may have died with a
/// tail that its followers have and its own disk lacks, and would give the same log ids to other
/// entries.
pub const LEADER_RESTORE: Option<bool> = Some(false);

/// The number of entries kept below a snapshot, for followers that lag a little.
pub const LOG_KEPT: u64 = 20_000;

/// The number of terms in an epoch: a recovery from a lost majority begins at the next multiple of
/// this, so that every term of the lost replicas is lower.
pub use wire::peers::EPOCH_TERMS as EPOCH;

/// The epoch of a term: how often the store has been recovered from a lost majority.
pub fn epoch(term: u64) -> u64 {
    term / EPOCH
}

/// The engine's settings for replica `id` among the replicas `ids`.
///
/// # Errors
///
/// When the settings contradict each other, which a change of the constants could cause.
pub fn config(id: u64, ids: &[u64], cluster: &str) -> Result<Config, ConfigError> {
    let rank = ids.iter().filter(|other| id < **other).count();
    let election_timeout_min = ELECTION_TIMEOUT_MIN_MS[rank.min(ELECTION_TIMEOUT_MIN_MS.len() - 1)];
    let config = Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min,
        election_timeout_max: ELECTION_TIMEOUT_MAX_MS,
        enable_pre_vote: Some(true),
        enable_leader_restore: LEADER_RESTORE,
        allow_log_reversion: None,
        max_payload_entries: 32,
        max_append_entries: Some(64),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: LOG_KEPT,
        replication_lag_threshold: 50_000,
        purge_batch_size: 256,
        install_snapshot_timeout: 60_000,
        // Rare enough to cost nothing, frequent enough to notice a returning replica at once.
        backoff: "20ms 40ms ...100ms".into(),
        quorum_loss_probe_interval: Some(1_000),
        ..Config::default()
    }
    .validate()?;
    assert_safe(&config);
    Ok(config)
}

/// Stops the replica when its engine would restore a leader without an election.
///
/// # Panics
///
/// When `enable_leader_restore` is anything but off: acknowledged orders would be lost.
pub fn assert_safe(config: &Config) {
    assert_eq!(config.enable_leader_restore, Some(false), "a leader must not be restored");
    assert_ne!(config.allow_log_reversion, Some(true), "a follower's log must not go back");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_id_stands_first_and_all_leases_are_equal() {
        let ids = [123, 345, 456];
        let minimum = |id| config(id, &ids, "test").unwrap().election_timeout_min;
        assert_eq!(ids.map(minimum), [250, 200, 150]);
        for id in ids {
            let config = config(id, &ids, "test").unwrap();
            assert_eq!(config.election_timeout_max, ELECTION_TIMEOUT_MAX_MS);
            assert!(config.enable_leader_restore == Some(false));
        }
    }

    #[test]
    #[should_panic(expected = "a leader must not be restored")]
    fn a_replica_that_would_restore_a_leader_does_not_start() {
        assert_safe(&Config { enable_leader_restore: None, ..Config::default() });
    }
}
