//! How the processes of a store talk: the contracts, the streams, the watch protocol.
//!
//! # Reading order
//!
//! [`limits`] is every bound, [`problem`] every error, [`convert`] the border between the wire and
//! the ledger's terms, [`names`] what may name a new product. [`net`] makes connections; [`stream`]
//! carries many calls over one of them; [`watch`] is the protocol that keeps caches true; [`timer`]
//! waits. [`connections`] and [`descriptors`] decide which clients a listener keeps. [`serve`],
//! [`status`], [`metrics`], [`telemetry`] and [`lines`] are what every process shows of itself,
//! [`escaped`] what a log shows of others, [`exit`] why it stops.

pub mod limits;

pub mod problem;

pub mod exit;

pub mod peers;

pub mod convert;

pub mod names;

pub mod net;

pub mod connections;

pub mod descriptors;

pub mod timer;

#[cfg(feature = "simulated")]
pub mod simulated;

pub mod stream;

pub mod watch;

pub mod status;

pub mod metrics;

pub mod cross_origin;

pub mod serve;

pub mod telemetry;

pub mod escaped;

pub mod lines;

/// The internal contracts, generated from `proto/`.
#[expect(missing_docs, reason = "explained in the .proto files that this is made from")]
#[allow(unreachable_pub, missing_debug_implementations, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("oppidum.v1");
}
