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
//! ends). Their shells: `replicas` (connections; `outage` says when they are too few), `courier`,
//! `ordering`, `queries`. `api` turns requests into answers, `doorstep` reads plain orders,
//! `connection` and `server` everything else, through a `tracked_stream`. `clients` says how
//! clients are treated, `body_quota` what their bodies may take, `access_log` writes the lines
//! about them. `store` describes the whole store, `status_view` shows it. [`run()`] puts them
//! together.

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

mod outage;

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

mod clients;

mod body_quota;

mod access_log;

mod cache_report;

mod store;

mod status_view;

mod run;

#[cfg(test)]
mod http_table;

pub use clients::{Clients, Gateways};
pub use run::{Settings, run};
pub use status_view::PublicStatus;
