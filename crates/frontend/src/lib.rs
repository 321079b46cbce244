//! The frontend: the public HTTP API, with a small LRU cache of products.
//!
//! It holds nothing that matters: orders are decided by the replicas, products are the catalog's to
//! tell, and what is cached here is answered only while a lease says that it is true. As many of
//! them as one likes run side by side.
//!
//! # Reading order
//!
//! [`limits`] is every bound. The pure cores: [`classic`] (the words of the API), [`cache`] (hits,
//! fills, floors), [`seek`] (what to do next for some orders), `gate` (how many orders at once),
//! `plain` (which need no server of HTTP), `head` and `framing` (what is a request, and where it
//! ends). Their shells: `replicas` (connections), `courier`, `ordering`, `queries`. `api` turns
//! requests into answers, `doorstep` reads plain orders, `connection` and `server` everything else,
//! through a `tracked_stream`, `store` describes the whole store. [`run()`] puts them together.

pub mod limits;

pub mod classic;

mod fields;

mod batch;

mod keys;

mod refusals;

pub mod cache;

pub mod timeline;

pub mod seek;

mod replicas;

mod gate;

mod ordering;

mod courier;

mod queries;

mod api;

mod answer;

mod step;

mod head;

mod framing;

mod send_timer;

mod linger;

mod tracked_stream;

mod plain;

mod turnstile;

mod connection;

mod doorstep;

mod server;

mod store;

mod run;

#[cfg(test)]
mod http_table;

pub use run::{Settings, run};
