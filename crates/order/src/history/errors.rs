//! Errors of the database, as I/O errors.

use std::io;

/// The error kinds of a file that does not hold what it should.
pub(super) fn is_damage(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// An error of the database: an I/O error is kept as it is.
pub(super) fn broken(error: impl Into<redb::Error>) -> io::Error {
    use redb::Error;
    match error.into() {
        Error::Io(error) if is_damage(error.kind()) => invalid(error),
        Error::Io(error) => error,
        Error::Corrupted(reason) => invalid(reason),
        // The schema never changes: a table of another type is damaged.
        error @ (Error::TableTypeMismatch { .. }
        | Error::TableIsMultimap(_)
        | Error::TableIsNotMultimap(_)
        | Error::TypeDefinitionChanged { .. }
        | Error::TableDoesNotExist(_)) => invalid(error),
        other => io::Error::other(other.to_string()),
    }
}

/// The data cannot have been written as it was read.
pub(crate) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
