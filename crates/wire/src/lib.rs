//! How the processes of a store talk: protobuf, streams, limits, problems.

/// The internal contracts, generated from `proto/`.
#[allow(missing_docs, unreachable_pub, clippy::pedantic, missing_debug_implementations)]
pub mod proto {
    tonic::include_proto!("oppidum.v1");
}
