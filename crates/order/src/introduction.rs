//! Introduction: what two replicas compare before either relies on the other.
//!
//! A replica that starts shows each peer the starts that its data folder remembers, and the peer
//! answers with what it knows this replica to have acknowledged. The peer refuses an older copy of
//! the folder ([`crate::starts`]); the replica itself finds out that its log has lost acknowledged
//! entries ([`crate::log_end`]). In both cases the replica stops.
//!
//! # Invariants
//!
//! * A replica answers no engine call of a peer before that peer has compared, and none of a start
//!   that it has not met: so no entry is acknowledged, and no vote is given or counted, before.
//! * One peer suffices: after a power cut any majority goes on, for its members compare with each
//!   other.
//!
//! # Not here
//!
//! A peer can only compare with what it knows. It knows for ever the starts that it has met, and
//! those that others reported. It knows the acknowledgements since its own start: as the leader, as
//! a former leader, or from the leader's reports.

use std::sync::Arc;

use wire::exit::Stop;
use wire::proto;

use crate::handshake_error::HandshakeError;
use crate::identity::Identity;
use crate::log_end::{Acknowledged, LogEnd};
use crate::peers::Peers;
use crate::raft::engine::Engine;

/// Compares starts and acknowledgements, for both sides. Clones share their knowledge.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    identity: Arc<Identity>,
    peers: Peers,
    engine: Engine,
    /// Where the own log ended when this replica started.
    own: LogEnd,
}

impl Introduction {
    /// For a replica whose engine has opened its log and has not been called yet. The error: the
    /// engine has stopped, or its log still lacks entries that were found missing before.
    pub(crate) async fn new(
        identity: Arc<Identity>,
        peers: Peers,
        engine: Engine,
    ) -> Result<Self, Stop> {
        let own = engine.log_end().await?;
        identity.check_log(own)?;
        Ok(Self { identity, peers, engine, own })
    }

    /// Compares the starts of an admitted peer with its last met start, and remembers them. Returns
    /// what the peer is known to have acknowledged before this start. If the peer has lost some of
    /// that, it stops by itself, and its start is not remembered: it has taken no part, and may
    /// still come back with its folder as it was before.
    pub(crate) fn meet(
        &self,
        id: u64,
        starts: Option<&proto::StartHistory>,
    ) -> Result<Acknowledged, HandshakeError> {
        // These count for the start before: the leader knows them by now.
        if let Some(acknowledged) = self.engine.acknowledged_by(id) {
            self.peers.note_acknowledged(id, self.identity.met(id), acknowledged);
        }
        let Some(starts) = starts else {
            return Ok(self.peers.acknowledged_before(id, self.identity.met(id).as_ref()));
        };
        let start = self.identity.judge_starts(id, starts)?.or_else(|| self.identity.met(id));
        let known = self.peers.acknowledged_before(id, start.as_ref());
        if LogEnd::from(starts).lost(&known).is_none() {
            self.identity.compare_starts(id, starts)?;
        }
        Ok(known)
    }

    /// Peer `by` has compared the starts of this replica, and reports this replica's
    /// acknowledgements. The error: the own log has lost some of them.
    pub(crate) fn compare_acknowledged(
        &self,
        by: u64,
        reported: Option<proto::Acknowledged>,
    ) -> Result<(), Stop> {
        let acknowledged = reported.map(Acknowledged::from).unwrap_or_default();
        if !self.own.may_have(&acknowledged) {
            let end = self.own.last.map_or(0, |(_, _, index)| index);
            let reported = acknowledged;
            tracing::warn!(
                peer = by,
                "replica {by} says that this one acknowledged {} and {}, and its log ended at \
                 {end}: that is not believed",
                reported.last.2,
                reported.committed
            );
            return Ok(());
        }
        if let Some(lost) = self.own.lost(&acknowledged) {
            self.identity.note_lost(acknowledged);
            return Err(self.identity.lost(&lost, by));
        }
        self.peers.set_introduced(by);
        Ok(())
    }

