//! The encoding of the domain's types, of which log entries, blocks and states consist.
//!
//! The layout is fixed and little-endian, with a version byte before every whole value. Decoding is
//! strict: missing bytes, trailing bytes and values that could not have been written are errors. No
//! length allocates memory that the bytes do not cover.
//!
//! # Layout, version 1
//!
//! * text: u8 or u16 length, then UTF-8
//! * key: u8 (0 none, 1 client, 2 frontend); unless none: actor (u8 text), key (u8 text)
//! * actor: empty, or a principal, `/` and the id of an API key
//! * request: key, u64 deadline (0: none), u8 command tag, the command's fields in order. If the
//!   first byte has bit 2 set, a certificate follows it: u8 role, name (u8 text)
//! * batch: u8 version, u64 at, u64 settled, u32 count, requests; version 2 has the same layout
//!
//! `bytes` reads and writes numbers and texts, and `values` the domain's types with them. `refs`
//! reads encoded requests in place, and `batch` a whole log entry. [`bulk`] holds many orders on
//! their way to an entry.

mod api_keys;
mod batch;
pub mod bulk;
mod bytes;
mod operators;
pub(crate) mod refs;
mod values;

pub use batch::BATCH_VERSION;
pub(crate) use batch::{BatchRef, encode_batch};
pub use bytes::DecodeError;
pub(crate) use bytes::{Reader, Writer};
