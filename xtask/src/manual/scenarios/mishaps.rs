//! Failures that need no command but a start: a frozen replica, a power cut, a dead catalog, a dead
//! frontend. The table of "When something breaks" says how each of them shows.

use anyhow::{Result, ensure};

use crate::manual::scenarios::terminals::Terminals;
use crate::manual::stage::Stage;

pub(crate) fn play(stage: &Stage<'_>) -> Result<()> {
    let mut store = Terminals::open(stage.host("mishaps")?, "")?;
    store.host.order(10)?;
    frozen(stage, &store)?;
    power(stage, &mut store)?;
    stateless(stage, &mut store)?;
    store.host.ok("oppidum verify").map(|_| ())
}

/// A frozen replica: another one leads, `status` shows that it does not answer, and it comes back.
fn frozen(stage: &Stage<'_>, store: &Terminals) -> Result<()> {
    let host = &store.host;
    stage.book.says("operating.md", "`status` shows that it does not answer")?;
    store.replica(456)?.signal("STOP")?;
    let leads = |text: &str| text.starts_with("leader: 345") || text.starts_with("leader: 123");
    let status = host.until("another one leads", "oppidum status", |it| leads(&it.text))?;
    let row = status.lines().find(|line| line.starts_with("order 456")).unwrap_or_default();
    ensure!(row.contains("does not answer"), "status says of the frozen replica {row:?}");
    host.order(5)?;
    store.replica(456)?.signal("CONT")?;
    host.await_store(3)
}

/// A power cut: all processes are started again, in any order, and nothing is lost.
fn power(stage: &Stage<'_>, store: &mut Terminals) -> Result<()> {
    stage.book.says("operating.md", "start them again, in any order")?;
    let order = r#"curl --fail --json '{"name":"GameStart","quantity":1,"type":"sell"}' \
        http://127.0.0.1:1234/orders"#;
    store.host.ok(order)?;
    for id in [123, 345, 456] {
        store.kill(id)?;
    }
    store.kill_others();
    store.start_others()?;
    for id in [456, 123, 345] {
        store.start(id)?;
    }
    store.host.await_store(3)?;
    store.host.ok("oppidum verify").map(|_| ())
}

/// A dead catalog, then a dead frontend: each is started again, and needs nothing.
fn stateless(stage: &Stage<'_>, store: &mut Terminals) -> Result<()> {
    stage.book.says("operating.md", "start it again; it needs nothing")?;
    let customers = store.host.customers()?;
    store.host.kill("KILL", "oppidum catalog")?;
    store.host.order(5)?;
    customers.go_home()?;
    store.host.kill("KILL", "oppidum frontend")?;
    store.start_others()?;
    store.host.await_store(3)?;
    store.host.order(5)
}
