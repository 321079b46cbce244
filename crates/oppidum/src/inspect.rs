//! Inspection of a running store: `status`, `verify` and `dump`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ledger::audit::{Auditor, Summary, Violation};
use ledger::block::{Block, Record};
use ledger::command::{Command, Side};
use ledger::ledger::Windows;
use ledger::outcome::{Accepted, Outcome};
use ledger::terms::Digest;
use serde::Deserialize;
use serde_json::json;
use wire::dial::Route;
use wire::exit::Stop;
use wire::proto::HistoryHead;
use wire::status::{ProcessStatus, StoreStatus};
use wire::tls::subject::CertificateRole;

use self::block_stream::CONNECT_TIMEOUT;
use crate::address::is_loopback;
use crate::http::Client;
use crate::internal_plane;
use crate::listeners;
use crate::membership;
use crate::settings::{self, Settings};

pub(crate) mod block_stream;

#[cfg(test)]
mod tests;

/// The words by which an internal listener refuses a connection without TLS.
const NEEDS_TLS: &str = "--tls DIR";

/// A page of `/status`: of a public port, or of a frontend's internal listener, which adds its own
/// role first.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Page {
    role: String,
    public_address: Option<String>,
    #[serde(flatten)]
    store: StoreStatus,
}

impl Page {
    /// True when the page shows the addresses of the processes; a public port may hide them.
    fn is_whole(&self) -> bool {
        self.store.processes.iter().any(|process| !process.address.is_empty())
    }

    /// True for the internal listener of the frontend with this public port.
    fn is_inside_of(&self, port: Option<&str>) -> bool {
        let public = self.public_address.as_deref().and_then(port_of);
        self.role == "frontend" && public.is_some() && public == port
    }
}

/// The store's status as the public port or the internal listener at `url` shows it. The addresses
/// of the processes may be missing.
pub(crate) async fn public(url: &str) -> Result<StoreStatus, Stop> {
    page(url).await.map(|page| page.store)
}

/// The whole store's status, as of now: from the internal listener of the frontend at `url`, which
/// is its public or its internal address.
pub(crate) async fn fetch(url: &str) -> Result<StoreStatus, Stop> {
    internal_plane::find_folder(url).await;
    let route = internal_plane::route(CertificateRole::Frontend)?;
    let uri: http::Uri = url.parse().unwrap_or_default();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let shown = match page(url).await {
        Ok(shown) if shown.role.is_empty() || internal_plane::is_plaintext() => shown,
        Ok(_) => {
            return Err(Stop::Setup(format!(
                "the process at {url} runs without TLS: leave --tls out, or start it with --tls"
            )));
        }
        // An internal listener with mutual TLS: its page needs the operator's certificate.
        Err(stop) if internal_plane::is_plaintext() => return Err(stop),
        Err(_) => internal_page(&route, authority)
            .await
            .map_err(|why| Stop::Setup(format!("no store answers at {url}: {why}")))?,
    };
    if shown.role == "frontend" {
        return Ok(shown.store);
    }
    if !shown.role.is_empty() {
        let role = shown.role;
        return Err(Stop::Setup(format!("{url} is a process of role {role}: ask a frontend")));
    }
    let port = port_of(authority);
    let own = shown.store.processes.iter().find(|process| process.role == "frontend");
    let inside = match own.filter(|_| shown.is_whole()) {
        Some(own) => vec![own.address.clone()],
        None if uri.host().is_some_and(is_loopback) => on_this_machine(port).await?,
        None => Vec::new(),
    };
    let mut denied = None;
    for inside in inside {
        match internal_page(&route, &inside).await {
            Ok(page) if page.is_inside_of(port) => return Ok(page.store),
            Ok(_) => {}
            Err(why) => denied = denied.or(Some(why).filter(|why| why.contains(NEEDS_TLS))),
        }
    }
    if denied.is_some() {
        return Err(Stop::Setup(format!(
            "the processes of the store at {url} demand a certificate: give --tls DIR, the folder \
             of ca.pem and of an operator's pair (`oppidum ctl ca issue --dir … operator NAME`)"
        )));
    }
    if shown.is_whole() {
        return Ok(shown.store);
    }
    Err(Stop::Setup(format!(
        "{url} is public and does not show where the processes are: give the frontend's internal \
         listener, such as --url http://127.0.0.1:6789, or set OPPIDUM_INTERNAL"
    )))
}

/// The whole store's status: as of now, if this tool may read that; else as the public port shows
/// it.
pub(crate) async fn readable(url: &str) -> Result<StoreStatus, Stop> {
    match fetch(url).await {
        Err(why) if internal_plane::is_plaintext() => match page(url).await {
            Ok(page) if page.role.is_empty() && page.is_whole() => Ok(page.store),
            _ => Err(why),
        },
        fetched => fetched,
    }
}