    /// The starts that this replica's folder remembers, and the end of its log at the latest start.
    pub(crate) fn starts(&self) -> proto::StartHistory {
        let log_end = self.own.last.map(|(term, node, index)| proto::LogId { term, node, index });
        let vote_term = self.own.term;
        proto::StartHistory { vote_term, log_end, ..self.identity.starts() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::Settings;
    use crate::config::tests::three;
    use crate::data_folder::IDENTITY_FILE as FILE;
    use crate::membership::Members;

    fn open(folder: &Path, id: u64) -> Result<Identity, Stop> {
        let settings = Settings { id, data: folder.to_path_buf(), ..three() };
        Identity::open(&settings, Members::new(&settings))
    }

    /// Danger: a folder is restored from a copy, after other starts, and the copy is started
    /// several times.
    #[test]
    fn an_older_copy_of_a_folder_is_refused_by_a_replica_that_met_a_later_start() {
        let (own, met) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (copy, third) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let peer = open(met.path(), 456).unwrap();
        peer.meet(Some(&open(own.path(), 123).unwrap().sender(456))).unwrap();
        peer.compare_starts(123, &open(own.path(), 123).unwrap().starts()).unwrap();
        fs::copy(own.path().join(FILE), copy.path().join(FILE)).unwrap();
        let again = open(own.path(), 123).unwrap();
        assert_eq!(peer.compare_starts(123, &again.starts()), Ok(()));
        assert_eq!(peer.compare_starts(123, &again.starts()), Ok(()), "the same start");
        drop(again);
        let reported = open(third.path(), 345).unwrap();
        reported.meet(Some(&peer.sender(345))).unwrap();
        reported.learn(456, &peer.known());
        drop(peer);
        let peer = open(met.path(), 456).unwrap();
        for _ in 0..3 {
            let older = open(copy.path(), 123).unwrap().starts();
            assert_eq!(
                peer.compare_starts(123, &older),
                Err(HandshakeError::OlderCopy { id: 123, by: 456 })
            );
            assert_eq!(
                reported.compare_starts(123, &older),
                Err(HandshakeError::OlderCopy { id: 123, by: 345 })
            );
        }
        let own = open(own.path(), 123).unwrap();
        assert_eq!(peer.compare_starts(123, &own.starts()), Ok(()), "its own folder comes back");
    }

    #[test]
    fn a_folder_that_was_refused_as_an_older_copy_is_not_used_again() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), 456).unwrap().refuse_own("an older copy: `oppidum ctl replace`");
        let Err(Stop::Setup(line)) = open(folder.path(), 456) else { panic!("taken") };
        assert_eq!(line, "an older copy: `oppidum ctl replace`");
    }

    #[test]
    fn a_log_that_lacks_acknowledged_entries_is_refused_at_each_start_until_it_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let end = |index| LogEnd { term: 2, last: Some((2, 345, index)) };
        let identity = open(folder.path(), 456).unwrap();
        assert!(identity.check_log(end(9)).is_ok());
        identity.note_lost(Acknowledged::to_leader(2, Some((2, 345, 20)), 20));
        drop(identity);
        for _ in 0..2 {
            let identity = open(folder.path(), 456).unwrap();
            let Err(Stop::Setup(line)) = identity.check_log(end(19)) else { panic!("taken") };
            assert!(line.contains("had acknowledged 20") && line.contains("ctl replace"), "{line}");
        }
        let identity = open(folder.path(), 456).unwrap();
        assert!(identity.check_log(end(20)).is_ok(), "its log has been put back");
        drop(identity);
        assert!(open(folder.path(), 456).unwrap().check_log(end(9)).is_ok());
    }

    #[test]
    fn a_call_of_a_start_that_was_not_met_is_refused() {
        let (own, met) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let peer = open(met.path(), 456).unwrap();
        let first = open(own.path(), 123).unwrap();
        assert_eq!(peer.admit_met(Some(&first.sender(456))), Ok(123), "nothing to compare with");
        peer.meet(Some(&first.sender(456))).unwrap();
        peer.compare_starts(123, &first.starts()).unwrap();
        assert_eq!(peer.admit_met(Some(&first.sender(456))), Ok(123));
        drop(first);
        let again = open(own.path(), 123).unwrap();
        let turned_away = peer.admit_met(Some(&again.sender(456)));
        assert_eq!(turned_away, Err(HandshakeError::NotIntroduced(123)));
        peer.compare_starts(123, &again.starts()).unwrap();
        assert_eq!(peer.admit_met(Some(&again.sender(456))), Ok(123));
    }

    #[test]
    fn a_folder_of_the_first_format_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let incarnation = "00112233445566778899aabbccddeeff";
        let text = format!(
            "version = 1\ncluster = \"test\"\nid = 456\nincarnation = \"{incarnation}\"\n\n\
             [peers]\n123 = \"{incarnation}\"\n"
        );
        fs::write(folder.path().join(FILE), text).unwrap();
        let identity = open(folder.path(), 456).unwrap();
        assert_eq!(identity.sender(123).incarnation, incarnation);
        assert_eq!(identity.starts().count, 1);
    }
}
