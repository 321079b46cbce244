//! The frontend: the public HTTP API, with a small LRU cache of products.
//!
//! A frontend owns no state: the replicas decide orders, the catalog knows the products, and a
//! cached product is answered only while a lease guarantees that it is current. Any number of
//! frontends run side by side.
//!
//! # Reading order
//!
//! [`limits`] has every limit. The pure cores: [`classic`] (the bodies of the API), [`cache`]
//! (hits, fills, floors), [`retry`] (which replica an order is sent to next), `core/admission` (how
//! many orders may be in flight), `core/authentication` (the sender of a request),
//! `core/client_address` (the client behind a gateway), `core/rate` (its rate of requests). Their
//! shells: `admission`, `replicas` (connections to the order replicas; `outage` logs when too few
//! are up), `coalescer` (sends orders in batches), `submit`, `queries`. `api` turns requests into
//! answers; `http` reads and writes them. `clients` holds the limits per client, `drain` the end of
//! a frontend; `body_quota` bounds the memory of request bodies, `rates` the requests of a client;
//! `access_log` logs requests. `cluster_status` collects the state of the whole store,
//! `status_view` renders it. [`run()`] starts the process.

pub mod limits;

mod core;

mod keys;

mod replicas;

mod outage;

mod admission;

mod submit;

mod coalescer;

mod queries;

mod http;

mod api;

mod answer;

mod clients;

mod drain;

mod body_quota;

mod access_log;

mod rates;

mod cache_report;

mod cluster_status;

mod status_view;

mod request_metrics;

mod metrics;

mod run;

#[cfg(test)]
mod table_tests;

pub use self::core::client_address::{CustomerAddress, Gateways};
use self::core::{
    authentication, batch, client_address, order_json, rate, refusals, remembered_key,
};
pub use self::core::{cache, classic, retry, timeline};
pub use clients::Clients;
pub use run::{Settings, run};
pub use status_view::PublicStatus;