/// The page of an internal listener, by the operator's certificate if this tool has a folder of
/// them.
async fn internal_page(route: &Route, address: &str) -> Result<Page, String> {
    if internal_plane::is_plaintext() {
        return page(&format!("http://{address}")).await.map_err(|stop| stop.to_string());
    }
    let body = wire::status::get(route, address, "/status", CONNECT_TIMEOUT).await?;
    serde_json::from_slice(&body).map_err(|error| format!("{address} sent no status: {error}"))
}

/// The addresses where this machine's frontend with the public `port` may have its internal
/// listener: the one in the settings, and the others of the same process.
async fn on_this_machine(port: Option<&str>) -> Result<Vec<String>, Stop> {
    let set: Option<String> = Settings::load()?.take(settings::INTERNAL, None)?;
    let mut inside: Vec<String> = set.into_iter().collect();
    if let Some(port) = port.and_then(|port| port.parse().ok()) {
        let found = tokio::task::spawn_blocking(move || listeners::beside(port)).await;
        inside.extend(found.unwrap_or_default().iter().map(ToString::to_string));
    }
    Ok(inside)
}

async fn page(url: &str) -> Result<Page, Stop> {
    let no = |why: String| Stop::Setup(format!("no store answers at {url}: {why}"));
    let reply = Client::new(url)?.get("/status").await.map_err(no)?;
    serde_json::from_slice(&reply.body).map_err(|error| {
        // An internal listener with mutual TLS says so in a line.
        let line = String::from_utf8_lossy(&reply.body);
        match line.lines().next().filter(|line| line.contains(NEEDS_TLS)) {
            Some(line) => no(line.to_owned()),
            None => no(error.to_string()),
        }
    })
}

/// The port of `HOST:PORT`.
fn port_of(address: &str) -> Option<&str> {
    address.rsplit_once(':').map(|(_, port)| port)
}

/// `oppidum status`
pub(crate) async fn status(url: &str, as_json: bool) -> Result<bool, Stop> {
    let store = readable(url).await?;
    if as_json {
        answer!("{}", serde_json::to_string(&store).map_err(|e| Stop::Defect(e.to_string()))?);
        return Ok(store.leader.is_some());
    }
    match store.leader {
        Some(leader) => answer!("leader: {leader}\n"),
        None => answer!("leader: none; orders are refused until a majority of replicas is back\n"),
    }
    answer!(
        "{:<14} {:>7} {:<21} {:>5} {:>9} {:>9} {:>5} {:>9}  digest",
        "process",
        "pid",
        "address",
        "term",
        "applied",
        "settled",
        "lag",
        "next order"
    );
    let newest = store.processes.iter().filter_map(|process| process.applied_index).max();
    for process in &store.processes {
        answer!("{}", row(process, newest, store.leader));
    }
    for process in store.processes.iter().filter(|process| process.disk_full == Some(true)) {
        let id = process.id.unwrap_or(0);
        let free = process.free_bytes.unwrap_or(0);
        answer!("\norder {id}: its disk is full, {} MB are free: make room", free / 1_000_000);
    }
    answer!("\n{}", membership::summary(&store));
    Ok(store.leader.is_some())
}

fn row(process: &ProcessStatus, newest: Option<u64>, leader: Option<u64>) -> String {
    let name = match process.id {
        Some(id) if Some(id) == leader => format!("order {id} *"),
        Some(id) => format!("order {id}"),
        None => process.role.clone(),
    };
    let address = process.public_address.as_ref().unwrap_or(&process.address);
    if let Some(error) = &process.error {
        return format!("{name:<14} {:>7} {address:<21} {error}", "-");
    }
    let number = |number: Option<u64>| number.map_or_else(|| "-".into(), |n| n.to_string());
    let lag = newest.zip(process.applied_index).map(|(newest, own)| newest.saturating_sub(own));
    let digest = process.digest.as_ref().map_or("-", |digest| digest.get(..12).unwrap_or(digest));
    format!(
        "{name:<14} {:>7} {address:<21} {:>5} {:>9} {:>9} {:>5} {:>9}  {digest}",
        number(process.pid.map(u64::from)),
        number(process.term),
        number(process.applied_index),
        number(process.settled_index),
        number(lag),
        number(process.next_order_number),
    )
}

/// One replica's whole history, checked.
#[derive(Debug)]
struct History {
    id: u64,
    head: HistoryHead,
    summary: Summary,
    /// The digest after each block.
    digests: BTreeMap<u64, Digest>,
}

