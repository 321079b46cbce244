//! Replicas that join, leave and are lost: members, a lost folder, a lost majority.

use anyhow::{Context, Result, ensure};

use crate::manual::compare;
use crate::manual::page::Block;
use crate::manual::scenarios::terminals::Terminals;
use crate::manual::stage::{Stage, ends_with, same};

/// A line that is printed while a new replica receives the log.
const PROGRESS: &str = "124 lacks 93 entries, 98 orders…";

/// One store, from three replicas over four to one, in the order of the pages.
pub(crate) fn play(stage: &Stage<'_>) -> Result<()> {
    let mut store = Terminals::open(stage.host("lost")?, "")?;
    store.host.order(10)?;
    members(stage, &mut store)?;
    folder(stage, &mut store)?;
    majority(stage, &mut store)
}

/// Follows a block that starts a replica, which runs on, and then types a command; returns the
/// output of that command.
fn join(store: &mut Terminals, id: u64, block: &Block) -> Result<String> {
    block.has_lines(2)?;
    let start = block.line_with("oppidum order")?;
    store.start_as(id, start)?;
    store.replica(id)?.until("waiting to be added")?;
    store.host.ok(block.line_with("oppidum ctl")?).with_context(|| block.to_string())
}

/// Changing the replicas: 567 joins, 456 leaves.
fn members(stage: &Stage<'_>, store: &mut Terminals) -> Result<()> {
    let heading = "Changing the replicas";
    let customers = store.host.customers()?;
    join(store, 567, stage.operating(heading, 3)?)?;
    customers.go_home()?;
    store.host.await_store(4)?;
    store.host.follow_and_see(stage.operating(heading, 1)?, stage.operating(heading, 2)?)?;
    let customers = store.host.customers()?;
    store.host.follow_and_see(stage.operating(heading, 4)?, stage.operating(heading, 5)?)?;
    customers.go_home()?;
    let removed = store.end_of(456)?;
    ensure!(removed.code == 2, "456 ended with {removed:?}");
    let words = "is no replica of this store any more";
    stage.book.says("operating.md", &format!("`… {words}`, exit code 2"))?;
    ensure!(removed.text.contains(words), "456 says {}", removed.text);
    store.host.await_store(3)
}

/// A folder is lost: 123 is refused, 124 takes its place.
fn folder(stage: &Stage<'_>, store: &mut Terminals) -> Result<()> {
    let heading = "A folder is lost";
    store.kill(123)?;
    store.host.ok("rm -rf oppidum-data/order-123")?;
    let refused = stage.operating(heading, 1)?;
    store.refuses(123, refused, 2, refused.line_with("oppidum: ")?)?;
    let printed = join(store, 124, stage.operating(heading, 2)?)?;
    let page = stage.operating(heading, 3)?;
    same(page, &without_progress(page.lines()), &without_progress(printed.lines()).join("\n"))?;
    store.host.await_store(3)?;
    store.host.order(5)?;
    store.host.ok("oppidum verify").map(|_| ())
}

/// The number of progress lines depends on the duration: one on the page, perhaps none here.
fn without_progress<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    lines.into_iter().filter(|line| !compare::same(PROGRESS, line)).collect()
}

/// A majority is lost: the disks of 124 and 345 are gone, and 567 goes on alone.
fn majority(stage: &Stage<'_>, store: &mut Terminals) -> Result<()> {
    let heading = "A majority is lost";
    for id in [124, 345, 567] {
        store.kill(id)?;
    }
    store.host.ok("mkdir lost; mv oppidum-data lost/; mkdir oppidum-data")?;
    store.host.ok("mv lost/oppidum-data/order-567 oppidum-data/")?;
    store.host.follow_and_see(stage.operating(heading, 1)?, stage.operating(heading, 2)?)?;
    let (force, page) = (stage.operating(heading, 3)?, stage.operating(heading, 4)?);
    let unconfirmed = store.host.type_in(&force.text, "no\n")?;
    ensure!(unconfirmed.code == 1, "it was not confirmed: {unconfirmed:?}");
    let printed = store.host.type_in(&force.text, "oppidum\n")?;
    ensure!(printed.code == 0, "{force}: {printed:?}");
    same(page, &page.lines(), &printed.text)?;
    store.start_as(567, "oppidum order --id 567 --orders 567=127.0.0.1:1119")?;
    store.host.await_store(1)?;

    // A lost replica turns up after all.
    let late = stage.operating(heading, 5)?;
    let orders = "345=127.0.0.1:1116,567=127.0.0.1:1119,124=127.0.0.1:1118";
    let old = format!("oppidum order --id 345 --orders {orders} --data lost/oppidum-data");
    store.start_as(345, &old)?;
    ends_with(late, 2, late.line_with("oppidum: ")?, &store.end_of(345)?)?;
    store.host.order(5)?;
    store.host.ok("oppidum verify").map(|_| ())
}
