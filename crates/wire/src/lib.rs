//! Communication between the processes of a store: contracts, streams and the watch protocol.
//!
//! # Reading order
//!
//! [`limits`] holds every limit, [`problem`] every error. [`convert`] translates between the wire
//! and the ledger's terms, [`names`] checks the name of a new product, [`peers`] lists the
//! replicas. [`net`] makes connections, [`tls`] encrypts them, [`dial`] makes calls over them,
//! [`permissions`] says who may call what, [`stream`] carries many calls over one connection,
//! [`watch`] keeps caches true, [`timer`] waits. [`connections`], [`descriptors`] and
//! [`cross_origin`] decide which clients and requests a listener accepts. [`serve`], [`status`],
//! [`metrics`], [`telemetry`], [`log_format`] and [`lines`] publish a process's state and log,
//! [`service_manager`] is told of it, [`escaped`] escapes untrusted text, [`wall_clock`] reads and
//! writes times, [`exit`] says why a process stops.

pub mod limits;

pub mod problem;

pub mod exit;

pub mod peers;

pub mod access;

pub mod convert;

pub mod names;

pub mod net;

pub mod tls;

pub mod dial;

pub mod permissions;

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

mod facts;

pub mod serve;

pub mod service_manager;

pub mod telemetry;

pub mod log_format;

pub mod wall_clock;

pub mod escaped;

pub mod lines;

/// The contracts between processes, generated from `proto/`.
#[expect(missing_docs, reason = "explained in the .proto files that this is made from")]
#[allow(unreachable_pub, missing_debug_implementations, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("oppidum.v1");
}
