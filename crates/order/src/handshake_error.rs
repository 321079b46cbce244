//! Handshake errors: checks how another replica introduces itself, and says why it is refused. The
//! texts are for its operator, and name the command to type.

use wire::escaped::escaped;
use wire::proto;

use crate::identity_file::IdentityFile;
use crate::incarnation::{Hex, is_fingerprint, is_hex, is_same};

/// Why a peer is refused. The text is for its operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The caller belongs to another store.
    #[error(
        "replica {id} of store \"{}\" called a replica of store \"{ours}\": check the addresses",
        escaped(.theirs)
    )]
    OtherCluster {
        /// The caller's id.
        id: u64,
        /// The caller's store.
        theirs: String,
        /// This store.
        ours: String,
    },
    /// The caller meant another replica.
    #[error("replica {wanted} was called here, but this is replica {id}: check the addresses")]
    NotMe {
        /// The id that the caller meant.
        wanted: u64,
        /// The id of this replica.
        id: u64,
    },
    /// The caller's id is not in the list of replicas.
    #[error(
        "replica {0} is not one of this store's replicas: check its id, or add it: `oppidum ctl \
         member add --id {0} --address HOST:PORT`"
    )]
    Unknown(u64),
    /// The caller belonged to the store and does not any more.
    #[error(
        "replica {0} is no replica of this store any more: it was removed, or the store was \
         recovered without it; set its data folder aside, and let it join with an empty folder \
         under a new id: `oppidum order --id NEW --join`, then `oppidum ctl member add --id NEW \
         --address HOST:PORT`"
    )]
    Removed(u64),
    /// The caller has met this id with another data folder.
    #[error(
        "replica {id} was met with another data folder than the one it has now: it must not \
         come back with it"
    )]
    NotMyFolder {
        /// The id of this replica.
        id: u64,
    },
    /// The caller's data folder is another one than before.
    #[error(
        "replica {id} came with another data folder than before: start it with its own folder; \
         if that is lost, start a new replica with an empty folder (`oppidum order --id NEW \
         --join`) and type `oppidum ctl replace --id {id} --with NEW --address HOST:PORT`"
    )]
    OtherIncarnation {
        /// The caller's id.
        id: u64,
    },
    /// The caller's data folder does not remember a start that was met.
    #[error(
        "the data folder of replica {id} is an older copy of itself: replica {by} has met a later \
         start of it. A copy must not come back, for it has forgotten what the replica promised \
         afterwards: start replica {id} with its own folder; if that is lost, start a new replica \
         with an empty folder (`oppidum order --id NEW --join`) and type `oppidum ctl replace \
         --id {id} --with NEW --address HOST:PORT`"
    )]
    OlderCopy {
        /// The caller's id.
        id: u64,
        /// The replica that has met the later start.
        by: u64,
    },
    /// The caller's start has not been compared with the last met start yet.
    #[error("replica {0} has started again, and has not introduced itself yet")]
    NotIntroduced(u64),
    /// The caller's start cannot be written to disk.
    #[error("the start of replica {id} cannot be written down here: {why}")]
    NotWritten {
        /// The caller's id.
        id: u64,
        /// The system's error.
        why: String,
    },
    /// The caller holds another ledger.
    #[error(
        "replica {id} holds another ledger ({theirs}, ours is {ours}): start it with its own \
         data folder"
    )]
    OtherLedger {
        /// The caller's id.
        id: u64,
        /// The caller's ledger.
        theirs: Hex,
        /// This ledger.
        ours: Hex,
    },
    /// Another process has called under the caller's id, and its address has not answered yet.
    #[error("replica {0} is not admitted before this replica has reached it at its own address")]
    NotMetYet(u64),
    /// The call does not name its sender.
    #[error("the call does not name its sender")]
    Nameless,
}

/// Checks the sender of a call against the identity file of this replica. `waits`: this replica
/// waits to be added to a store.
pub(crate) fn judge(
    record: &IdentityFile,
    is_member: bool,
    waits: bool,
    sender: &proto::Sender,
) -> Result<(), HandshakeError> {
    let id = sender.id;
    if sender.cluster != record.cluster {
        let theirs = sender.cluster.clone();
        let ours = record.cluster.clone();
        return Err(HandshakeError::OtherCluster { id, theirs, ours });
    }
    if sender.to != record.id {
        return Err(HandshakeError::NotMe { wanted: sender.to, id: record.id });
    }
    if record.removed.contains(&id) {
        return Err(HandshakeError::Removed(id));
    }
    let theirs = &sender.ledger_id;
    let is_ours = !theirs.is_empty() && record.ledger.as_ref().is_none_or(|own| own == theirs);
    let knows_us = sender.to_incarnation == record.incarnation;
    // The sender may have been added while this replica was away.
    let may_be_new = is_ours && (waits || knows_us);
    if id == 0 || id == record.id || !(is_member || may_be_new) {
        return Err(HandshakeError::Unknown(id));
    }
    let means_us = is_same(&sender.to_incarnation, &record.incarnation);
    if !sender.to_incarnation.is_empty() && !means_us {
        return Err(HandshakeError::NotMyFolder { id: record.id });
    }
    let known = record.peers.get(&id.to_string());
    let shown = &sender.incarnation;
    let is_sound = is_hex(shown) || is_fingerprint(shown);
    if !is_sound || known.is_some_and(|known| !is_same(known, shown)) {
        return Err(HandshakeError::OtherIncarnation { id });
    }
    match &record.ledger {
        Some(ours) if !theirs.is_empty() && theirs != ours => {
            let theirs = theirs.clone();
            let ours = ours.clone();
            Err(HandshakeError::OtherLedger { id, theirs, ours })
        }
        _ => Ok(()),
    }
}
