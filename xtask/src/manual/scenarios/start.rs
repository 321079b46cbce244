//! Starts that fail: each line of the page, from a process with an impossible setting.

use anyhow::{Result, ensure};

use crate::manual::sandbox::Host;
use crate::manual::stage::{Stage, ends_with};

/// All lines of the block, each with its cause.
pub(crate) fn play(stage: &Stage<'_>) -> Result<()> {
    let host = stage.host("does-not-start")?;
    let block = stage.operating("It does not start", 1)?;
    let mut shown = 0;
    let mut shows = |words: &str, host: &Host, command: &str| -> Result<()> {
        shown += 1;
        ends_with(block, 2, block.line_with(words)?, &host.run(command)?)
    };

    // An open store on the documented ports, in ./oppidum-data.
    let up = host.start("up", "exec oppidum up")?;
    up.until("The store is open")?;
    host.await_store(3)?;
    shows("cannot listen on", &host, "oppidum order --id 456 --data ./elsewhere")?;
    shows("is in use by", &host, "oppidum order --id 456 --listen 127.0.0.1:1999")?;
    waits(&host)?;
    up.stop()?;

    let frontend = host.start("frontend", "exec oppidum frontend")?;
    frontend.until("1234")?;
    let taken = "oppidum status; test $? = 1; oppidum up --data ./elsewhere";
    host.until("the port is taken", "curl http://127.0.0.1:1234/livez", |it| it.code == 0)?;
    shows("port 1234 for frontend-1", &host, taken.rsplit("; ").next().unwrap_or(taken))?;
    frontend.stop()?;

    let other = host.at("/srv/moved");
    host.ok(
        "mkdir -p moved/oppidum-data; cp -a oppidum-data/order-345 moved/oppidum-data/order-123",
    )?;
    shows("belongs to replica", &other, "oppidum order --id 123")?;
    shows("belongs to store", &host, "oppidum order --id 345 --cluster other")?;
    host.ok("rm moved/oppidum-data/order-123/identity.toml")?;
    shows("has no identity.toml", &other, "oppidum order --id 123")?;
    shows("is not one of the store's", &host, "oppidum order --id 7")?;
    shows("which no setting has", &host, "OPPIDUM_CASHE=7 oppidum frontend")?;
    ensure!(shown == block.lines().len(), "{block}: a line that nothing here brings about");

    other_products(stage, &host)
}

/// A frontend and a catalog that reach no replica do start, and wait.
fn waits(host: &Host) -> Result<()> {
    let nobody = "123=127.0.0.1:9";
    let catalog = format!("exec oppidum catalog --orders {nobody} --listen 127.0.0.1:2400");
    let catalog = host.start("catalog", &catalog)?;
    let frontend =
        format!("exec oppidum frontend --orders {nobody} --port 1300 --internal 127.0.0.1:6900");
    let frontend = host.start("frontend", &frontend)?;
    catalog.until("socket is listening")?;
    host.until("it serves", "curl http://127.0.0.1:1300/livez", |it| it.code == 0)?;
    frontend.stop()?;
    catalog.stop()
}

/// A shop file with other products is a warning and no error.
fn other_products(stage: &Stage<'_>, host: &Host) -> Result<()> {
    let words = ["WARNING the shop file (", ") has other products than the shop was opened with"];
    stage.book.says("operating.md", &words.join("…"))?;
    let up = host.start("up", "exec oppidum up --shop toy")?;
    up.until(words[0])?;
    up.until(words[1])?;
    host.await_store(3)?;
    up.stop()
}
