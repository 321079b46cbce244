//! What the operator asks of a replica: to hand leadership over, to mend its history.
//!
//! The asks are few and slow; they go through a short line to the one task that keeps the lead, and
//! are answered from there.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};
use wire::proto::control_server::{Control, ControlServer};
use wire::proto::{RepairAsk, Repaired, TransferTo, Transferred};

use crate::handover::Pause;
use crate::raft::sources::Sources;
use crate::raft::view::View;

/// The most asks that wait; an operator asks one thing at a time.
const WAITING_MAX: usize = 4;

/// An ask to hand over, and whom to tell what came of it.
#[derive(Debug)]
pub(crate) struct Wish {
    /// The replica that is to lead.
    pub(crate) to: u64,
    /// Why it cannot be done is said in words for the operator.
    pub(crate) tell: oneshot::Sender<Result<Pause, String>>,
}

/// Where asks come in.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    wishes: mpsc::Sender<Wish>,
    view: Arc<View>,
    sources: Sources,
}

impl Operator {
    /// The service's side, and the side of who fulfils.
    pub(crate) fn new(view: Arc<View>, sources: Sources) -> (Self, mpsc::Receiver<Wish>) {
        let (wishes, waiting) = mpsc::channel(WAITING_MAX);
        (Self { wishes, view, sources }, waiting)
    }

    /// The service.
    pub(crate) fn service(self) -> ControlServer<Self> {
        ControlServer::new(self)
    }
}

#[tonic::async_trait]
impl Control for Operator {
    async fn repair(&self, _: Request<RepairAsk>) -> Result<Response<Repaired>, Status> {
        match self.view.mend(Arc::new(self.sources.clone())).await {
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
        let (tell, told) = oneshot::channel();
        let wish = Wish { to: request.into_inner().to, tell };
        let busy = |_| Status::resource_exhausted("others wait to change the leader: ask again");
        self.wishes.try_send(wish).map_err(busy)?;
        match told.await {
            Ok(Ok(pause)) => {
                let pause_us = u64::try_from(pause.0.as_micros()).unwrap_or(u64::MAX);
                Ok(Response::new(Transferred { pause_us }))
            }
            Ok(Err(why)) => Err(Status::failed_precondition(why)),
            Err(_) => Err(Status::unavailable("this replica does not lead any more: ask again")),
        }
    }
}
