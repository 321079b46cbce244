//! The history behind the log.
