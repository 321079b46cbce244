//! Forged calls between replicas: as a process that is no member, and as a lying member.

use futures::StreamExt;
use tonic::Code;
use wire::proto;
use wire::proto::peer_client::PeerClient;

use super::{ANSWER_TIMEOUT, Store};

impl Store {
    /// The term of each running replica.
    pub(crate) async fn terms(&self) -> Vec<u64> {
        let mut terms = Vec::new();
        for id in self.replicas.keys() {
            let status = wire::status::fetch(&self.operator(), self.address(*id), ANSWER_TIMEOUT)
                .await
                .unwrap();
            terms.push(status.term.unwrap());
        }
        terms
    }

    /// The sender of a process that is no member, with only the values that every client can see.
    pub(crate) async fn stranger(&self, to: u64) -> proto::Sender {
        let status =
            wire::status::fetch(&self.operator(), self.address(to), ANSWER_TIMEOUT).await.unwrap();
        proto::Sender {
            id: 999,
            cluster: "test".into(),
            incarnation: format!("{:032x}", 999),
            ledger_id: status.ledger_id.unwrap(),
            to,
            start: 1,
            to_incarnation: String::new(),
        }
    }

    /// The sender of a member, with all values from its folder.
    pub(crate) fn member(&self, id: u64, to: u64) -> proto::Sender {
        let file = self.folder.path().join(format!("order-{id}/identity.toml"));
        let text = std::fs::read_to_string(file).unwrap();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
            line.unwrap().trim_matches('"').to_owned()
        };
        // The last of its starts, which the other replicas have met.
        let starts = value("last");
        let start = starts.split('"').rfind(|digits| digits.len() == 16).unwrap();
        proto::Sender {
            id,
            cluster: "test".into(),
            incarnation: value("incarnation"),
            ledger_id: value("ledger"),
            to,
            start: u64::from_str_radix(start, 16).unwrap(),
            to_incarnation: String::new(),
        }
    }

    async fn peer(&self, to: u64) -> PeerClient<tonic::transport::Channel> {
        let channel =
            wire::dial::channel(&self.operator(), self.address(to), ANSWER_TIMEOUT).await.unwrap();
        PeerClient::new(channel)
    }

    /// Asks for votes in a term. True: they are rejected.
    pub(crate) async fn forge_votes(&self, to: u64, sender: &proto::Sender, term: u64) -> bool {
        let mut peer = self.peer(to).await;
        for leadership_transfer in [false, true] {
            let vote = proto::RaftVote { term, node: sender.id, committed: false };
            let last = proto::LogId { term: 1, node: 456, index: 9_999 };
            let ballot = proto::VoteRequest {
                sender: Some(sender.clone()),
                vote: Some(vote),
                last_log: Some(last),
                leadership_transfer,
            };
            let refused = is_refused(peer.vote(ballot.clone()).await)
                && is_refused(peer.pre_vote(ballot).await);
            if !refused {
                return false;
            }
        }
        let leads = proto::RaftVote { term, node: sender.id, committed: true };
        let transfer = proto::TransferRequest {
            sender: Some(sender.clone()),
            from: Some(leads),
            to,
            last_log: None,
            wished: true,
        };
        let snapshot = proto::SnapshotRequest {
            sender: Some(sender.clone()),
            vote: Some(leads),
            last_log: Some(proto::LogId { term, node: sender.id, index: 9_999 }),
            members_at: None,
            members: Some(proto::Members::default()),
            state: Vec::new().into(),
        };
        is_refused(peer.transfer(transfer).await) && is_refused(peer.snapshot(snapshot).await)
    }

    /// Sends entries, and a heartbeat, up to `index`. True: they are rejected.
    pub(crate) async fn forge_entries(
        &self,
        to: u64,
        sender: &proto::Sender,
        term: u64,
        index: u64,
    ) -> bool {
        let mut peer = self.peer(to).await;
        let at = proto::LogId { term, node: sender.id, index };
        let request = proto::AppendRequest {
            sender: Some(sender.clone()),
            vote: Some(proto::RaftVote { term, node: sender.id, committed: true }),
            previous: Some(at),
            entries: Vec::new(),
            committed: Some(at),
        };
        let beat = is_refused(peer.beat(request.clone()).await);
        let stream = peer.append(futures::stream::iter([request])).await;
        let stream = match stream {
            Ok(answers) => is_refused(answers.into_inner().message().await),
            Err(status) => is_verdict(&status),
        };
        beat && stream
    }

    /// Opens a liveness stream, and claims to have compared. Returns the answer.
    pub(crate) async fn dial(&self, to: u64, sender: &proto::Sender) -> proto::HoldPong {
        let ping = proto::HoldPing {
            sender: Some(sender.clone()),
            acknowledged: Some(proto::Acknowledged::default()),
            ..proto::HoldPing::default()
        };
        let pings = futures::stream::iter([ping]).chain(futures::stream::pending());
        let mut pongs = self.peer(to).await.hold(pings).await.unwrap().into_inner();
        pongs.message().await.unwrap().unwrap()
    }

    /// Reads blocks. Returns their number or the error.
    pub(crate) async fn read_blocks(&self, to: u64, sender: proto::Sender) -> Result<usize, Code> {
        let request = proto::BlocksRequest { sender: Some(sender), after: 0, to: u64::MAX };
        let mut peer = self.peer(to).await;
        let mut parts = peer.blocks(request).await.map_err(|s| s.code())?.into_inner();
        let mut count = 0;
        while let Some(part) = parts.message().await.map_err(|status| status.code())? {
            count += part.blocks.len();
        }
        Ok(count)
    }
}

fn is_refused<T>(answer: Result<T, tonic::Status>) -> bool {
    answer.err().is_some_and(|status| is_verdict(&status))
}

fn is_verdict(status: &tonic::Status) -> bool {
    [Code::PermissionDenied, Code::NotFound, Code::FailedPrecondition].contains(&status.code())
}
