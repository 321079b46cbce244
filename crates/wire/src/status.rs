//! Process status: the JSON of `/status`, and the client that reads it from another process.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};

use crate::cross_origin::AUTHORITY;
use crate::dial::{self, Route};
use crate::limits::STATUS_BYTES_MAX;
use crate::tls::credentials::Protocol;

/// The status of one process. Fields that its role does not have are absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessStatus {
    /// `order`, `catalog` or `frontend`.
    pub role: String,
    /// The id of a replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The process id of the operating system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The address of the internal listener.
    pub address: String,
    /// The address of a frontend's public listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_address: Option<String>,
    /// True when the process is ready to do all of its work.
    pub ready: bool,
    /// The program's version.
    pub version: String,
    /// Why the status could not be read; most other fields are absent then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The ledger's identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger_id: Option<String>,
    /// The leader as this process knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<u64>,
    /// The term as this process knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// The first entry that is still in the log; the entries before it are in the history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_index: Option<u64>,
    /// The last entry in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_index: Option<u64>,
    /// The last entry known to be committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed_index: Option<u64>,
    /// The last entry applied; the cursor of a catalog or a frontend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_index: Option<u64>,
    /// The settled index, which every attached catalog has seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled_index: Option<u64>,
    /// The number that the next order gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_order_number: Option<u64>,
    /// The digest over all applied entries, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The index that the digest belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest_index: Option<u64>,
    /// The number of products that the process knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub products: Option<u64>,
    /// The number of watchers that the process serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchers: Option<u64>,
    /// The number of silent watchers that the process has fenced since it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub let_go: Option<u64>,
    /// The free space of a replica's disk, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// True when a replica's disk is so full that it uses its reserve; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_full: Option<bool>,
    /// The replicas that vote, as this process knows them; empty before it has a log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voters: Option<Vec<u64>>,
    /// The replicas that receive the log and do not vote yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learners: Option<Vec<u64>>,
    /// The source that a catalog or a frontend watches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watches: Option<String>,
    /// The time left of its lease, in milliseconds; 0: it may not answer by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// The dialect that a frontend speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<String>,
    /// The state of a frontend's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheStatus>,
}

/// The state of a frontend's cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheStatus {
    /// The limit of cached products; 0: the cache is off.
    pub capacity: u64,
    /// The cached products, most recently used first.
    pub contents: Vec<CachedProduct>,
    /// Queries that were answered from the cache.
    pub hits: u64,
    /// Queries that opened a fill at a catalog.
    pub misses: u64,
    /// Queries that joined an open fill.
    pub coalesced: u64,
    /// Products that were evicted for another.
    pub evicted: u64,
    /// Changes of cached products.
    pub invalidated: u64,
    /// Queries that found no live lease.
    pub lapsed: u64,
    /// Queries that waited for a version to be settled.
    pub waited: u64,
    /// Fills whose answers were too old to be stored.
    pub rejected: u64,
    /// Orders for an unknown product or more than its stock, refused without a call to the leader.
    pub refused: u64,
}

/// One product in a frontend's cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CachedProduct {
    /// The product's name.
    pub name: String,
    /// The product's stock. None: the cache knows that no such product exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<u64>,
    /// The index as of which the stock is true.
    pub as_of: u64,
    /// False while the product's latest change is not settled.
    pub settled: bool,
}

/// The status of the whole store, as a frontend sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreStatus {
    /// The leader, if there is one.
    pub leader: Option<u64>,
    /// Every process that the frontend knows of.
    pub processes: Vec<ProcessStatus>,
}

impl StoreStatus {
    /// The status of the leader's process, if a leader and its process are known.
    pub fn leading(&self) -> Option<&ProcessStatus> {
        let leader = self.leader?;
        self.processes.iter().find(|process| process.id == Some(leader))
    }
}

/// Reads the status of the process whose internal listener is at `address`. The error is a message
/// for people.
pub async fn fetch(
    route: &Route,
    address: &str,
    within: Duration,
) -> Result<ProcessStatus, String> {
    let asking = async {
        let body = get(route, address, "/status", within).await?;
        serde_json::from_slice(&body)
            .map_err(|error| format!("{address} sent an invalid answer: {error}"))
    };
    let timed_out = |_| format!("{address} does not answer within {within:?}");
    tokio::time::timeout(within, asking).await.map_err(timed_out)?
}

/// Sends a `GET` over HTTP/1.1 and reads a body of at most [`STATUS_BYTES_MAX`] bytes.
pub async fn get(
    route: &Route,
    address: &str,
    path: &str,
    within: Duration,
) -> Result<Bytes, String> {
    let stream = dial::connect(route, Protocol::Http1, address, within).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let oddly = |error: hyper::Error| format!("{address} sent an invalid answer: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(oddly)?;
    let driving = tokio::spawn(connection);
    let request = http::Request::get(path).header(http::header::HOST, AUTHORITY);
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(oddly)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), STATUS_BYTES_MAX).collect().await;
    driving.abort();
    let body =
        body.map_err(|error| format!("{address} sent an invalid answer: {error}"))?.to_bytes();
    if status.is_success() { Ok(body) } else { Err(format!("{address} answers {status}")) }
}
