//! The cores of the frontend: plain functions and structs without I/O, clock or randomness.

pub(crate) mod admission;
pub(crate) mod authentication;
pub(crate) mod batch;
pub mod cache;
pub mod classic;
pub(crate) mod client_address;
pub(crate) mod dialect;
pub(crate) mod order_json;
mod predicates;
pub(crate) mod rate;
pub(crate) mod refusals;
pub(crate) mod remembered_key;
pub mod retry;
pub mod timeline;
