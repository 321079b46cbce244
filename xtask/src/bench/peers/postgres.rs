//! `PostgreSQL`: three nodes; each commit is on the disks of the primary and one of two standbys.
//!
//! An order is one prepared statement, so one round trip: the least that this job costs there. Row
//! locks are held until the commit is replicated, which makes one hot row expensive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::cluster::{Node, Programs, USER};
use crate::bench::load::Latencies;
use crate::bench::report::Figures;
use crate::bench::rows::side;
use crate::bench::store::{Folder, free_ports};
use crate::bench::turns::{Run, Side, closed_loop};
use crate::bench::{Bench, Times, float, machine, process, ratio};

/// Kept connections, each with one order in flight.
const CLIENTS: usize = 64;

/// How long the clients may take to connect.
const CONNECTING: Duration = Duration::from_secs(2);

/// The shop.
const SHOP: &str = "
    CREATE TABLE products (name text PRIMARY KEY, stock bigint NOT NULL CHECK (0 <= stock));
    CREATE TABLE counter (next bigint NOT NULL);
    CREATE TABLE orders (number bigint PRIMARY KEY, name text NOT NULL, quantity bigint NOT NULL,
                         key uuid NOT NULL UNIQUE);
    INSERT INTO products VALUES ('GameStart', 1000000000000);
    INSERT INTO counter VALUES (0);
";

/// An order takes a piece from the stock, gets the next number, and is remembered under its key.
const ORDER_SQL: &str = "
    WITH taken AS (UPDATE products SET stock = stock - 1
                   WHERE name = 'GameStart' AND 1 <= stock RETURNING name),
         numbered AS (UPDATE counter SET next = next + 1
                      WHERE EXISTS (SELECT FROM taken) RETURNING next - 1 AS number)
    INSERT INTO orders SELECT number, 'GameStart', 1, gen_random_uuid() FROM numbered
    RETURNING number;
";

/// Three nodes with an open shop.
#[derive(Debug)]
struct Cluster {
    programs: Programs,
    nodes: Vec<Node>,
    // Last, so that the folder is removed after the processes that write into it.
    folder: Folder,
}

/// Measures the store and `PostgreSQL` in turns.
pub(crate) fn measure(bench: &mut Bench, programs: Programs) -> Result<Figures> {
    let folder = Folder::new(&process::target(&bench.root).join("bench").join("postgres"))?;
    let cluster = Cluster::start(programs, folder)?;
    let (store, _, times) = bench.both()?;
    let (cpu, other_cpu) = (|| store.cpu(), || cluster.cpu());
    let sides = [
        side("the store", CLIENTS, store, &cpu),
        Side { name: "PostgreSQL", ledger: None, ..side("", CLIENTS, store, &other_cpu) },
    ];
    let mut runs = vec![Vec::new(), Vec::new()];
    for turn in 1..=times.runs {
        for (place, run) in [sides[0].run(times)?, cluster.run(times)?].into_iter().enumerate() {
            println!("run {turn} of {}: {:<28} {run}", times.runs, sides[place].name);
            runs[place].push(run);
        }
    }
    cluster.check()?;
    let mut figures = closed_loop(&runs);
    figures.other_store = Some(cluster.programs.version()?);
    Ok(Figures::ClosedLoop(figures))
}

impl Cluster {
    fn start(programs: Programs, folder: Folder) -> Result<Self> {
        let ports = free_ports(3)?;
        programs.own(&folder.0)?;
        let primary = Node::first(&programs, &folder.0, ports[0])?;
        let mut cluster = Self { programs, nodes: vec![primary], folder };
        cluster.ask(SHOP)?;
        for (name, port) in [("one", ports[1]), ("two", ports[2])] {
            let folder = &cluster.folder.0;
            let standby = Node::standby(&cluster.programs, folder, (name, port), ports[0])?;
            cluster.nodes.push(standby);
        }
        cluster.ask("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (one, two)'")?;
        cluster.ask("SELECT pg_reload_conf()")?;
        let (began, quorum) = (
            Instant::now(),
            "SELECT count(*) FROM pg_stat_replication WHERE \
                                                sync_state = 'quorum'",
        );
        while cluster.ask(quorum)? != "2" {
            if process::READY_MAX < began.elapsed() {
                bail!("the standbys do not follow");
            }
            thread::sleep(Duration::from_millis(50));
        }
        fs::write(cluster.script(), ORDER_SQL).context("write the order's statement")?;
        Ok(cluster)
    }

