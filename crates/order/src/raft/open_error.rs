//! Why a replica's storage cannot be opened: what is wrong, where, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft_log::codeq::Span;
use raft_log::{Dump, DumpApi};

use crate::raft::log_store::LogTypes;

/// Why a replica's storage cannot be opened. The text is for the person who must act on it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file does not hold what was written.
    #[error(
        "{file} is damaged at {position}: {reason}; set the whole data folder aside, keep it for \
         inspection, start a new replica with an empty one (`oppidum order --id NEW --join`), and \
         type `oppidum ctl replace --id OLD --with NEW --address HOST:PORT`"
    )]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Where in it: a byte of the log, or a block of the history.
        position: String,
        /// What was found there.
        reason: String,
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
}

impl OpenError {
    /// A folder or file that cannot be used.
    pub(crate) fn folder(path: &Path, reason: &impl ToString) -> Self {
        Self::Unusable { path: path.to_path_buf(), reason: reason.to_string() }
    }

    /// A file that does not hold what was written.
    pub(crate) fn damaged(
        file: &Path,
        position: impl Into<String>,
        reason: &impl ToString,
    ) -> Self {
        let (position, reason) = (position.into(), reason.to_string());
        Self::Damaged { file: file.to_path_buf(), position, reason }
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
