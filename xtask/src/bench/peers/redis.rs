//! Redis: a master and two replicas, each with `appendfsync always`, and `WAIT 1` after each order.
//!
//! An order is one script, run by Redis's single thread, so it is atomic without a lock. `WAIT`
//! says that one replica has received the order. There is no election and no agreed log behind
//! that: a failover may lose acknowledged orders.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::bench::load::script::{Expect, Script};
use crate::bench::process::{self, Process};
use crate::bench::report::Figures;
use crate::bench::rows::side;
use crate::bench::store::{Folder, free_ports};
use crate::bench::turns::{Side, closed_loop, turns};
use crate::bench::{Bench, machine};

/// The initial stock of the hot product.
const STOCK: u64 = 1_000_000_000_000;

/// An order takes a piece from the stock, gets the next number, and is remembered under its key.
const ORDER_SCRIPT: &str = "\
    if tonumber(redis.call('GET', 'stock')) < 1 then return -1 end \
    redis.call('DECR', 'stock') \
    local number = redis.call('INCR', 'next') - 1 \
    redis.call('HSET', 'order:' .. number, 'name', 'GameStart', 'quantity', 1) \
    redis.call('SET', 'key:' .. number, number) \
    return number";

/// The timeout of a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The master, then its replicas.
#[derive(Debug)]
struct Trio {
    nodes: Vec<Process>,
    ports: Vec<u16>,
    /// The hash by which Redis knows the script of an order.
    sha: String,
    // Last, so that the folder is removed after the processes that write into it.
    _folder: Folder,
}

/// The path of the program, if it is installed.
pub(crate) fn find() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join("redis-server")).find(|it| it.is_file())
}

/// Measures the store and Redis in turns.
pub(crate) fn measure(bench: &mut Bench, program: &Path) -> Result<Figures> {
    let folder = Folder::new(&process::target(&bench.root).join("bench").join("redis"))?;
    let trio = Trio::start(program, folder)?;
    let (store, _, times) = bench.both()?;
    let (cpu, other_cpu) = (|| store.cpu(), || trio.cpu());
    let address = format!("127.0.0.1:{}", trio.ports[0]);
    let redis = |clients: usize| Side {
        name: if clients == 64 { "Redis, 64" } else { "Redis, 256" },
        address: &address,
        script: Script::Turns(vec![trio.order()]),
        expect: Expect::Done,
        ledger: None,
        ..side("", clients, store, &other_cpu)
    };
    let sides = [
        side("the store, 64", 64, store, &cpu),
        redis(64),
        side("the store, 256", 256, store, &cpu),
        redis(256),
    ];
    let runs = turns(times, &sides)?;
    trio.check()?;
    let mut figures = closed_loop(&runs);
    figures.other_store = Some(version(program)?);
    Ok(Figures::ClosedLoop(figures))
}

impl Trio {
    fn start(program: &Path, folder: Folder) -> Result<Self> {
        let ports = free_ports(3)?;
        let mut nodes = Vec::new();
        for (place, port) in ports.iter().enumerate() {
            let data = folder.0.join(format!("node-{place}"));
            std::fs::create_dir_all(&data).context("make a folder")?;
            let mut command = process::measured(program);
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
            command.args(["--appendonly", "yes", "--appendfsync", "always"]);
            // A rewrite of the log in the middle of a run would become part of the measurement.
            command.args(["--auto-aof-rewrite-percentage", "0", "--dir"]).arg(&data);
            if place != 0 {
                command.args(["--replicaof", &format!("127.0.0.1 {}", ports[0])]);
            }
            nodes.push(Process::start(&mut command, folder.0.join(format!("{place}.lines")))?);
        }
        let mut trio = Self { nodes, ports, sha: String::new(), _folder: folder };
        let began = Instant::now();
        while !trio.ask(&["INFO", "replication"]).is_ok_and(|said| said.contains("slaves:2")) {
            if process::READY_MAX < began.elapsed() {
                bail!("Redis does not start: {}", trio.nodes[0].last_lines());
            }
            thread::sleep(Duration::from_millis(50));
        }
        trio.ask(&["MSET", "stock", &STOCK.to_string(), "next", "0"])?;
        let sha = trio.ask(&["SCRIPT", "LOAD", ORDER_SCRIPT])?;
        sha.lines().last().unwrap_or_default().clone_into(&mut trio.sha);
        Ok(trio)
    }

    /// The bytes of one order, and of the wait until one replica has it.
    fn order(&self) -> Vec<u8> {
        let mut bytes = command(&["EVALSHA", &self.sha, "0"]);
        bytes.extend(command(&["WAIT", "1", "0"]));
        bytes
    }

    /// The CPU time of all nodes.
    fn cpu(&self) -> Result<Duration> {
        self.nodes.iter().map(|node| machine::cpu_of_family(node.pid())).sum()
    }

    /// Checks the job: there are as many orders as numbers, and as many pieces are gone.
    fn check(&self) -> Result<()> {
        let number = |said: String| {
            let line = said.lines().last().unwrap_or_default().trim_start_matches(':').to_owned();
            line.parse::<u64>().with_context(|| format!("understand {said}"))
        };
        let next = number(self.ask(&["GET", "next"])?)?;
        let stock = number(self.ask(&["GET", "stock"])?)?;
        // Two keys for each order, one for the stock, one for the counter.
        let keys = number(self.ask(&["DBSIZE"])?)?;
        match stock + next == STOCK && keys == 2 * next + 2 && 0 < next {
            true => Ok(()),
            false => bail!("Redis has lost count: {next} orders, {stock} pieces, {keys} keys"),
        }
    }

    /// The master's answer, as its protocol writes it, without the end of the last line.
    fn ask(&self, words: &[&str]) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports[0])).context("connect")?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).context("set a timeout")?;
        stream.write_all(&command(words)).context("ask Redis")?;
        stream.write_all(&command(&["QUIT"])).context("ask Redis")?;
        let mut said = String::new();
        stream.read_to_string(&mut said).context("hear Redis")?;
        let said = said.strip_suffix("+OK\r\n").context("hear Redis to its end")?;
        match said.starts_with('-') {
            true => bail!("Redis says {said}"),
            false => Ok(said.trim_end().to_owned()),
        }
    }
}

/// Encodes a command in Redis's protocol.
fn command(words: &[&str]) -> Vec<u8> {
    let word = |word: &&str| format!("${}\r\n{word}\r\n", word.len());
    let words: String =
        std::iter::once(format!("*{}\r\n", words.len())).chain(words.iter().map(word)).collect();
    words.into_bytes()
}

/// The version in `Redis server v=7.0.15 sha=…`.
fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output().context("start redis-server")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = said.split_whitespace().find_map(|word| word.strip_prefix("v="));
    Ok(format!("Redis {}", version.context("understand what redis-server calls itself")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_list_of_words() {
        assert_eq!(command(&["GET", "next"]), b"*2\r\n$3\r\nGET\r\n$4\r\nnext\r\n");
    }
}
