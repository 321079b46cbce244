//! The control service: what an operator asks of a replica: to hand leadership over, to add and
//! remove replicas, to repair its history.
//!
//! These calls are few and slow. Transfers of the lead go through a short queue to the one task
//! that keeps the lead, and are answered from there.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use ledger::operator_action::OperatorAction;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use wire::permissions::CertifiedReplica;
use wire::proto::control_server::{Control, ControlServer};
use wire::proto::{
    AddReplica, Adding, Announced, RemoveReplica, Removed, RepairAnnouncement, RepairAsk, Repaired,
    TransferTo, Transferred,
};

use crate::announcement::{ANNOUNCEMENT_TIMEOUT, Announcer};
use crate::history::sources::Sources;
use crate::history::view::View;
use crate::membership_change::{Denied, MembershipChange, Removal};
use crate::transfer::TransferRequest;

/// The most progress reports of an addition that wait to be sent.
const REPORTS_MAX: usize = 4;

/// Serves the operator's calls.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    changing: MembershipChange,
    view: Arc<View>,
    sources: Sources,
}

impl Operator {
    /// `changing` also holds the sender of the queue of transfer requests.
    pub(crate) fn new(changing: MembershipChange, view: Arc<View>, sources: Sources) -> Self {
        Self { changing, view, sources }
    }

    /// The service.
    pub(crate) fn service(self) -> ControlServer<Self> {
        ControlServer::new(self)
    }
}

type AddingStream = Pin<Box<dyn Stream<Item = Result<Adding, Status>> + Send>>;

#[tonic::async_trait]
impl Control for Operator {
    type AddStream = AddingStream;

    async fn repair(&self, request: Request<RepairAsk>) -> Result<Response<Repaired>, Status> {
        let by = Announcer::of(request.extensions(), &request.get_ref().key)?;
        self.changing.announcements().announce_repair(&by).await?;
        match self.view.repair(Arc::new(self.sources.clone())).await {
            Ok(done) => {
                let mended = done.mended.into_iter().map(|index| index.0).collect();
                Ok(Response::new(Repaired { checked: done.checked, mended }))
            }
            Err(error) => Err(Status::data_loss(error.to_string())),
        }
    }

    async fn transfer(
        &self,
        request: Request<TransferTo>,
    ) -> Result<Response<Transferred>, Status> {
        let TransferTo { to, key } = request.get_ref();
        let by = Announcer::of(request.extensions(), key)?;
        self.changing.announcements().announce_transfer(*to, &by).await?;
        let (reply, answer) = oneshot::channel();
        let transfer = TransferRequest { to: *to, reply };
        let busy =
            |_| Status::resource_exhausted("other leadership transfers are waiting: ask again");
        self.changing.transfers.try_send(transfer).map_err(busy)?;
        match answer.await {
            Ok(Ok(pause)) => {
                let pause_us = u64::try_from(pause.0.as_micros()).unwrap_or(u64::MAX);
                Ok(Response::new(Transferred { pause_us }))
            }
            Ok(Err(why)) => Err(Status::failed_precondition(why)),
            Err(_) => Err(Status::unavailable("this replica does not lead any more: ask again")),
        }
    }

    async fn add(&self, request: Request<AddReplica>) -> Result<Response<AddingStream>, Status> {
        let by = Announcer::of(request.extensions(), &request.get_ref().key)?;
        let AddReplica { id, address, .. } = request.into_inner();
        let (progress, reports) = mpsc::channel(REPORTS_MAX);
        let (why, refused) = oneshot::channel();
        let changing = self.changing.clone();
        tokio::spawn(async move {
            let added = changing.add((id, &address), &by, &progress).await;
            drop(progress);
            // A client that has hung up needs no result.
            let _ = why.send(added);
        });
        let last = futures::stream::once(async move {
            match refused.await {
                Ok(Ok(())) => None,
                Ok(Err(why)) => Some(Err(refusal(why))),
                Err(_) => Some(Err(Status::unavailable("this replica stops: ask again"))),
            }
        });
        let last = last.filter_map(|last| last);
        Ok(Response::new(Box::pin(ReceiverStream::new(reports).map(Ok).chain(last))))
    }

    async fn remove(&self, request: Request<RemoveReplica>) -> Result<Response<Removed>, Status> {
        let RemoveReplica { id, key } = request.get_ref();
        let by = Announcer::of(request.extensions(), key)?;
        let removed = self.changing.remove(*id, &by).await;
        let removed = removed.map_err(refusal)?;
        Ok(Response::new(match removed {
            Removal::Removed(voters) => {
                Removed { leader: 0, voters: u32::try_from(voters).unwrap_or(u32::MAX) }
            }
            Removal::Ask(leader) => Removed { leader, voters: 0 },
        }))
    }

    async fn announce_repair(
        &self,
        request: Request<RepairAnnouncement>,
    ) -> Result<Response<Announced>, Status> {
        let certified = CertifiedReplica::of(request.extensions());
        let RepairAnnouncement { replica, key, operator } = request.into_inner();
        if !certified.allows(replica) {
            let why = format!("the sender says replica {replica}, its certificate {certified}");
            return Err(Status::permission_denied(why));
        }
        if !self.changing.members().now().is_member(replica) {
            return Err(Status::failed_precondition(format!("there is no replica {replica}")));
        }
        // Without certificates any client could name any operator.
        let operator = if certified == CertifiedReplica::Any { String::new() } else { operator };
        let by = Announcer::named(&operator, &key)?;
        self.changing.leads().map_err(refusal)?;
        let repair = OperatorAction::Repair { id: replica };
        let announced =
            self.changing.announcements().announce(repair, &by, ANNOUNCEMENT_TIMEOUT).await;
        announced.map_err(|problem| refusal(problem.into()))?;
        Ok(Response::new(Announced {}))
    }
}

fn refusal(why: Denied) -> Status {
    match why {
        Denied::Later(why) => Status::unavailable(format!("{why}: ask again")),
        Denied::No(why) => Status::failed_precondition(why),
    }
}
