//! The settings of a replica, and the engine's settings that follow from them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ledger::api_key::{ApiKeyDigest, ApiKeyId};
use ledger::command::Definition;
use ledger::ledger::Windows;
use ledger::terms::OrderNumber;
use wire::exit::Stop;
use wire::peers::Peer;
use wire::tls::credentials::Credentials;
use wire::watch::lease::Times;
use wire::watch::rules::Rules;

/// The most replicas a store may have.
pub const REPLICAS_MAX: usize = 7;

/// The most replicas in a list of hints: former and new members.
pub const HINTS_MAX: usize = 64;

/// The greatest id of a replica: the file of a data folder keeps ids as signed numbers.
pub const REPLICA_ID_MAX: u64 = i64::MAX as u64;

/// The settings of a replica.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The replica's own id, one of `peers`.
    pub id: u64,
    /// All replicas of the store, itself included, at most [`REPLICAS_MAX`]: an odd number when a
    /// store begins. Later they are only hints, for the log names the replicas.
    pub peers: Vec<Peer>,
    /// The replica waits to be added to an existing store, and never begins a store.
    pub join: bool,
    /// The address where it listens for the other processes.
    pub listen: SocketAddr,
    /// Its own data folder; made if absent.
    pub data: PathBuf,
    /// The name of the store; replicas of stores with another name are refused.
    pub cluster: String,
    /// The shop that the first leader opens.
    pub shop: Shop,
    /// The first API key of a store that begins closed. `None`: the store begins open.
    pub root_key: Option<RootKey>,
    /// Where the shop came from, for people: a file name, or `built in`.
    pub shop_source: String,
    /// How many idempotency keys are remembered, and for how long.
    pub windows: Windows,
    /// Bytes of the disk that are kept free; `None`: 64 MB, or a tenth of a smaller disk.
    pub reserve: Option<u64>,
    /// The credentials on the internal plane. `None`: it is in plaintext.
    pub credentials: Option<Arc<Credentials>>,
    /// A leader hands over to a higher replica that has been healthy for
    /// `handover::STEADY`.
    pub preempt: bool,
    /// The times of the watch protocol, the same in the whole store.
    pub times: Times,
    /// All rules hold, unless a test breaks one.
    pub rules: Rules,
    /// Faults that tests inject.
    pub faults: Faults,
}

/// The first API key of a store: what its first leader issues. It is not the key itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootKey {
    /// The key's id.
    pub id: ApiKeyId,
    /// The key's digest.
    pub digest: ApiKeyDigest,
}

/// A shop before it has a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shop {
    /// The number of the first order.
    pub first_order_number: OrderNumber,
    /// Its products; names unique.
    pub products: Vec<Definition>,
}

/// Faults that tests put into a replica. None by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each fault is there or not, by itself")]
pub struct Faults {
    /// Commits and applies, but never answers a request: the window between commit and answer.
    pub hold_answers: bool,
    /// Delays each flush of the log by this.
    pub flush_delay: Option<Duration>,
    /// Once there was a leader, never stands because a leader is silent: only a proven death leads
    /// to an election.
    pub no_timeouts: bool,
    /// The number of entries kept below a snapshot, and between two snapshots.
    pub log_kept: Option<u64>,
    /// Further faults are set and cleared while the replica runs, by the file `ORDER.faults` beside
    /// the data folder.
    pub switches: bool,
    /// The number of free bytes of the disk is read from the file `free-bytes` in the data folder.
    pub simulated_space: bool,
}

impl Settings {
    /// How many entries are kept below a snapshot.
    pub(crate) fn log_kept(&self) -> u64 {
        self.faults.log_kept.unwrap_or(crate::raft::LOG_KEPT)
    }

    /// Checks the settings, before a file or a socket is opened.
    pub fn check(&self) -> Result<(), Stop> {
        let refuse = |line: String| Err(Stop::Setup(line));
        if !self.peers.iter().any(|peer| peer.id == self.id) {
            let ids: Vec<String> = self.peers.iter().map(|peer| peer.id.to_string()).collect();
            return refuse(format!(
                "replica {} is not one of the store's replicas ({}): give one of these ids, or \
                 add it to the list",
                self.id,
                ids.join(", ")
            ));
        }
        let count = self.peers.len();
        // A replica that joins, or has a log, knows the replicas from the log.
        let begins = !self.join && !crate::data_folder::is_known(&self.data);
        if HINTS_MAX < count || (begins && (REPLICAS_MAX < count || count.is_multiple_of(2))) {
            return refuse(format!(
                "a store begins with an odd number of replicas, at most {REPLICAS_MAX}, and not \
                 {count}: change the list of replicas, or give --join to add this one to a store \
                 that is there"
            ));
        }
        for (place, peer) in self.peers.iter().enumerate() {
            if peer.id == 0 {
                return refuse("0 is no replica id: ids start at 1".into());
            }
            if REPLICA_ID_MAX < peer.id {
                return refuse(format!("{} is no replica id: give a smaller number", peer.id));
            }
            if self.peers[..place].iter().any(|other| other.id == peer.id) {
                return refuse(format!(
                    "replica {} is listed twice: each id is one replica",
                    peer.id
                ));
            }
        }
        if let Err(error) = self.times.check() {
            return refuse(error.to_string());
        }
        if self.cluster.is_empty() {
            return refuse("the store has no name: give it one, the same on every replica".into());
        }
        Ok(())
    }

    /// The ids of all replicas, lowest first.
    pub fn ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.peers.iter().map(|peer| peer.id).collect();
        ids.sort_unstable();
        ids
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Three replicas on loopback, for tables.
    pub(crate) fn three() -> Settings {
        let peer = |id, port: u16| Peer { id, address: format!("127.0.0.1:{port}") };
        Settings {
            reserve: None,
            credentials: None,
            preempt: false,
            join: false,
            id: 456,
            peers: vec![peer(123, 1115), peer(345, 1116), peer(456, 1117)],
            listen: SocketAddr::from(([127, 0, 0, 1], 1117)),
            data: PathBuf::from("unused"),
            cluster: "test".into(),
            shop: Shop::default(),
            root_key: None,
            shop_source: "a test".into(),
            windows: Windows::default(),
            times: Times::default(),
            rules: Rules::default(),
            faults: Faults::default(),
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        assert!(three().check().is_ok());
        let spoil: [fn(&mut Settings); 7] = [
            |settings| settings.id = 7,
            |settings| settings.peers.truncate(2),
            |settings| settings.peers[0].id = 345,
            |settings| settings.peers[0].id = 0,
            |settings| settings.peers[0].id = u64::MAX,
            |settings| settings.cluster.clear(),
            |settings| settings.peers.clear(),
        ];
        for spoil in spoil {
            let mut settings = three();
            spoil(&mut settings);
            assert!(matches!(settings.check(), Err(Stop::Setup(_))));
        }
    }
}
