//! A store whose replicas have certificates, and calls in the name of another replica.

use tonic::{Code, Status};
use wire::dial::{self, Route};
use wire::proto;
use wire::proto::ask::What as Asked;
use wire::proto::control_client::ControlClient;
use wire::proto::peer_client::PeerClient;
use wire::stream::Caller;
use wire::tls::subject::{CertificateRole, Holder};

use super::authority::Authority;
use super::{ANSWER_TIMEOUT, Answered, Store};

impl Store {
    /// Starts replicas 123, 345 and 456 with certificates.
    pub(crate) fn start_certified() -> Self {
        let authority = Authority::new();
        let replicas = ["123", "345", "456"].map(|id| ("order", id));
        for pair in replicas.into_iter().chain([("operator", "anna"), ("catalog", "c")]) {
            authority.issue_into(authority.folder(), pair, "test");
        }
        Self::start_by(&[123, 345, 456], Some(authority))
    }

    /// Reads an order with the certificate of a catalog.
    pub(crate) async fn lookup_as_catalog(&self, id: u64) -> Answered {
        let own = self.credentials(Holder::Any(CertificateRole::Catalog));
        let route = Route::to(Holder::Replica(id), own.as_ref());
        let caller = Caller::connect(&route, self.address(id)).await.unwrap();
        caller.ask(Asked::Lookup(proto::Lookup::default()), ANSWER_TIMEOUT).await
    }

    /// Calls each method of replica `to` with the certificate of `own`, as `sender`. Returns the
    /// methods that do not reject the sender for its certificate.
    pub(crate) async fn believed(&self, own: u64, to: u64, sender: proto::Sender) -> Vec<&str> {
        let credentials = self.credentials(Holder::Replica(own));
        let route = Route::to(Holder::Replica(to), credentials.as_ref());
        let channel = dial::channel(&route, self.address(to), ANSWER_TIMEOUT).await.unwrap();
        let mut control = ControlClient::new(channel.clone());
        let mut peer = PeerClient::new(channel);
        let repair = proto::RepairAnnouncement { replica: sender.id, ..Default::default() };
        let sender = Some(sender);
        let append = proto::AppendRequest { sender: sender.clone(), ..Default::default() };
        let vote = proto::VoteRequest { sender: sender.clone(), ..Default::default() };
        let transfer = proto::TransferRequest { sender: sender.clone(), ..Default::default() };
        let snapshot = proto::SnapshotRequest { sender: sender.clone(), ..Default::default() };
        let blocks = proto::BlocksRequest { sender: sender.clone(), ..Default::default() };
        let ping = proto::HoldPing { sender, ..Default::default() };
        let appends = futures::stream::iter([append.clone()]);
        let answers = [
            ("append", peer.append(appends).await.err()),
            ("beat", peer.beat(append).await.err()),
            ("vote", peer.vote(vote.clone()).await.err()),
            ("pre_vote", peer.pre_vote(vote).await.err()),
            ("transfer", peer.transfer(transfer).await.err()),
            ("snapshot", peer.snapshot(snapshot).await.err()),
            ("blocks", peer.blocks(blocks).await.err()),
            ("hold", peer.hold(futures::stream::iter([ping])).await.err()),
            ("announce_repair", control.announce_repair(repair).await.err()),
        ];
        let is_rejected = |status: &Option<Status>| {
            status.as_ref().is_some_and(|status| {
                let is_denied = status.code() == Code::PermissionDenied;
                is_denied && status.message().contains("its certificate replica")
            })
        };
        let believed = answers.iter().filter(|(_, status)| !is_rejected(status));
        believed.map(|(method, _)| *method).collect()
    }
}
