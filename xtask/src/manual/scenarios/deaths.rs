//! Replicas that die: two of three, and one that stays away for long.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::manual::sandbox::Printed;
use crate::manual::scenarios::terminals::Terminals;
use crate::manual::stage::{Stage, Status, same};

/// The number of orders in one request: the most that it may have.
const ORDERS_IN_BATCH: usize = 1_000;

/// The padding of each order's key, in bytes.
const KEY_PADDING: usize = 200;

/// The number of such requests that the replica misses.
const BATCHES: u64 = 30;

/// Two of three replicas died: which requests are answered until one of them is back.
pub(crate) fn two_of_three(stage: &Stage<'_>) -> Result<()> {
    let host = stage.host("two-of-three")?;
    let up = host.start("up", "oppidum up --restart never")?;
    up.until("The store is open")?;
    host.let_456_lead()?;
    host.order(10)?;
    host.kill("KILL", "order --id 123")?;
    host.kill("KILL", "order --id 345")?;

    let order = r#"{"name":"GameStart","quantity":1,"type":"buy"}"#;
    let place = format!("curl -i --json '{order}' http://127.0.0.1:1234/orders");
    let words = "503 no majority of the replicas is reachable: nothing was ordered";
    stage.book.says("operating.md", words)?;
    let refused = host.until("orders are refused", &place, |printed| {
        printed.text.contains("503 Service Unavailable") && printed.text.contains(&words[4..])
    })?;
    ensure!(refused.to_lowercase().contains("retry-after:"), "the answer is {refused}");
    for (path, status, header) in [
        ("orders/0", "200 OK", "x-consistency: stale"),
        ("orders/999999", "503 Service", ""),
        ("stocks/GameStart", "200 OK", "x-consistency: stale"),
    ] {
        let ask = format!("curl -i http://127.0.0.1:1234/{path}");
        let answer = host.ok(&ask)?;
        let told = answer.contains(status) && answer.to_lowercase().contains(header);
        ensure!(told, "the page says {status} {header} for {path}, and the answer is {answer}");
    }
    let verify = host.run("oppidum verify")?;
    ensure!(verify.code == 2, "verify: {verify:?}");
    let ctl = host.run("oppidum ctl product price GameStart 2")?;
    ensure!(ctl.code == 2, "ctl: {ctl:?}");

    let status = stage.operating("Two of three died", 1)?;
    let printed = host.run("oppidum status")?;
    ensure!(printed.code == 1, "status: {printed:?}");
    same(status, &status.lines(), &head(&printed.text, status.lines().len()))?;
    up.signal("INT")?;
    Ok(())
}

/// The first `count` lines of a text that are not empty.
fn head(text: &str, count: usize) -> String {
    let lines = text.lines().filter(|line| !line.trim().is_empty()).take(count);
    lines.collect::<Vec<_>>().join("\n")
}

/// A request with many orders, whose long keys make the history long.
fn orders(batch: u64) -> String {
    let order = |number| {
        let key = format!("{batch}-{number}-{}", "k".repeat(KEY_PADDING));
        format!(r#"{{"name":"GameStart","quantity":1,"type":"sell","key":"{key}"}}"#)
    };
    let orders: Vec<String> = (0..ORDERS_IN_BATCH).map(order).collect();
    format!("{{\"orders\":[{}]}}", orders.join(","))
}

/// A replica was away for long: it returns by blocks and reports its progress.
pub(crate) fn away_for_long(stage: &Stage<'_>) -> Result<()> {
    // This store compacts its log after a few entries, so that a short absence is a long one.
    let mut store = Terminals::open(stage.host("away")?, "--fault log-kept=20")?;
    let host = store.host.clone();
    store.stop(123)?;
    // Without an API key a batch waits for the rate of its address.
    let curl = "curl --fail --retry 9";
    let batch = format!("{curl} --json @/tmp/batch.json http://127.0.0.1:1234/v1/orders/batch");
    for number in 0..BATCHES {
        std::fs::write(host.path("/tmp/batch.json"), orders(number))?;
        host.ok(&batch)?;
    }
    // The log is compacted while entries arrive.
    let shortened = |printed: &Printed| {
        Status::read(printed).number_of(456, "first_index").is_some_and(|first| BATCHES < first)
    };
    let more = "oppidum load --clients 2 --requests 60 -p 1 --quiet > /dev/null";
    let more = format!("{more} && oppidum status --json");
    host.until("the log is shortened", &more, shortened)?;
    store.start(123)?;
    // Slowed down, the replica reports its progress even on a fast machine.
    store.replica(123)?.slowed_until("orders behind", Duration::from_millis(90))?;
    host.await_store(3)?;
    let block = stage.operating("A replica was away for long", 1)?;
    let printed = store.replica(123)?.printed()?;
    // The speed is reported every 2 s: only by a return that takes longer.
    let often = printed.contains("per second, about");
    let lines = block.lines().into_iter().filter(|line| often || !line.contains("about"));
    // One task reports the progress, another the steps.
    store.replica(123)?.says_apart(0, &lines.collect::<Vec<_>>(), "orders behind")?;
    host.ok("oppidum verify").map(|_| ())
}
