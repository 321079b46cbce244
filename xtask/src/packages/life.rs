//! The life of an installed package: started as docs/deploy.md says, broken, reloaded, purged.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::machine::Machine;
use super::{VERSION, timed};
use crate::manual::page::Book;

/// The units of the page's store on one host.
const UNITS: [&str; 5] = [
    "oppidum-order@123",
    "oppidum-order@345",
    "oppidum-order@456",
    "oppidum-catalog",
    "oppidum-frontend",
];

/// The highest exposure that `systemd-analyze security` may report for a unit.
const EXPOSURE_MAX: f64 = 1.5;

const ORDER: &str = "curl --fail-with-body --silent --show-error http://127.0.0.1:1234/orders \
    --json '{\"name\":\"GameStart\",\"quantity\":1,\"type\":\"buy\"}'";

/// Follows the whole life.
pub(crate) fn follow(root: &std::path::Path, machine: &Machine) -> Result<()> {
    let book = Book::read(&root.join("docs"), &["deploy.md"])?;
    let block = |heading, place| book.block("deploy.md", heading, place).map(|it| it.text.clone());
    let install = block("From the Debian package", 2)?;
    let start = block("One host", 1)?;
    let certify = block("From plain HTTP to locked", 1)?;
    timed("installed", || installed(machine, &install))?;
    timed("one replica alone is active, and not ready", || alone(machine))?;
    timed("started, as the page says", || started(machine, &start))?;
    timed("every unit is shut in", || shut_in(machine))?;
    timed("the leader is killed", || leader_killed(machine))?;
    timed("a frozen catalog is started again", || frozen(machine))?;
    timed("reloaded", || reloaded(machine))?;
    timed("exit code 2 stays down", || stays_down(machine))?;
    timed("installed again while it runs", || installed_again(machine, &install))?;
    timed("verified", || machine.ok("oppidum verify && oppidum load --quiet").map(|_| ()))?;
    timed("locked, as the page says", || locked(machine, &certify))?;
    timed("purged", || purged(machine))
}

