//! One machine and `oppidum up`: looking, importing, killing a follower and the leader, a transfer.

use anyhow::{Result, ensure};

use crate::manual::compare;
use crate::manual::page::Block;
use crate::manual::process::Process;
use crate::manual::stage::Stage;

/// The everyday procedures of `docs/operating.md`, one after the other on one store.
pub(crate) fn play(stage: &Stage<'_>) -> Result<()> {
    let host = stage.host("up")?;
    let command = &stage.operating("On one machine", 1)?.text;
    let up = host.start("up", &format!("exec {command}"))?;
    up.until("The store is open")?;
    host.let_456_lead()?;
    host.follow(stage.operating("Importing, and other gateways", 1)?)?;
    host.await_store(3)?;
    host.ask(stage.operating("Looking", 1)?)?;
    host.order(5)?;
    request_line(&up, stage.operating("Looking", 2)?)?;

    // `up` restarts a process that died.
    let mark = up.mark()?;
    host.kill("KILL", "order --id 123")?;
    host.await_store(3)?;
    up.says(mark, stage.operating("A replica died", 1)?)?;

    let mark = up.mark()?;
    host.kill("KILL", "order --id 456")?;
    // One task reports the broken stream, another the refused connect.
    up.says_apart(mark, &stage.operating("The leader died", 1)?.lines(), "456 is down")?;
    host.let_456_lead()?;

    let customers = host.customers()?;
    let heading = "A machine is to be switched off";
    host.follow_and_see(stage.operating(heading, 1)?, stage.operating(heading, 2)?)?;
    customers.go_home()?;
    host.ok("oppidum verify")?;
    up.stop()
}

/// Fails unless a request has the page's line, with another customer and another time.
fn request_line(up: &Process, block: &Block) -> Result<()> {
    let page = block.with(&[("128.119.202.15", "127.0.0.1"), ("26/Apr/2024 22:21:55", "…")])?;
    let printed = up.printed()?;
    let mut lines = printed.lines().filter_map(compare::line_of_up);
    let is_there = lines.any(|(name, said)| name == "frontend" && compare::same(&page, said));
    ensure!(is_there, "{block}: no line of the frontend is like it in\n{printed}");
    Ok(())
}
