//! Disks that are full, and disks that fail to sync.

use std::fs;

use anyhow::{Context, Result, bail, ensure};

use crate::manual::compare;
use crate::manual::sandbox::{Host, eventually};
use crate::manual::scenarios::terminals::Terminals;
use crate::manual::stage::{Stage, ends_with};

/// A library that makes one sync fail: that of the first file whose path contains the words in the
/// file that `FAIL_SYNC` names.
const FAILING_SYNC: &str = include_str!("../../../../crates/oppidum/tests/e2e/failing_sync.c");

/// The command that places an order, and shows its answer.
const PLACE: &str = "curl -i --json '{\"name\":\"GameStart\",\"quantity\":1,\"type\":\"sell\"}' \
                     http://127.0.0.1:1234/orders";

/// The free kilobytes of such a disk when its reserve, a tenth, has been begun, and when half of
/// the reserve is used.
const IN_THE_RESERVE: u32 = 1_900;
const BELOW_ITS_HALF: u32 = 500;

/// A store whose replicas have a disk of 24 MB each.
fn small(host: Host, flags: &str) -> Result<Terminals> {
    for id in [123, 345, 456] {
        host.mount_disk(&format!("/srv/oppidum-data/order-{id}"), 24)?;
    }
    Terminals::open(host, flags)
}

/// Fills a disk, as another program would, until `left` kilobytes are free.
fn fill(host: &Host, id: u64, left: u32) -> Result<()> {
    let folder = format!("oppidum-data/order-{id}");
    host.ok(&format!(
        "free=$(df --output=avail -k {folder} | tail -n 1)
         head -c $(( (free - {left}) * 1024 )) /dev/zero >> {folder}/of-another || true"
    ))
    .map(|_| ())
}

fn clear(host: &Host, id: u64) -> Result<()> {
    host.ok(&format!("rm oppidum-data/order-{id}/of-another")).map(|_| ())
}

/// A full disk: that of the leader, those of a majority, and a disk without a free byte.
pub(crate) fn full(stage: &Stage<'_>) -> Result<()> {
    let heading = "A disk is full";
    let store = small(stage.host("disk-full")?, "")?;
    let host = store.host.clone();
    let mark = store.replica(456)?.mark()?;
    let customers = host.customers()?;
    fill(&host, 456, IN_THE_RESERVE)?;
    store.replica(456)?.says(mark, stage.operating(heading, 1)?)?;
    host.until("it hands over", "oppidum status", |it| it.text.starts_with("leader: 345"))?;
    customers.go_home()?;
    let status = host.ok("oppidum status")?;
    ensure!(status.contains("order 456: its disk is full"), "status says nothing of it: {status}");

    let mark = store.replica(123)?.mark()?;
    fill(&host, 123, BELOW_ITS_HALF)?;
    store.replica(123)?.says(mark, stage.operating(heading, 2)?)?;
    let words = "the disks of replicas 123, 456 are full: nothing was ordered";
    stage.book.says("operating.md", &format!("503 {words}"))?;
    let refused = host.until("orders are refused", PLACE, |it| it.text.contains("503 Service"))?;
    ensure!(refused.contains(words), "the refusal is {refused}");
    ensure!(refused.to_lowercase().contains("retry-after:"), "the refusal is {refused}");
    host.ok("curl --fail http://127.0.0.1:1234/orders/0")?;
    host.ok("curl --fail http://127.0.0.1:1234/stocks/GameStart")?;
    clear(&host, 123)?;
    clear(&host, 456)?;
    host.until("orders are taken", PLACE, |it| it.text.contains("200 OK"))?;
    host.await_store(3)?;
    host.ok("oppidum verify")?;
    drop(store);
    to_the_end(stage)
}

/// If another program takes the reserve as well, the log meets the end of the disk.
fn to_the_end(stage: &Stage<'_>) -> Result<()> {
    let block = stage.operating("A disk is full", 3)?;
    let or = "the replica cannot go on in …/order-123: cannot write …: No space left on device …";
    stage.book.says("operating.md", or)?;
    let mut store = small(stage.host("disk-ends")?, "--reserve-mb 0")?;
    let host = store.host.clone();
    let mark = store.replica(345)?.mark()?;
    fill(&host, 345, 0)?;
    let stopped = || {
        host.ok(PLACE)?;
        Ok(store.replica(345)?.printed()?[mark..].contains("oppidum: ").then_some(()))
    };
    eventually(stopped).context("345 meets the end of its disk")?;
    let ended = store.end_of(345)?;
    let last = ended.text.lines().last().unwrap_or_default();
    ensure!(ended.code == 1, "it ended with {ended:?}");
    let other = format!("oppidum: {or}").replace("order-123", "order-345");
    if !block.lines().iter().any(|line| compare::same(line, last)) && !compare::same(&other, last) {
        bail!("{block}: neither this line nor the one below it is\n  {last}");
    }
    store.refuses_for_want_of_room(345)?;
    clear(&host, 345)?;
    store.start(345)?;
    host.await_store(3)?;
    host.ok("oppidum verify").map(|_| ())
}

impl Terminals {
    /// A replica that is started without free space stops again.
    fn refuses_for_want_of_room(&mut self, id: u64) -> Result<()> {
        self.start(id)?;
        // The space that the replica freed at its stop is taken as well.
        let stopped = || {
            fill(&self.host, id, 0)?;
            self.host.ok(PLACE)?;
            Ok(self.replica(id)?.printed()?.contains("oppidum: ").then_some(()))
        };
        eventually(stopped).context("without room it stops again")?;
        let ended = self.end_of(id)?;
        ensure!(ended.code == 1, "without room it ended with {ended:?}");
        Ok(())
    }
}

/// A failed sync: the replica trusts nothing that it has written, and stops.
pub(crate) fn sync_fails(stage: &Stage<'_>) -> Result<()> {
    let host = stage.host("sync-fails")?;
    fs::write(host.path("/srv/failing.c"), FAILING_SYNC).context("write a library")?;
    host.ok("cc -shared -fPIC -O1 -o failing.so failing.c -ldl")?;
    let mut store = Terminals::open(host, "")?;
    let host = store.host.clone();
    store.stop(123)?;
    let failing = "env LD_PRELOAD=/srv/failing.so FAIL_SYNC=/srv/fail-sync oppidum order --id 123";
    store.start_as(123, failing)?;
    host.await_store(3)?;
    let block = stage.operating("A sync failed", 1)?;
    fs::write(host.path("/srv/fail-sync"), "order-123/history").context("let a sync fail")?;
    let stopped = || {
        host.ok(PLACE)?;
        Ok(store.replica(123)?.printed()?.contains("oppidum: ").then_some(()))
    };
    eventually(stopped).context("123 stops")?;
    let ended = store.end_of(123)?;
    ends_with(block, 1, block.line_with("oppidum: ")?, &ended)?;
    store.start(123)?;
    host.await_store(3)?;
    host.ok("oppidum verify").map(|_| ())
}
