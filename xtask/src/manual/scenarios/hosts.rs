//! Three hosts, each with a root and an address of its own: with units, and by hand.

use anyhow::{Context, Result, ensure};

use crate::manual::sandbox::{CHECKOUT, Host};
use crate::manual::scenarios::deploy::install;
use crate::manual::stage::Stage;

/// The replica and the address of each host.
const OWN: [(&str, &str); 3] = [("123", "10.0.0.1"), ("345", "10.0.0.2"), ("456", "10.0.0.3")];

/// `docs/deploy.md`, Three hosts: an order placed at one is seen at all; a host falls silent.
pub(crate) fn deployed(stage: &Stage<'_>) -> Result<()> {
    let hosts = stage.three_hosts("hosts")?;
    let settings = stage.deploy("Three hosts", 1)?;
    let begin = stage.deploy("Three hosts", 2)?;
    for (host, (id, address)) in hosts.iter().zip(OWN) {
        install(stage, host)?;
        for line in settings.lines() {
            let name = line.split('=').next().unwrap_or_default();
            host.ok(&format!("sed -i 's|^{name}=.*|{line}|' /etc/oppidum/oppidum.env"))?;
            host.ok(&format!("grep -qx '{line}' /etc/oppidum/oppidum.env"))?;
        }
        let own = begin.with(&[("10.0.0.1", address), ("@123", &format!("@{id}"))])?;
        host.ok(&own)?;
    }
    everybody_sees(&hosts)?;
    silent(&hosts)?;
    upgraded(stage, &hosts)
}

/// Upgrading: every process is restarted from another file while customers order.
fn upgraded(stage: &Stage<'_>, hosts: &[Host; 3]) -> Result<()> {
    hosts[0].let_456_lead()?;
    let customers = hosts[0].customers()?;
    for host in hosts {
        let built = host.at(&format!("{CHECKOUT}/target/fast"));
        built.follow(stage.deploy("Upgrading", 1)?)?;
    }
    let block = stage.deploy("Upgrading", 2)?;
    for line in block.lines() {
        // A unit is restarted on its own host; a question may be asked on any host.
        let own = OWN.iter().position(|(id, _)| line.contains(&format!("@{id}")));
        hosts[own.unwrap_or(1)].ok(line).with_context(|| format!("{block}: {line}"))?;
    }
    for host in hosts {
        host.follow(stage.deploy("Upgrading", 3)?)?;
    }
    customers.go_home()
}

/// An order that is placed at one host is there at all of them.
fn everybody_sees(hosts: &[Host; 3]) -> Result<()> {
    for host in hosts {
        host.await_store(3)?;
    }
    let order = r#"{"name":"GameStart","quantity":1,"type":"buy"}"#;
    let placed =
        hosts[0].ok(&format!("curl --fail --json '{order}' http://127.0.0.1:1234/orders"))?;
    for host in hosts {
        let found = host.ok("curl --fail http://127.0.0.1:1234/orders/0")?;
        ensure!(found.contains("GameStart"), "{placed} was placed, and another host has {found}");
        host.ok("oppidum verify")?;
        host.ok("curl --fail http://127.0.0.1:1234/readyz")?;
    }
    Ok(())
}

/// A host falls silent while customers order at another one; it comes back by itself.
fn silent(hosts: &[Host; 3]) -> Result<()> {
    let [first, _, third] = hosts;
    let customers = first.customers()?;
    third.set_link("down")?;
    first.until("another replica leads", "oppidum status --json", |printed| {
        printed.text.starts_with("{\"leader\":345") || printed.text.starts_with("{\"leader\":123")
    })?;
    third.set_link("up")?;
    first.await_store(3)?;
    customers.go_home()?;
    first.ok("oppidum verify").map(|_| ())
}

/// `docs/operating.md`, On several machines: every process by hand.
pub(crate) fn by_hand(stage: &Stage<'_>) -> Result<()> {
    let hosts = stage.three_hosts("hand")?;
    let hosts = {
        let [one, two, three] = hosts;
        [one.with_program()?, two.with_program()?, three.with_program()?]
    };
    let block = stage.operating("On several machines", 1)?;
    block.has_lines(4)?;
    let list = block.line_with("REPLICAS=")?;
    let replica = block.line_with("oppidum order")?;
    let catalog = block.line_with("oppidum catalog")?;
    let frontend = block.line_with("oppidum frontend")?;
    let mut running = Vec::new();
    for (host, (id, address)) in hosts.iter().zip(OWN) {
        host.ok("cp /src/shops/stock.toml my-shop.toml")?;
        let own = replica.replace("--id 123", &format!("--id {id}"));
        let own = own.replace("--listen 10.0.0.1", &format!("--listen {address}"));
        running.push(host.start(id, &format!("{list}\nexec {own}"))?);
    }
    for (host, (_, address)) in hosts.iter().zip(OWN).take(2) {
        let own = catalog.replace("10.0.0.1", address);
        running.push(host.start("catalog", &format!("{list}\nexec {own}"))?);
    }
    for host in &hosts {
        running.push(host.start("frontend", &format!("{list}\nexec {frontend}"))?);
    }
    everybody_sees(&hosts)?;
    // Frontends first, then catalogs, then replicas.
    while let Some(process) = running.pop() {
        process.stop()?;
    }
    Ok(())
}
