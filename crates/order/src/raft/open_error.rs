//! Why a replica's storage cannot be opened: what is wrong, where, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft_log::codeq::Span;
use raft_log::{Dump, DumpApi};

use wire::exit::Stop;

use crate::raft::log_store::LogTypes;
use crate::raft::state_machine::FILE;

/// A folder that has forgotten something is not to be used again.
const REPLACE: &str = "set the whole data folder aside, keep it for inspection, and replace this \
                       replica (`oppidum ctl replace`)";

/// A block can be had from the others.
const REPAIR: &str = "`oppidum ctl repair` mends a running replica; one that does not start is to \
                      be replaced (`oppidum ctl replace`)";

/// What the system says of a disk without room, in whatever it is wrapped on its way here.
const NO_ROOM: &str = "No space left on device";

/// What a person does about a disk that has failed a running replica.
pub(crate) fn advice(reason: &str) -> &'static str {
    match reason.contains(NO_ROOM) {
        true => {
            "there is no room left on its disk: make some, then start the replica again; nothing \
             acknowledged is lost"
        }
        false => {
            "nothing is believed of what was being written: check the disk, then start the replica \
             again"
        }
    }
}

/// Begins the failure of a history that does not hold what was written.
pub(crate) const HISTORY_DAMAGED: &str = "the history of orders is damaged";

/// Why a running replica stops whose storage has failed: a supervisor may start it again, unless
/// what was written is not there any more.
pub(crate) fn stop(folder: &str, why: &str) -> Stop {
    match why.contains(HISTORY_DAMAGED) {
        true => Stop::Setup(format!("the replica cannot go on in {folder}: {why}; {REPLACE}")),
        false => {
            Stop::Defect(format!("the replica cannot go on in {folder}: {why}; {}", advice(why)))
        }
    }
}

/// What to do about a panic in the source file `source`: the library that keeps the history trusts
/// the pages that it finds, and a damaged one makes it panic. To start again does not help then.
/// `None`: the panic is of another kind.
pub fn advice_on_panic(source: &str) -> Option<String> {
    let is_history = source.split(['/', '\\']).any(|part| part.starts_with("redb-"));
    is_history.then(|| format!("{HISTORY_DAMAGED} (history/{FILE} in its data folder); {REPLACE}"))
}

/// Why a replica's storage cannot be opened. The text is for the person who must act on it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file does not hold what was written.
    #[error("{file} is damaged at {position}: {reason}; {advice}")]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Where in it: a byte of the log, or a block of the history.
        position: String,
        /// What was found there.
        reason: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// The folder or a file in it cannot be used: permissions, the disk, another process.
    #[error(
        "cannot open {path}: {reason}; check its permissions, the disk, and whether another \
         replica uses it"
    )]
    Unusable {
        /// Which file or folder.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// There is no room left to open it.
    #[error(
        "cannot open {path}: there is no room left on its disk; make some, then start this replica \
         again: nothing acknowledged is lost"
    )]
    Full {
        /// Which file or folder.
        path: PathBuf,
    },
}

impl OpenError {
    /// A folder or file that cannot be used.
    pub(crate) fn folder(path: &Path, reason: &impl ToString) -> Self {
        let (path, reason) = (path.to_path_buf(), reason.to_string());
        match reason.contains(NO_ROOM) {
            true => Self::Full { path },
            false => Self::Unusable { path, reason },
        }
    }

    /// A file that does not hold what was written.
    pub(crate) fn damaged(
        file: &Path,
        position: impl Into<String>,
        reason: &impl ToString,
    ) -> Self {
        let (position, reason) = (position.into(), reason.to_string());
        Self::Damaged { file: file.to_path_buf(), position, reason, advice: REPLACE }
    }

    /// The folder of a replica that held a ledger, without its log and its history.
    pub(crate) fn emptied(folder: &Path) -> Self {
        let reason = "both are gone, and its identity.toml names a ledger: what this replica has \
                      acknowledged is forgotten";
        Self::damaged(folder, "its log and its history", &reason)
    }

    /// A block of the history that is not what was written, or not there.
    pub(crate) fn damaged_block(
        file: &Path,
        position: impl Into<String>,
        reason: &impl ToString,
    ) -> Self {
        let (position, reason) = (position.into(), reason.to_string());
        Self::Damaged { file: file.to_path_buf(), position, reason, advice: REPAIR }
    }
}

/// Why the log could not be opened: looks for the first record that cannot be read.
pub(crate) fn of_log(
    folder: &Path,
    config: &Arc<raft_log::Config>,
    error: &io::Error,
) -> OpenError {
    let Ok(dump) = Dump::<LogTypes>::new(config.clone()) else {
        return OpenError::folder(folder, error);
    };
    let (mut end, mut at, mut found) = (0, None, None);
    // The walk ends at the first record that cannot be read; its error is kept here.
    let _ = dump.write_with(|chunk, _, record| {
        if at != Some(chunk) {
            (at, end) = (Some(chunk), 0);
        }
        match record {
            Ok((segment, _)) => {
                end = segment.end().0;
                Ok(())
            }
            Err(error) => {
                found = Some((config.wal.chunk_path(chunk), end, innermost(&error)));
                Err(error)
            }
        }
    });
    match found {
        Some((file, byte, reason)) => {
            OpenError::damaged(Path::new(&file), format!("byte {byte}"), &reason)
        }
        None if error.kind() == io::ErrorKind::PermissionDenied => OpenError::folder(folder, error),
        None => OpenError::damaged(folder, "an unknown place", error),
    }
}

/// The cause without the contexts that the log's library wraps around it.
fn innermost(error: &io::Error) -> String {
    let text = error.to_string();
    text.split("; when:").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_the_library_of_the_history_is_damage_and_any_other_is_not() {
        let page = "/home/me/.cargo/registry/src/index/redb-4.4.0/src/tree_store/btree_base.rs";
        let advice = advice_on_panic(page).unwrap();
        assert!(advice.contains("ctl replace") && advice.contains("blocks.redb"), "{advice}");
        assert_eq!(advice_on_panic("crates/order/src/raft/blocks.rs"), None);
    }

    #[test]
    fn a_damaged_history_stops_a_replica_for_good_and_a_failed_sync_does_not() {
        let damaged = format!("{HISTORY_DAMAGED}: a page is not one");
        assert!(
            matches!(stop("data", &damaged), Stop::Setup(line) if line.contains("ctl replace"))
        );
        assert!(matches!(stop("data", "Input/output error"), Stop::Defect(_)));
    }
}
