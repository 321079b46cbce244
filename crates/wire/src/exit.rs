//! Why a process stops before it was told to, as the person who started it is told.

/// A process cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// Something about the way it was started: a setting, a port, a folder. One line that says
    /// what, and what to do. Exit code 2.
    #[error("{0}")]
    Setup(String),
    /// Something that must not be: a broken invariant, a failing disk. What, where, and what to do.
    /// Exit code 1.
    #[error("{0}")]
    Defect(String),
}
