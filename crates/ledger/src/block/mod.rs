//! A block: the permanent record of one entry, with its requests, their outcomes and a digest.
//!
//! Blocks are immutable and chained: each block contains the digest of the block before it. Two
//! replicas with the same last digest have the same history, and a flipped bit in any block is
//! detected.
//!
//! A ledger builds a block as bytes, and a replica keeps it so ([`EncodedBlock`]). Only auditors,
//! tools and tests decode a whole [`Block`].
//!
//! # Layout, version 1
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version |
//! | 4 | CRC-32 of all bytes after it |
//! | 8 | index of the entry |
//! | 8 | term of the entry |
//! | 8 | log time |
//! | 8 | first order number: the next free number before this entry |
//! | 4 | number of orders placed |
//! | 4 | number of records |
//! | 32 | digest of the block before |
//! | 32 | digest of this block |
//! | … | records: each a request and its outcome |
//!
//! The digest is BLAKE3 over the digest before, index, term, log time, first order number, number
//! of records (as u64) and the records. It leaves out the number of orders, which follows from the
//! records.

mod builder;
mod decoded;
mod encoded;
mod header;

pub(crate) use builder::BlockBuilder;
pub use decoded::{Block, Record};
pub use encoded::{CutPoint, EncodedBlock, Order, find_order};
pub use header::{BLOCK_VERSION, HEADER_BYTES, Header, read_header};
