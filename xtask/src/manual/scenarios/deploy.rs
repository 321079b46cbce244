//! `docs/deploy.md` on one host: installing, starting, upgrading, copying.

use anyhow::{Result, ensure};

use crate::manual::sandbox::{CHECKOUT, Host};
use crate::manual::stage::Stage;

/// Installs the program and the units, as the page says.
pub(crate) fn install(stage: &Stage<'_>, host: &Host) -> Result<()> {
    host.at(CHECKOUT).follow(stage.deploy("The program", 2)?).map(|_| ())
}

/// A host with a store that is open, each process a unit.
fn open(stage: &Stage<'_>, name: &str) -> Result<Host> {
    let host = stage.empty_host(name)?;
    install(stage, &host)?;
    host.follow_by_line(stage.deploy("One host", 1)?)?;
    Ok(host)
}

/// One host: started, upgraded while customers order, a replica that listens elsewhere.
pub(crate) fn one_host(stage: &Stage<'_>) -> Result<()> {
    let host = open(stage, "one-host")?;
    exit_codes(&host)?;
    host.let_456_lead()?;
    let customers = host.customers()?;
    host.at(&format!("{CHECKOUT}/target/fast")).follow_by_line(stage.deploy("Upgrading", 1)?)?;
    customers.go_home()?;
    elsewhere(stage, &host)
}

/// The page on units: exit code 1 is started again, 2 is not, and the last line says why.
fn exit_codes(host: &Host) -> Result<()> {
    host.kill("KILL", "order --id 123")?;
    host.await_store(3)?;
    host.ok("mkdir -p /tmp/own; cp /etc/oppidum/oppidum.env /tmp/own")?;
    host.ok("echo OPPIDUM_CASHE=7 >> /etc/oppidum/oppidum.env; systemctl stop oppidum-order@123")?;
    host.ok("systemctl start oppidum-order@123")?;
    let said = "journalctl -u oppidum-order@123";
    let stays_down = "ended with exit code 2";
    let text = host.until("it stays down", said, |printed| printed.text.contains(stays_down))?;
    ensure!(text.contains("did you mean OPPIDUM_CACHE?"), "its journal says {text}");
    host.ok("cp /tmp/own/oppidum.env /etc/oppidum; systemctl start oppidum-order@123")?;
    host.await_store(3)
}

/// Addresses: a replica that listens elsewhere than the others reach it.
fn elsewhere(stage: &Stage<'_>, host: &Host) -> Result<()> {
    let setting = "OPPIDUM_LISTEN=0.0.0.0:1115";
    stage
        .book
        .says("deploy.md", &format!("write `{setting}` into `/etc/oppidum/order-123.env`"))?;
    host.ok(&format!("echo {setting} > /etc/oppidum/order-123.env"))?;
    host.ok("systemctl restart oppidum-order@123")?;
    host.await_store(3)?;
    host.order(5)?;
    host.ok("oppidum verify").map(|_| ())
}

/// Backup: a copy of a stopped replica, and what it is good for.
pub(crate) fn backup(stage: &Stage<'_>) -> Result<()> {
    let host = open(stage, "backup")?;
    host.let_456_lead()?;
    host.order(20)?;
    host.ok("mkdir /backup")?;
    host.follow(stage.deploy("Backup", 1)?)?;
    host.await_store(3)?;
    host.order(20)?;
    host.ok("rm -rf /var/lib/oppidum/order-123")?;
    host.follow_by_line(stage.deploy("Backup", 2)?)?;
    host.await_store(3)?;
    host.order(5)
}
