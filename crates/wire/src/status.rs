//! What a process says of itself at `/status`, and how another reads it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};

use crate::cross_origin::AUTHORITY;
use crate::limits::STATUS_BYTES_MAX;
use crate::net;

/// One process. Fields that its role does not have are absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessStatus {
    /// `order`, `catalog` or `frontend`.
    pub role: String,
    /// A replica's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its internal listener.
    pub address: String,
    /// The public listener of a frontend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_address: Option<String>,
    /// True when it does its whole work.
    pub ready: bool,
    /// The program's version.
    pub version: String,
    /// Why it could not be asked; then most else is absent.
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
    /// The first entry that is still in the log; what was before it is in the history.
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
    /// Everybody attached has seen up to here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled_index: Option<u64>,
    /// The number that the next order gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_order_number: Option<u64>,
    /// The digest of everything applied, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The index that the digest belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest_index: Option<u64>,
    /// How many products it knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub products: Option<u64>,
    /// How many watchers it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchers: Option<u64>,
    /// How many silent watchers it has let go since it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub let_go: Option<u64>,
    /// What is free on a replica's disk, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// A replica's disk has so little room left that its reserve has been begun; else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_full: Option<bool>,
    /// The replicas that vote, as this one knows them; empty before it has a log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voters: Option<Vec<u64>>,
    /// The replicas that receive the log and do not vote yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learners: Option<Vec<u64>>,
    /// Whom it watches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watches: Option<String>,
    /// What is left of its lease, in milliseconds; 0: it may not answer by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// The dialect that a frontend speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<String>,
    /// A frontend's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheStatus>,
}

/// A frontend's cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheStatus {
    /// In products; 0: off.
    pub capacity: u64,
    /// Most recently used first.
    pub contents: Vec<CachedProduct>,
    /// Answered from the cache.
    pub hits: u64,
    /// Asked of a catalog.
    pub misses: u64,
    /// Joined a question that was under way.
    pub coalesced: u64,
    /// Made room for another.
    pub evicted: u64,
    /// Changed while cached.
    pub invalidated: u64,
    /// Found no live lease.
    pub lapsed: u64,
    /// Waited for a version to be settled.
    pub waited: u64,
    /// Came back too old to be stored.
    pub rejected: u64,
    /// Orders of what is not there, refused without asking the leader.
    pub refused: u64,
}

/// One cached product.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CachedProduct {
    /// Its name.
    pub name: String,
    /// Its stock. None: it is known that there is no such product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<u64>,
    /// True as of this index.
    pub as_of: u64,
    /// False while its latest change is not settled yet.
    pub settled: bool,
}

/// The whole store, as a frontend sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreStatus {
    /// The leader, if there is one.
    pub leader: Option<u64>,
    /// Every process it knows of.
    pub processes: Vec<ProcessStatus>,
}

impl StoreStatus {
    /// The process of the leader, if there is one and it is known.
    pub fn leading(&self) -> Option<&ProcessStatus> {
        let leader = self.leader?;
        self.processes.iter().find(|process| process.id == Some(leader))
    }
}

/// Asks the process whose internal listener is at `address`. The error is for people.
pub async fn fetch(address: &str, within: Duration) -> Result<ProcessStatus, String> {
    let asking = async {
        let body = get(address, "/status", within).await?;
        serde_json::from_slice(&body).map_err(|error| format!("{address} answers oddly: {error}"))
    };
    let timed_out = |_| format!("{address} does not answer within {within:?}");
    tokio::time::timeout(within, asking).await.map_err(timed_out)?
}

/// `GET` over HTTP/1.1, at most [`STATUS_BYTES_MAX`] bytes of it.
pub async fn get(address: &str, path: &str, within: Duration) -> Result<Bytes, String> {
    let stream = net::connect(address, within).await.map_err(|error| error.to_string())?;
    let oddly = |error: hyper::Error| format!("{address} answers oddly: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(oddly)?;
    let driving = tokio::spawn(connection);
    let request = http::Request::get(path).header(http::header::HOST, AUTHORITY);
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(oddly)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), STATUS_BYTES_MAX).collect().await;
    driving.abort();
    let body = body.map_err(|error| format!("{address} answers oddly: {error}"))?.to_bytes();
    if status.is_success() { Ok(body) } else { Err(format!("{address} answers {status}")) }
}