fn installed(machine: &Machine, install: &str) -> Result<()> {
    machine.ok(&format!("cp /share/oppidum.deb oppidum_{VERSION}_amd64.deb; {install}"))?;
    machine.ok("getent passwd oppidum && oppidum --version && oppidum generate /tmp/generated")?;
    machine.ok("test -e /usr/share/man/man1/oppidum-order.1.gz &&
         test -e /usr/share/bash-completion/completions/oppidum")?;
    let said = machine.ok("systemd-analyze verify /usr/lib/systemd/system/oppidum-*.service")?;
    ensure!(!said.contains("oppidum"), "systemd-analyze verify says {said}");
    none_runs(machine)
}

/// READY is the open listener: a start does not wait for the other replicas.
fn alone(machine: &Machine) -> Result<()> {
    machine.ok("systemctl start oppidum-order@123 && systemctl is-active oppidum-order@123")?;
    let (code, text) = machine.run("curl --fail-with-body http://127.0.0.1:1115/readyz")?;
    ensure!(code != 0, "a replica alone is ready: {text}");
    Ok(())
}

fn started(machine: &Machine, start: &str) -> Result<()> {
    machine.ok(start)?;
    whole(machine)?;
    machine.ok(ORDER).map(|_| ())
}

fn shut_in(machine: &Machine) -> Result<()> {
    for unit in UNITS {
        let report = machine.ok(&format!("systemd-analyze security --no-pager {unit}"))?;
        let exposure = exposure(&report)?;
        println!("  {unit}: exposure {exposure}");
        ensure!(exposure <= EXPOSURE_MAX, "{unit}: exposure {exposure}:\n{report}");
    }
    Ok(())
}

/// The figure of the last line of `systemd-analyze security`.
fn exposure(report: &str) -> Result<f64> {
    let last = report.lines().rfind(|line| line.contains("Overall exposure level"));
    let words = last.and_then(|line| line.split_once(": "));
    let figure = words.and_then(|(_, words)| words.split_whitespace().next()?.parse().ok());
    figure.with_context(|| format!("no exposure in {report}"))
}

fn leader_killed(machine: &Machine) -> Result<()> {
    let leader = status(machine)?["leader"].as_u64().context("no replica leads")?;
    let unit = format!("oppidum-order@{leader}");
    let pid = main_pid(machine, &unit)?;
    machine.ok(&format!("kill -KILL {pid}"))?;
    machine.eventually("an order is placed again", ORDER)?;
    restarted(machine, &unit, pid)?;
    whole(machine)
}

fn frozen(machine: &Machine) -> Result<()> {
    let unit = "oppidum-catalog";
    let pid = main_pid(machine, unit)?;
    machine.ok(&format!("kill -STOP {pid}"))?;
    machine.ok(ORDER)?;
    restarted(machine, unit, pid)?;
    let journal = machine.ok(&format!("journalctl --no-pager -u {unit}"))?;
    ensure!(journal.contains("Watchdog timeout"), "the journal says {journal}");
    whole(machine)
}

/// Waits until systemd has started another process of a unit.
fn restarted(machine: &Machine, unit: &str, former: u32) -> Result<()> {
    let other = format!(
        "systemctl is-active {unit} &&
         pid=$(systemctl show --property MainPID --value {unit}) && test $pid != {former}"
    );
    machine.eventually(&format!("{unit} is started again"), &other).map(|_| ())
}

fn reloaded(machine: &Machine) -> Result<()> {
    for unit in UNITS {
        let pid = main_pid(machine, unit)?;
        machine.ok(&format!("systemctl reload {unit}"))?;
        let said = format!("journalctl --no-pager -u {unit} | grep 'SIGHUP: this process has no'");
        machine.eventually("SIGHUP is noticed", &said)?;
        ensure!(main_pid(machine, unit)? == pid, "a reload has restarted {unit}");
    }
    machine.ok(ORDER).map(|_| ())
}

fn stays_down(machine: &Machine) -> Result<()> {
    let unit = "oppidum-order@123";
    let own = "/etc/oppidum/order-123.env";
    machine.ok(&format!("echo OPPIDUM_CASHE=7 > {own}"))?;
    let (code, text) = machine.run(&format!("systemctl restart {unit}"))?;
    ensure!(code != 0, "it has started with a misspelt setting: {text}");
    let show = "systemctl show --property ActiveState,ExecMainStatus,NRestarts";
    // RestartSec is 1 s: after three, systemd would have tried again.
    let after = machine.ok(&format!("sleep 3; {show} {unit}"))?;
    for line in ["ActiveState=failed", "ExecMainStatus=2", "NRestarts=0"] {
        ensure!(after.lines().any(|said| said == line), "no {line} in {after}");
    }
    let journal = machine.ok(&format!("journalctl --no-pager -u {unit}"))?;
    ensure!(journal.contains("did you mean OPPIDUM_CACHE?"), "the journal says {journal}");
    machine.ok(&format!("rm {own}; systemctl start {unit}"))?;
    whole(machine)
}

/// An upgrade restarts nothing: the operator does so, one replica at a time.
fn installed_again(machine: &Machine, install: &str) -> Result<()> {
    let pids = || UNITS.iter().map(|unit| main_pid(machine, unit)).collect::<Result<Vec<u32>>>();
    let before = pids()?;
    machine.ok("echo '# Mine.' >> /etc/oppidum/oppidum.env")?;
    machine.ok(install)?;
    ensure!(pids()? == before, "an installation has restarted a process");
    machine.ok("grep Mine /etc/oppidum/oppidum.env").map(|_| ())
}

/// The certificates are read in the folder of the page, also again.
fn locked(machine: &Machine, certify: &str) -> Result<()> {
    machine.ok(certify)?;
    for unit in UNITS {
        machine.ok(&format!("systemctl reload {unit}"))?;
        let said = format!("journalctl --no-pager -u {unit} | grep 'tls is in use already'");
        machine.eventually("the certificate is read again", &said)?;
    }
    machine.ok("OPPIDUM_TLS=ca oppidum verify").map(|_| ())
}

fn purged(machine: &Machine) -> Result<()> {
    machine.ok("dpkg --purge oppidum")?;
    none_runs(machine)?;
    // A link to a unit that is gone is there, and yet does not exist for `-e`.
    machine.ok("test ! -e /usr/bin/oppidum && test ! -e /etc/oppidum/oppidum.env &&
         test ! -e /usr/lib/systemd/system/oppidum-catalog.service &&
         test -z \"$(find /etc/systemd/system -name 'oppidum*')\" &&
         test -d /var/lib/oppidum/order-123")?;
    Ok(())
}

fn none_runs(machine: &Machine) -> Result<()> {
    let (code, running) = machine.run("pgrep --list-full --exact oppidum")?;
    ensure!(code == 1, "there runs {running}");
    Ok(())
}

fn status(machine: &Machine) -> Result<Value> {
    let (_, text) = machine.run("oppidum status --json")?;
    serde_json::from_str(&text).with_context(|| format!("oppidum status says {text}"))
}

/// Waits until every replica is ready, so that another one may be stopped.
fn whole(machine: &Machine) -> Result<()> {
    let ready =
        "for port in 1115 1116 1117; do curl --fail --silent http://127.0.0.1:$port/readyz; done
        curl --fail --silent http://127.0.0.1:1234/readyz";
    machine.eventually("every replica is ready", ready).map(|_| ())
}

fn main_pid(machine: &Machine, unit: &str) -> Result<u32> {
    let text = machine.ok(&format!("systemctl show --property MainPID --value {unit}"))?;
    match text.trim().parse() {
        Ok(0) | Err(_) => bail!("{unit} has no process: {text}"),
        Ok(pid) => Ok(pid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposure_is_the_figure_of_the_last_line() {
        let report = "  NAME DESCRIPTION EXPOSURE\n\n\
                      → Overall exposure level for oppidum-catalog.service: 1.1 OK 🙂\n";
        assert!((exposure(report).unwrap() - 1.1).abs() < f64::EPSILON);
        assert!(exposure("Overall exposure level for a: none\n").is_err());
    }
}
