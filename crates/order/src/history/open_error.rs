//! Why a replica's storage cannot be opened: what is wrong, where, and what to do about it.

use std::path::{Path, PathBuf};

use wire::exit::Stop;

use super::FILE;

/// The advice for a folder that has lost data: it must not be used again.
const REPLACE: &str = "set the whole data folder aside, keep it for inspection, and replace this \
                       replica (`oppidum ctl replace`)";

/// The advice for a damaged block, which the other replicas can supply.
const REPAIR: &str = "`oppidum ctl repair` mends a running replica; one that does not start is to \
                      be replaced (`oppidum ctl replace`)";

/// The system's message for a full disk; it stays part of the text of every wrapping error.
const NO_SPACE: &str = "No space left on device";

/// The advice for the operator after a disk failure of a running replica.
pub(crate) fn advice(reason: &str) -> &'static str {
    if reason.contains(NO_SPACE) {
        "its disk is full: free some space, then start the replica again; nothing \
             acknowledged is lost"
    } else {
        "nothing is believed of what was being written: check the disk, then start the replica \
             again"
    }
}

/// The prefix of a failure of a history that does not hold what was written.
pub(crate) const HISTORY_DAMAGED: &str = "the history of orders is damaged";

/// The stop of a running replica whose storage has failed. A supervisor may restart it, unless
/// written data is gone.
pub(crate) fn stop(folder: &str, why: &str) -> Stop {
    if why.contains(HISTORY_DAMAGED) {
        Stop::Setup(format!("the replica cannot go on in {folder}: {why}; {REPLACE}"))
    } else {
        Stop::Defect(format!("the replica cannot go on in {folder}: {why}; {}", advice(why)))
    }
}

/// The advice after a panic in the source file `source`: the history's database trusts the pages
/// that it reads, and panics on a damaged page. A restart does not help then. `None`: the panic has
/// another cause.
pub fn advice_on_panic(source: &str) -> Option<String> {
    let is_history = source.split(['/', '\\']).any(|part| part.starts_with("redb-"));
    is_history.then(|| format!("{HISTORY_DAMAGED} (history/{FILE} in its data folder); {REPLACE}"))
}

/// Why a replica's storage cannot be opened. The text is for the operator who must act on it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file does not hold what was written.
    #[error("{file} is damaged at {position}: {reason}; {advice}")]
    Damaged {
        /// The damaged file.
        file: PathBuf,
        /// Where in it: a byte of the log, or a block of the history.
        position: String,
        /// The finding there.
        reason: String,
        /// The remedy.
        advice: &'static str,
    },
    /// The folder or a file in it cannot be used: permissions, the disk, another process.
    #[error(
        "cannot open {path}: {reason}; check its permissions, the disk, and whether another \
         replica uses it"
    )]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// The system's message.
        reason: String,
    },
    /// The disk is too full to open it.
    #[error(
        "cannot open {path}: its disk is full; free some space, then start this replica \
         again: nothing acknowledged is lost"
    )]
    Full {
        /// The file or folder.
        path: PathBuf,
    },
}

impl OpenError {
    /// A folder or file that cannot be used.
    pub(crate) fn folder(path: &Path, reason: &impl ToString) -> Self {
        let path = path.to_path_buf();
        let reason = reason.to_string();
        if reason.contains(NO_SPACE) {
            Self::Full { path }
        } else {
            Self::Unusable { path, reason }
        }
    }

    /// A file that does not hold what was written.
    pub(crate) fn damaged(
        file: &Path,
        position: impl Into<String>,
        reason: &impl ToString,
    ) -> Self {
        let position = position.into();
        let reason = reason.to_string();
        Self::Damaged { file: file.to_path_buf(), position, reason, advice: REPLACE }
    }

    /// An error for the emptied folder of a replica that held a ledger: its log and its history are
    /// missing.
    pub(crate) fn emptied(folder: &Path) -> Self {
        let reason = "both are gone, and its identity.toml names a ledger: what this replica has \
                      acknowledged is forgotten";
        Self::damaged(folder, "its log and its history", &reason)
    }

    /// An error for a block of the history that is missing, or not as it was written.
    pub(crate) fn damaged_block(
        file: &Path,
        position: impl Into<String>,
        reason: &impl ToString,
    ) -> Self {
        let position = position.into();
        let reason = reason.to_string();
        Self::Damaged { file: file.to_path_buf(), position, reason, advice: REPAIR }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_the_history_database_means_damage_and_any_other_panic_does_not() {
        let page = "/home/me/.cargo/registry/src/index/redb-4.4.0/src/tree_store/btree_base.rs";
        let advice = advice_on_panic(page).unwrap();
        assert!(advice.contains("ctl replace") && advice.contains("blocks.redb"), "{advice}");
        assert_eq!(advice_on_panic("crates/order/src/history/blocks.rs"), None);
    }

    #[test]
    fn a_damaged_history_stops_a_replica_for_good_and_an_io_error_does_not() {
        let damaged = format!("{HISTORY_DAMAGED}: a page is not one");
        assert!(
            matches!(stop("data", &damaged), Stop::Setup(line) if line.contains("ctl replace"))
        );
        assert!(matches!(stop("data", "Input/output error"), Stop::Defect(_)));
    }
}
