//! Why another replica is refused. The texts are for its operator, and name what to type.

use crate::record::Hex;

/// Why a peer is refused. The text is for its operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stranger {
    /// It belongs to another store.
    #[error(
        "replica {id} of store \"{theirs}\" called a replica of store \"{ours}\": check the \
         addresses"
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
    /// The call did not say who calls.
    #[error("a call that does not say who calls")]
    Nameless,
}