    fn ask(&self, sql: &str) -> Result<String> {
        self.nodes[0].ask(&self.programs, sql)
    }

    fn script(&self) -> PathBuf {
        self.folder.0.join("order.sql")
    }

    /// The CPU time of all nodes.
    fn cpu(&self) -> Result<Duration> {
        self.nodes.iter().map(|node| machine::cpu_of_family(node.process.pid())).sum()
    }

    /// One run. On a very busy machine, the clients may not have connected when the time is over;
    /// then the run is repeated with more time.
    fn run(&self, times: &Times) -> Result<Run> {
        let once = |factor: u32| self.run_for(times.length + factor * CONNECTING);
        once(1).or_else(|_| once(5)).or_else(|_| once(25))
    }

    /// One run of `pgbench`, the load that comes with `PostgreSQL`.
    fn run_for(&self, length: Duration) -> Result<Run> {
        let logs = self.folder.0.join("latencies");
        // The logs of the last run.
        let _ = fs::remove_dir_all(&logs);
        fs::create_dir_all(&logs).context("make a folder")?;
        self.programs.own(&logs)?;
        // The time of `pgbench` begins before its clients have connected.
        let seconds = length.as_secs().to_string();
        let mut command = self.programs.command("pgbench");
        command.current_dir(&logs).args(["-n", "-M", "prepared", "-l", "-j", "1"]);
        command.args(["-c", &CLIENTS.to_string(), "-T", &seconds, "-f"]).arg(self.script());
        self.nodes[0].reached_by(&mut command);
        let (server, load) = (self.cpu()?, machine::children_cpu()?);
        let output = command.arg("postgres").output().context("start pgbench")?;
        let (server_after, load_after) = (self.cpu()?, machine::children_cpu()?);
        let said = String::from_utf8_lossy(&output.stdout);
        let rate = rate(&said).with_context(|| {
            format!("understand pgbench: {said}{}", String::from_utf8_lossy(&output.stderr))
        })?;
        let latency = latencies(&logs)?;
        let each = |cpu: Duration| ratio(cpu.as_secs_f64() * 1e6, float(latency.count()));
        Ok(Run {
            rate,
            server_us: each(server_after.saturating_sub(server)),
            load_us: each(load_after.saturating_sub(load)),
            latency: latency.spread(),
        })
    }

    /// Checks the job: there are as many orders as numbers, and as many pieces are gone.
    fn check(&self) -> Result<()> {
        let told = self.ask(
            "SELECT next = (SELECT count(*) FROM orders) AND next = 1 + (SELECT max(number) FROM \
             orders) AND next = 1000000000000 - (SELECT stock FROM products) FROM counter",
        )?;
        match told.as_str() {
            "t" => Ok(()),
            _ => bail!("PostgreSQL has lost count: {told}"),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // An immediate shutdown, which leaves no shared memory behind. Standbys first.
        for node in self.nodes.iter_mut().rev() {
            let _ = node.process.signal(Signal::QUIT);
            node.process.wait();
        }
    }
}

/// Orders per second, from the end of `pgbench`'s output.
fn rate(said: &str) -> Option<f64> {
    let line = said.lines().find_map(|line| line.strip_prefix("tps = "))?;
    line.split(' ').next()?.parse().ok()
}

/// Every transaction's latency, from the logs of `pgbench`: client, number, µs, …
fn latencies(folder: &Path) -> Result<Latencies> {
    let mut latencies = Latencies::new();
    for entry in fs::read_dir(folder).context("list logs")? {
        let log = fs::read_to_string(entry.context("list logs")?.path()).context("read a log")?;
        for line in log.lines() {
            let micros = line.split(' ').nth(2).and_then(|micros| micros.parse().ok());
            latencies.record(Duration::from_micros(micros.context("understand a log")?));
        }
    }
    Ok(latencies)
}

impl Node {
    /// Adds the address of this node to a command.
    fn reached_by(&self, command: &mut Command) {
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_found_in_what_pgbench_says() {
        let said = "number of failed transactions: 0 (0.000%)\nlatency average = 1.0 ms\n\
                    tps = 613.25 (without initial connection time)\n";
        assert_eq!(rate(said), Some(613.25));
        assert_eq!(rate("pgbench: error: no"), None);
    }
}
