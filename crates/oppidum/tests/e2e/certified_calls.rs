//! Calls of a process with a valid certificate and a bad intent: a certificate lifts no bound on
//! what a process may say. F4 and F13 with certificates.

use futures::StreamExt;
use futures::stream::{iter, once};
use rand::RngExt;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Status};
use wire::dial::{self, Route};
use wire::proto::peer_client::PeerClient;
use wire::proto::watch_client::WatchClient;
use wire::proto::{self, from_watcher::What};
use wire::tls::subject::{CertificateRole, Holder};
use wire::watch::reattach_backoff::ATTACHES_MAX;

use crate::harness::{Plan, SOON, Store};

/// The attaches that a bound of [`ATTACHES_MAX`] must allow beside those of the store's catalog.
const ATTACHES_MIN: u32 = ATTACHES_MAX - 10;

/// The catalogs that attach at a time.
const AT_ONCE: usize = 16;

fn locked() -> (Store, Runtime) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    (Store::start(Plan { locked: true, ..Plan::stock() }), runtime)
}

/// A channel to a replica, with the certificate of this process.
async fn channel(store: &Store, own: Holder, to: u64) -> Channel {
    let own = store.authority().credentials(own);
    let route = Route::to(Holder::Replica(to), Some(&own));
    dial::channel(&route, &store.order_address(to), SOON).await.unwrap()
}

/// What replica `id` says of itself to another one, with all values from its folder.
fn sender(store: &Store, id: u64, to: u64) -> proto::Sender {
    let text = std::fs::read_to_string(store.data(id).join("identity.toml")).unwrap();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
        line.unwrap().trim_matches('"').to_owned()
    };
    // The last of its starts, which the other replicas have met.
    let starts = value("last");
    let start = starts.split('"').rfind(|digits| digits.len() == 16).unwrap();
    proto::Sender {
        id,
        cluster: "oppidum".into(),
        incarnation: value("incarnation"),
        ledger_id: value("ledger"),
        to,
        start: u64::from_str_radix(start, 16).unwrap(),
        to_incarnation: String::new(),
    }
}

/// [P1] A replica whose certificate and identity are right cannot move the others to a term that no
/// election can have reached: they reject it, say so, and orders go on.
#[test]
fn a_certified_replica_with_a_term_out_of_reach_is_rejected_and_reported() {
    let (store, runtime) = locked();
    let number = store.buy("GameStart", 1);
    for to in [123, 456] {
        let sender = Some(sender(&store, 345, to));
        runtime.block_on(async {
            let mut peer = PeerClient::new(channel(&store, Holder::Replica(345), to).await);
            for term in [u64::MAX, u64::MAX - 1, 2_000_000] {
                let ballot = proto::VoteRequest {
                    sender: sender.clone(),
                    vote: Some(proto::RaftVote { term, node: 345, committed: false }),
                    last_log: Some(proto::LogId { term: 1, node: 456, index: 9_999 }),
                    leadership_transfer: true,
                };
                let append = proto::AppendRequest {
                    sender: sender.clone(),
                    vote: Some(proto::RaftVote { term, node: 345, committed: true }),
                    previous: None,
                    entries: Vec::new(),
                    committed: None,
                };
                let rejections = [
                    peer.vote(ballot.clone()).await.err(),
                    peer.pre_vote(ballot).await.err(),
                    peer.beat(append).await.err(),
                ];
                for status in rejections {
                    let status = status.expect("the call is rejected");
                    let words = format!("term {term} is out of reach");
                    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
                    assert!(status.message().contains(&words), "{status:?}");
                }
            }
        });
        store.order(to).says("rejected what replica 345 says: term");
    }
    assert_eq!(store.buy("GameStart", 1), number + 1);
    for status in store.replicas() {
        assert!(status["term"].as_u64().is_some_and(|term| term < 1_000), "{status}");
    }
    store.verify();
}

/// Attaches a catalog under a new name, which says goodbye at once.
async fn attach(mut watch: WatchClient<Channel>, number: u32) -> Result<(), Status> {
    let hello = proto::Hello {
        ledger_id: Vec::new().into(),
        incarnation: rand::rng().random(),
        name: format!("catalog {number}"),
        cursor: 0,
        wants_products: true,
        seen: 0,
    };
    let (welcomed, welcome) = tokio::sync::oneshot::channel::<()>();
    let goodbye = async {
        // The test ends when it is not welcomed.
        let _ = welcome.await;
        What::Goodbye(proto::Goodbye {})
    };
    let says = iter([What::Hello(hello)]).chain(once(goodbye));
    let says = says.map(|what| proto::FromWatcher { what: Some(what) });
    let mut frames = watch.follow(says.chain(futures::stream::pending())).await?.into_inner();
    frames.message().await?;
    let _ = welcomed.send(());
    while frames.message().await?.is_some() {}
    Ok(())
}

/// A catalog with a valid certificate that comes under ever new names is attached a bounded number
/// of times, because each attach is an entry of the log; orders go on.
#[test]
fn a_certified_catalog_under_ever_new_names_is_attached_a_bounded_number_of_times() {
    let (store, runtime) = locked();
    let (attached, rejected) = runtime.block_on(async {
        let own = Holder::Any(CertificateRole::Catalog);
        let watch = WatchClient::new(channel(&store, own, 456).await);
        // Some at a time, so that all come within the minute, also on a busy machine.
        let attaches = (0..2 * ATTACHES_MAX).map(|number| attach(watch.clone(), number));
        let answers: Vec<_> = iter(attaches).buffer_unordered(AT_ONCE).collect().await;
        answers.into_iter().partition::<Vec<_>, _>(Result::is_ok)
    });
    for status in rejected.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("come and gone too often"), "{status:?}");
    }
    let bounds = ATTACHES_MIN..=ATTACHES_MAX;
    let attached = u32::try_from(attached.len()).unwrap();
    assert!(bounds.contains(&attached), "{attached} attaches");
    store.buy("GameStart", 1);
    store.verify();
}
