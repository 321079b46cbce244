//! Certified senders: a call between replicas names its sender, and with mutual TLS the caller's
//! certificate must be that of the same replica.

use tonic::{Request, Status};
pub(super) use wire::permissions::CertifiedReplica;
use wire::proto;

/// The replica of the caller's certificate, and the message of a request.
pub(super) fn open<T>(request: Request<T>) -> (CertifiedReplica, T) {
    (CertifiedReplica::of(request.extensions()), request.into_inner())
}

/// Rejects a sender that the caller's certificate does not allow.
pub(super) fn check(by: CertifiedReplica, sender: Option<&proto::Sender>) -> Result<(), Status> {
    // A call without a sender is rejected later, with its own reason.
    let id = sender.map_or(0, |sender| sender.id);
    if sender.is_none() || by.allows(id) {
        return Ok(());
    }
    Err(Status::permission_denied(format!("the sender says replica {id}, its certificate {by}")))
}