/// The result of verifying a store.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The results of the replicas, up to the first violation.
    pub(crate) replicas: Vec<ReplicaReport>,
    /// The first violation. None: no rule is violated.
    pub(crate) violation: Option<String>,
}

/// The result of one replica.
#[derive(Debug)]
pub(crate) struct ReplicaReport {
    /// The replica's id.
    pub(crate) id: u64,
    /// The number of orders.
    pub(crate) orders: u64,
    /// The number of refusals.
    pub(crate) refusals: u64,
    /// The index of the last entry read.
    pub(crate) as_of: u64,
    /// The digest up to that entry.
    pub(crate) digest: String,
}

impl std::fmt::Display for ReplicaReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, orders, refusals, as_of, digest } = self;
        write!(
            f,
            "order {id}: {orders} orders, {refusals} refusals, as of {as_of}, digest {digest}"
        )
    }
}

/// The verdict on a store without a violation.
pub(crate) const IDENTICAL: &str = "identical: the same digest at the same index, numbers dense, \
                                    keys unique, stock conserved";

/// `oppidum verify`: true when no rule is violated.
pub(crate) async fn verify(url: &str) -> Result<bool, Stop> {
    let Verdict { replicas, violation } = judge(url).await?;
    for replica in &replicas {
        answer!("{replica}");
    }
    answer!("{}", violation.as_deref().unwrap_or(IDENTICAL));
    Ok(violation.is_none())
}

/// How long `verify` waits for a replica that lags.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);

/// The pause between two looks at a replica that lags.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Reads every replica's whole history and compares them up to an index that all must reach: the
/// newest index that any replica had applied at the beginning.
pub(crate) async fn judge(url: &str) -> Result<Verdict, Stop> {
    let store = fetch(url).await?;
    let mut histories = Vec::new();
    let mut replicas = Vec::new();
    let orders = || store.processes.iter().filter(|process| process.role == "order");
    let newest = orders().filter_map(|replica| replica.applied_index).max().unwrap_or(0);
    let until = Instant::now() + CATCH_UP_MAX;
    for replica in orders() {
        let id = replica.id.unwrap_or(0);
        if let Some(stands) = lags(replica, newest, until).await {
            let violation = format!(
                "VIOLATION: order {id} lags: it stands at entry {stands}, another one at {newest}, \
                 and it did not catch up within {CATCH_UP_MAX:?}"
            );
            return Ok(Verdict { replicas, violation: Some(violation) });
        }
        match history(id, &replica.address).await? {
            Ok(history) => {
                let HistoryHead { applied_index: as_of, .. } = history.head;
                let Summary { orders, refusals, .. } = history.summary;
                let digest = history.summary.digest.to_string();
                replicas.push(ReplicaReport { id, orders, refusals, as_of, digest });
                histories.push(history);
            }
            Err(violation) => {
                let violation = Some(format!("order {id}: VIOLATION: {violation}"));
                return Ok(Verdict { replicas, violation });
            }
        }
    }
    if histories.is_empty() {
        return Err(Stop::Setup(format!("{url} knows no replicas")));
    }
    let voters = membership::voters(&store);
    let unread = voters.iter().find(|id| histories.iter().all(|history| history.id != **id));
    let unread =
        unread.map(|id| format!("replica {id} votes, and {url} does not know where it is"));
    let why = unread.or_else(|| disagreement(&histories, newest));
    Ok(Verdict { replicas, violation: why.map(|why| format!("VIOLATION: {why}")) })
}

