//! Why a backup is not made or not read.

use std::io;

use wire::exit::Stop;

/// The reason, of which damage alone is a finding.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// A file is damaged, or is missing.
    #[error("DAMAGED: {name}: {why}")]
    Damaged {
        /// The file.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// It cannot be done: a storage that fails, another store's backup, a second writer.
    #[error("{0}")]
    Impossible(String),
}

impl BackupError {
    /// Damage of a file.
    #[expect(clippy::needless_pass_by_value, reason = "errors and texts alike are consumed")]
    pub(crate) fn damaged(name: impl Into<String>, why: impl ToString) -> Self {
        Self::Damaged { name: name.into(), why: why.to_string() }
    }

    /// An error that the storage gives for a file.
    pub(crate) fn storage(what: &str, name: &str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Impossible(format!("cannot {what} {name} of the backup: {error}"))
    }
}

impl From<BackupError> for Stop {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Damaged { .. } => Self::Defect(error.to_string()),
            BackupError::Impossible(why) => Self::Setup(why),
        }
    }
}
