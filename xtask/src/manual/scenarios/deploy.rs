//! `docs/deploy.md` on one host: installing, starting, upgrading, copying.

use anyhow::{Result, ensure};

use crate::manual::sandbox::{CHECKOUT, Host};
use crate::manual::stage::{Stage, same};

/// Installs the program and the units, as the page says.
pub(crate) fn install(stage: &Stage<'_>, host: &Host) -> Result<()> {
    host.at(CHECKOUT).follow(stage.deploy("The program", 2)?).map(|_| ())
}

/// A host with an open store, each process a unit.
fn open(stage: &Stage<'_>, name: &str) -> Result<Host> {
    let host = stage.empty_host(name)?;
    install(stage, &host)?;
    host.follow(stage.deploy("One host", 1)?)?;
    Ok(host)
}

/// One host: its start, a replica that listens elsewhere, and a replica that moves.
pub(crate) fn one_host(stage: &Stage<'_>) -> Result<()> {
    let host = open(stage, "one-host")?;
    exit_codes(&host)?;
    elsewhere(stage, &host)?;
    moved(stage, &host)
}

/// From plain HTTP to locked: nothing is reached without a certificate or an API key any more.
pub(crate) fn locked(stage: &Stage<'_>) -> Result<()> {
    let host = open(stage, "locked")?;
    host.await_store(3)?;
    host.order(5)?;
    host.follow(stage.deploy("From plain HTTP to locked", 1)?)?;
    let product = "http://127.0.0.1:1234/stocks/GameStart";
    host.ok(&format!("curl --fail {product}"))?;
    host.follow(stage.deploy("From plain HTTP to locked", 2)?)?;
    let closed = host.run(&format!("curl --include {product}"))?.text;
    ensure!(closed.contains("401 Unauthorized"), "a query without an API key got {closed}");
    let plain = host.run("oppidum status")?;
    ensure!(plain.code == 2 && plain.text.contains("--tls DIR"), "the status: {}", plain.text);
    let dialed = host.run("curl http://127.0.0.1:1115/status")?.text;
    ensure!(dialed.contains("this port speaks TLS"), "a replica told {dialed}");
    host.ok("OPPIDUM_TLS=ca oppidum verify").map(|_| ())
}

/// Exit codes: a unit that ends with 1 is restarted, with 2 it is not, and the last line says why.
fn exit_codes(host: &Host) -> Result<()> {
    host.kill("KILL", "order --id 123")?;
    host.await_store(3)?;
    host.ok("mkdir -p /tmp/own; cp /etc/oppidum/oppidum.env /tmp/own")?;
    host.ok("echo OPPIDUM_CASHE=7 >> /etc/oppidum/oppidum.env; systemctl stop oppidum-order@123")?;
    // It ends before it is ready, which is what systemctl says, too.
    host.run("systemctl start oppidum-order@123")?;
    let said = "journalctl -u oppidum-order@123";
    let stays_down = "ended with exit code 2";
    let text = host.until("it stays down", said, |printed| printed.text.contains(stays_down))?;
    ensure!(text.contains("did you mean OPPIDUM_CACHE?"), "its journal says {text}");
    host.ok("cp /tmp/own/oppidum.env /etc/oppidum; systemctl start oppidum-order@123")?;
    host.await_store(3)
}

/// Addresses: a replica listens on another address than the others reach it at.
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

/// Addresses: a replica moves while customers order.
fn moved(stage: &Stage<'_>, host: &Host) -> Result<()> {
    stage.book.says(
        "deploy.md",
        "change `OPPIDUM_ORDERS` everywhere, then restart all processes one by one, the moved one \
         first",
    )?;
    host.let_456_lead()?;
    let customers = host.customers()?;
    host.ok("sed -i 's/345=127.0.0.1:1116/345=127.0.0.1:1126/' /etc/oppidum/oppidum.env")?;
    for (id, port) in [(345, 1126), (123, 1115), (456, 1117)] {
        host.ok(&format!("systemctl restart oppidum-order@{id}"))?;
        let alive = format!("curl --fail http://127.0.0.1:{port}/livez");
        host.until("it is alive", &alive, |printed| printed.code == 0)?;
    }
    host.ok("systemctl restart oppidum-catalog; systemctl restart oppidum-frontend")?;
    host.await_store(3)?;
    customers.go_home()?;
    let status = host.ok("oppidum verify && oppidum status")?;
    ensure!(status.contains("127.0.0.1:1126"), "345 has not moved: {status}");
    Ok(())
}

/// Backup of a running store, and its restore when all replicas are lost.
pub(crate) fn backup(stage: &Stage<'_>) -> Result<()> {
    let host = open(stage, "backup")?;
    host.let_456_lead()?;
    host.order(20)?;
    host.ok("mkdir /backup; systemctl stop oppidum-order@123")?;
    host.ok("cp -a /var/lib/oppidum/order-123 /backup/copy; systemctl start oppidum-order@123")?;
    host.await_store(3)?;
    let page = stage.operating("Backup", 2)?;
    let printed = host.follow(stage.operating("Backup", 1)?)?;
    // Both followers have applied the same: either is read.
    same(page, &page.lines(), &printed.replace("from replica 345", "from replica 123"))?;
    let listed = host.ok("oppidum ctl backup list --from /backup/shop")?;
    ensure!(listed.lines().count() == 2, "one restore point, and its head: {listed}");
    put_back(stage, &host)?;

    let restore = stage.deploy("Restoring on one host", 1)?;
    let typed = stage.operating("Restoring", 1)?;
    ensure!(restore.lines().contains(&typed.line_with("restore")?), "{restore}: not as {typed}");
    let printed = host.follow_with(restore, "oppidum\n")?;
    let page = stage.operating("Restoring", 2)?;
    let begins = printed.find("Restores to:").unwrap_or_default();
    let count = page.lines().len();
    let printed = printed[begins..].lines().filter(|line| !line.is_empty());
    let printed: Vec<&str> = printed.take(count).collect();
    same(page, &page.lines(), &printed.join("\n"))?;
    host.order(5)?;
    host.follow(stage.deploy("Restoring on one host", 2)?)?;
    host.await_store(3)?;
    host.order(5)?;
    // All of the backup was restored: it goes on.
    host.ok("oppidum ctl backup --to /backup/shop")?;
    host.ok("oppidum ctl backup verify --from /backup/shop && oppidum verify").map(|_| ())
}

/// A copy that is put back under a living store is refused; the replica's own folder is not.
fn put_back(stage: &Stage<'_>, host: &Host) -> Result<()> {
    let page = stage.operating("No copies of data folders", 1)?;
    host.ok("systemctl stop oppidum-order@123")?;
    host.ok("cd /var/lib/oppidum && mv order-123 own && cp -a /backup/copy order-123")?;
    host.run("systemctl start oppidum-order@123")?;
    let stays_down = "ended with exit code 2";
    let journal = "journalctl -u oppidum-order@123";
    let text = host.until("it stays down", journal, |it| it.text.contains(stays_down))?;
    let said = text.lines().rfind(|line| line.starts_with("oppidum: ")).unwrap_or_default();
    // The line names the replica that was reached first, 345 or 456.
    let said = said.replace("replica 345 has met", "replica 456 has met");
    same(page, &page.lines(), &said)?;
    host.ok("cd /var/lib/oppidum && rm -rf order-123 && mv own order-123")?;
    host.ok("systemctl start oppidum-order@123")?;
    host.await_store(3)
}
