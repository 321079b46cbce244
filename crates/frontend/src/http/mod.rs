//! The HTTP layer: reads requests from connections and writes answers to them.
//!
//! The API implements one trait, [`handler::Handler`], and sees nothing else of this folder.
//!
//! # Reading order
//!
//! [`server`] accepts connections. [`connection`] passes each of them between two readers: the
//! [`fast_path`], which reads plain orders ([`parse`]) without hyper, and hyper, which is given one
//! checked request at a time ([`tracked_stream`]). [`head`] checks a request head and [`framing`]
//! finds where its body ends; both are pure. [`phase`] tells when a connection is between two
//! requests, so that its reader may change. Under overload [`scheduler`] decides which of many
//! ready connections is read next. [`send_timer`] bounds how long an answer may wait to be sent,
//! and [`linger`] closes a connection so that its last answer arrives.

pub(crate) mod connection;
pub(crate) mod fast_path;
pub(crate) mod framing;
pub(crate) mod handler;
pub(crate) mod head;
pub(crate) mod linger;
pub(crate) mod parse;
pub(crate) mod phase;
mod proxy_protocol;
pub(crate) mod scheduler;
pub(crate) mod send_timer;
pub(crate) mod server;
pub(crate) mod tracked_stream;
