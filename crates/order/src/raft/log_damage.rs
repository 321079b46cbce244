//! Log damage: finds the first record of the log that cannot be read.

use std::io;
use std::path::Path;
use std::sync::Arc;

use raft_log::codeq::Span;
use raft_log::{Dump, DumpApi};

use crate::history::open_error::OpenError;
use crate::raft::log_types::LogTypes;

/// Why the log could not be opened: searches for the first unreadable record.
pub(super) fn find(folder: &Path, config: &Arc<raft_log::Config>, error: &io::Error) -> OpenError {
    let Ok(dump) = Dump::<LogTypes>::new(config.clone()) else {
        return OpenError::folder(folder, error);
    };
    let mut end = 0;
    let mut at = None;
    let mut found = None;
    // The walk ends at the first unreadable record; its error is kept here.
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