/// Waits until a replica has applied entry `newest`. Returns its index if it does not in time.
async fn lags(replica: &ProcessStatus, newest: u64, until: Instant) -> Option<u64> {
    let route = internal_plane::to_replica(replica.id).ok()?;
    let mut stands = replica.applied_index.unwrap_or(0);
    // A replica that cannot be reached is not waited for: reading its history says why.
    while stands < newest && replica.error.is_none() {
        if until <= Instant::now() {
            return Some(stands);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        let now = wire::status::fetch(&route, &replica.address, CONNECT_TIMEOUT).await;
        stands = now.map_or(stands, |now| now.applied_index.unwrap_or(stands));
    }
    None
}

/// Reads a replica's history from its first block. The outer error: the replica cannot be reached.
async fn history(id: u64, address: &str) -> Result<Result<History, String>, Stop> {
    let mut audit = Audit::new();
    let head = block_stream::read((id, address), None, |block| audit.read(block)).await?;
    Ok(audit.finish(id, head))
}

/// A replica's history while it is read, block by block.
struct Audit {
    auditor: Auditor,
    digests: BTreeMap<u64, Digest>,
    wrong: Option<Violation>,
}

impl Audit {
    fn new() -> Self {
        let auditor = Auditor::new(Windows::default());
        Self { auditor, digests: BTreeMap::new(), wrong: None }
    }

    fn read(&mut self, block: &Block) {
        if self.wrong.is_none() {
            self.wrong = self.auditor.read(block).err();
            self.digests.insert(block.header.index.0, block.header.digest);
        }
    }

    /// The whole history, compared with the state that the replica reports. The error is a
    /// violation.
    fn finish(self, id: u64, head: HistoryHead) -> Result<History, String> {
        let Self { auditor, digests, wrong } = self;
        if let Some(violation) = wrong {
            return Err(violation.to_string());
        }
        let stocks = head.products.iter().map(|product| (product.name.clone(), product.stock));
        let summary = auditor.finish(stocks).map_err(|violation| violation.to_string())?;
        let next = summary.next_order_number.map_or(0, |number| number.0);
        if next != head.next_order_number || summary.digest.0[..] != head.digest[..] {
            return Err(format!(
                "its history ends before order {next} with digest {}, its state says order {}",
                summary.digest, head.next_order_number
            ));
        }
        Ok(History { id, head, summary, digests })
    }
}

/// The first difference between two replicas, up to the last index that all of them have reached;
/// that index must not be before `newest`.
fn disagreement(histories: &[History], newest: u64) -> Option<String> {
    let first = histories.first()?;
    let common = histories.iter().map(|history| history.head.applied_index).min()?;
    if let Some(behind) = histories.iter().find(|h| h.head.applied_index < newest) {
        let History { id, head, .. } = behind;
        let stands = head.applied_index;
        return Some(format!("order {id} lags: it stands at entry {stands}, another at {newest}"));
    }
    for other in histories.get(1..)? {
        if first.head.ledger_id != other.head.ledger_id {
            return Some(format!("replicas {} and {} keep different ledgers", first.id, other.id));
        }
        let mut here = first.digests.range(..=common);
        let mut there = other.digests.range(..=common);
        loop {
            let differ = match (here.next(), there.next()) {
                (None, None) => break,
                (Some(one), Some(two)) if one == two => continue,
                (Some((index, one)), Some((at, two))) if index == at => {
                    format!("differ at index {index}: {one}, {two}")
                }
                (one, two) => {
                    let index = one.into_iter().chain(two).map(|(index, _)| *index).min();
                    let index = index.unwrap_or(common);
                    format!("differ: only one of them has a block of entry {index}")
                }
            };
            return Some(format!("agreement: replicas {} and {} {differ}", first.id, other.id));
        }
    }
    None
}

/// `oppidum dump`: a replica's orders in the stock bazaar's shape.
pub(crate) async fn dump(url: &str, id: u64) -> Result<(), Stop> {
    let store = fetch(url).await?;
    let replica = store.processes.iter().find(|process| process.id == Some(id));
    let Some(replica) = replica else {
        let ids = store.processes.iter().filter_map(|p| p.id).map(|id| id.to_string());
        let ids = ids.collect::<Vec<_>>().join(", ");
        return Err(Stop::Setup(format!("there is no replica {id}: there are {ids}")));
    };
    let mut orders = Vec::new();
    let mut series = Vec::new();
    let head = block_stream::read((id, &replica.address), None, |block| {
        series.extend(block.records.iter().filter_map(new_series));
        for order in block.orders() {
            let Some(line) = order.lines.first() else { continue };
            let side = match line.side {
                Side::Buy => "buy",
                Side::Sell => "sell",
            };
            let name = line.name.as_str();
            let quantity = line.quantity.get();
            let principal = match order.principal.as_str() {
                "" => String::new(),
                name => format!(",\n      \"principal\": {}", json!(name)),
            };
            orders.push(format!(
                "    \"{}\": {{\n      \"name\": {},\n      \"quantity\": {quantity},\n      \
                 \"type\": \"{side}\"{principal}\n    }}",
                order.number.0,
                json!(name)
            ));
        }
    })
    .await?;
    let next = head.next_order_number;
    // Only a history with a second series has this line.
    let series = match &series[..] {
        [] => String::new(),
        series => format!("\n  \"newSeries\": {},", json!(series)),
    };
    if orders.is_empty() {
        answer!("{{\n  \"nextID\": {next},{series}\n  \"ledger\": {{}}\n}}");
    } else {
        let orders = orders.join(",\n");
        answer!("{{\n  \"nextID\": {next},{series}\n  \"ledger\": {{\n{orders}\n  }}\n}}");
    }
    Ok(())
}

/// The first number of a new series of order numbers, if a record begins one.
fn new_series(record: &Record) -> Option<u64> {
    match (&record.request.command, &record.outcome) {
        (Command::Reopen { next_number }, Outcome::Accepted(Accepted::Done)) => Some(next_number.0),
        _ => None,
    }
}
