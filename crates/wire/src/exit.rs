//! Stop reasons: why a process ends without a stop signal, as a message for its operator.

/// The reason why a process cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// A fault in how the process was started: a setting, a port, a folder. The message is one line
    /// that says what is wrong and what to do. Exit code 2.
    #[error("{0}")]
    Setup(String),
    /// A state that must not occur: a broken invariant, a failing disk. The message says what is
    /// wrong, where, and what to do. Exit code 1.
    #[error("{0}")]
    Defect(String),
}
