//! Judges another replica by how it introduces itself, and says why it is refused. The texts are
//! for its operator, and name what to type.

use wire::escaped::escaped;
use wire::proto;

use crate::record::{Hex, Record, is_fingerprint, is_same};

/// Why a peer is refused. The text is for its operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stranger {
    /// It belongs to another store.
    #[error(
        "replica {id} of store \"{}\" called a replica of store \"{ours}\": check the addresses",
        escaped(.theirs)
    )]
    OtherCluster {
        /// Who called.
        id: u64,
        /// The caller's store.
        theirs: String,
        /// This store.
        ours: String,
    },
    /// It meant somebody else.
    #[error("replica {wanted} was called here, but this is replica {id}: check the addresses")]
    NotMe {
        /// Whom the caller meant.
        wanted: u64,
        /// Who this is.
        id: u64,
    },
    /// Its id is not in the list of replicas.
    #[error(
        "replica {0} is not one of this store's replicas: check its id, or add it: `oppidum ctl \
         member add --id {0} --address HOST:PORT`"
    )]
    Unknown(u64),
    /// It belonged to the store and does not any more.
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
        /// Who this is.
        id: u64,
    },
    /// Its data folder is another one than before.
    #[error(
        "replica {id} came with another data folder than before: start it with its own folder; \
         if that is lost, start a new replica with an empty folder (`oppidum order --id NEW \
         --join`) and type `oppidum ctl replace --id {id} --with NEW --address HOST:PORT`"
    )]
    OtherIncarnation {
        /// Who called.
        id: u64,
    },
    /// Its data folder does not remember a start that was met.
    #[error(
        "the data folder of replica {id} is an older copy of itself: replica {by} has met a later \
         start of it. A copy must not come back, for it has forgotten what the replica promised \
         afterwards: start replica {id} with its own folder; if that is lost, start a new replica \
         with an empty folder (`oppidum order --id NEW --join`) and type `oppidum ctl replace \
         --id {id} --with NEW --address HOST:PORT`"
    )]
    OlderCopy {
        /// Who called.
        id: u64,
        /// Who has met the later start.
        by: u64,
    },
    /// It calls before its start was compared with those that were met.
    #[error("replica {0} has started again, and has not introduced itself yet")]
    NotIntroduced(u64),
    /// Its start cannot be written down.
    #[error("the start of replica {id} cannot be written down here: {why}")]
    NotWritten {
        /// Who called.
        id: u64,
        /// What the system says.
        why: String,
    },
    /// It holds another ledger.
    #[error(
        "replica {id} holds another ledger ({theirs}, ours is {ours}): start it with its own \
         data folder"
    )]
    OtherLedger {
        /// Who called.
        id: u64,
        /// The caller's ledger.
        theirs: Hex,
        /// This ledger.
        ours: Hex,
    },
    /// Another process has called under its id, and its address has not answered yet.
    #[error("replica {0} is not admitted before this replica has reached it at its own address")]
    NotMetYet(u64),
    /// The call did not say who calls.
    #[error("a call that does not say who calls")]
    Nameless,
}

/// Whether another replica is who it should be, seen from the replica with this record. `waits`:
/// this replica waits to be added to a store.
pub(crate) fn judge(
    record: &Record,
    is_member: bool,
    waits: bool,
    sender: &proto::Sender,
) -> Result<(), Stranger> {
    let id = sender.id;
    if sender.cluster != record.cluster {
        let (theirs, ours) = (sender.cluster.clone(), record.cluster.clone());
        return Err(Stranger::OtherCluster { id, theirs, ours });
    }
    if sender.to != record.id {
        return Err(Stranger::NotMe { wanted: sender.to, id: record.id });
    }
    if record.removed.contains(&id) {
        return Err(Stranger::Removed(id));
    }
    let theirs = &sender.ledger_id;
    let is_ours = !theirs.is_empty() && record.ledger.as_ref().is_none_or(|own| own == theirs);
    let knows_us = sender.to_incarnation == record.incarnation;
    // It may have been added while this replica was away.
    let may_be_new = is_ours && (waits || knows_us);
    if id == 0 || id == record.id || !(is_member || may_be_new) {
        return Err(Stranger::Unknown(id));
    }
    let means_us = is_same(&sender.to_incarnation, &record.incarnation);
    if !sender.to_incarnation.is_empty() && !means_us {
        return Err(Stranger::NotMyFolder { id: record.id });
    }
    let known = record.peers.get(&id.to_string());
    let shown = &sender.incarnation;
    let is_sound = is_hex(shown) || is_fingerprint(shown);
    if !is_sound || known.is_some_and(|known| !is_same(known, shown)) {
        return Err(Stranger::OtherIncarnation { id });
    }
    match &record.ledger {
        Some(ours) if !theirs.is_empty() && theirs != ours => {
            let (theirs, ours) = (theirs.clone(), ours.clone());
            Err(Stranger::OtherLedger { id, theirs, ours })
        }
        _ => Ok(()),
    }
}

/// True for 128 bits in hexadecimal digits.
pub(crate) fn is_hex(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
