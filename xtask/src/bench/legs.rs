//! The path of an order, walked by threads that do nothing else: about the least that an order
//! takes, however the store is programmed.
//!
//! An order passes ten legs over loopback, one after the other: client, frontend, leader, follower
//! and back to the leader, catalog, cache, and back over the same stations. The leader and both
//! followers write a record and sync it, all three at the same time, as they must on one machine.
//! The leader and the first follower are the majority; the leader does not wait for the second.
//! Nothing is parsed, decided or kept, and a switch between threads is cheaper than one between
//! processes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bench::floor::pair;
use crate::bench::load::{Latencies, Spread};
use crate::bench::{float, machine, ratio};

/// The bytes sent over each leg: about what one order takes.
const RECORD: usize = 256;

/// The results.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walked {
    pub(crate) latency: Spread,
    /// CPU of all stations except the client, µs per order; counted in ticks of 10 ms.
    pub(crate) server_us: f64,
}

/// Sends one order after the other over its legs for `length`; the logs are in `folder`.
pub(crate) fn walk(folder: &Path, length: Duration) -> Result<Walked> {
    let (mut client, at_front) = pair()?;
    let (to_leader, front) = pair()?;
    let (first, at_first) = pair()?;
    let (second, at_second) = pair()?;
    let (catalog, at_catalog) = pair()?;
    let (to_cache, cache) = pair()?;
    let logs = [Log::new(folder, 0)?, Log::new(folder, 1)?, Log::new(folder, 2)?];
    let [own, first_log, second_log] = logs;
    let answers = second.try_clone().context("share a connection")?;
    let leader = Leader { front, first, second, catalog };
    // Each station ends when the station before it has ended.
    let stations = [
        station(move || pass_on(at_front, to_leader)),
        station(move || lead(leader, own)),
        station(move || keep(at_first, first_log)),
        station(move || keep(at_second, second_log)),
        station(move || hear(answers)),
        station(move || pass_on(at_catalog, to_cache)),
        station(move || echo(cache)),
    ];
    let (mut took, began, before) = (Latencies::new(), Instant::now(), cpu_of_stations()?);
    let mut record = [1; RECORD];
    while began.elapsed() < length {
        let start = Instant::now();
        client.write_all(&record).context("send an order over its legs")?;
        client.read_exact(&mut record).context("an order's legs broke")?;
        took.record(start.elapsed());
    }
    let used = cpu_of_stations()?.saturating_sub(before);
    drop(client);
    for station in stations {
        // Stations only pass records on: they cannot panic.
        let _ = station.join();
    }
    let server_us = ratio(used.as_secs_f64() * 1e6, float(took.count()));
    Ok(Walked { latency: took.spread(), server_us })
}

/// The CPU time of this process without the calling thread.
fn cpu_of_stations() -> Result<Duration> {
    Ok(machine::own_cpu()?.saturating_sub(machine::thread_cpu()?))
}

/// A thread that works until its connections are closed.
fn station(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> thread::JoinHandle<()> {
    // A closed connection is the intended end.
    thread::spawn(move || drop(work()))
}

/// A log that grows by one record at a time.
struct Log {
    file: File,
    end: u64,
}

impl Log {
    fn new(folder: &Path, number: usize) -> Result<Self> {
        let path = folder.join(format!("legs-{number}"));
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        // The name is not needed: the file is freed when its last handle is closed.
        std::fs::remove_file(&path).context("remove a file")?;
        Ok(Self { file, end: 0 })
    }

    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.file.write_all_at(record, self.end)?;
        self.end += record.len() as u64;
        self.file.sync_data()
    }
}

/// The frontend and the catalog: pass each record on, and its answer back.
fn pass_on(mut up: TcpStream, mut down: TcpStream) -> io::Result<()> {
    let mut record = [0; RECORD];
    loop {
        up.read_exact(&mut record)?;
        down.write_all(&record)?;
        down.read_exact(&mut record)?;
        up.write_all(&record)?;
    }
}

/// A follower: writes each record to its log, and sends it back.
fn keep(mut up: TcpStream, mut log: Log) -> io::Result<()> {
    let mut record = [0; RECORD];
    loop {
        up.read_exact(&mut record)?;
        log.append(&record)?;
        up.write_all(&record)?;
    }
}

/// The cache: sends each record back.
fn echo(mut up: TcpStream) -> io::Result<()> {
    let mut record = [0; RECORD];
    loop {
        up.read_exact(&mut record)?;
        up.write_all(&record)?;
    }
}

/// Reads the answers of the follower that the leader does not wait for.
fn hear(mut down: TcpStream) -> io::Result<()> {
    let mut record = [0; RECORD];
    loop {
        down.read_exact(&mut record)?;
    }
}

/// The connections of the leader.
struct Leader {
    front: TcpStream,
    first: TcpStream,
    second: TcpStream,
    catalog: TcpStream,
}

fn lead(mut to: Leader, mut log: Log) -> io::Result<()> {
    let over = take_orders(&mut to, &mut log);
    // The thread that runs `hear` has another handle of this connection.
    to.second.shutdown(Shutdown::Both)?;
    over
}

fn take_orders(to: &mut Leader, log: &mut Log) -> io::Result<()> {
    let mut record = [0; RECORD];
    loop {
        to.front.read_exact(&mut record)?;
        to.first.write_all(&record)?;
        to.second.write_all(&record)?;
        log.append(&record)?;
        to.first.read_exact(&mut record)?;
        to.catalog.write_all(&record)?;
        to.catalog.read_exact(&mut record)?;
        to.front.write_all(&record)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_passes_its_legs_and_the_stations_end() {
        let folder = std::env::temp_dir().join(format!("oppidum-legs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let walked = walk(&folder, Duration::from_millis(50)).expect("loopback and disk work");
        assert!(0.0 < walked.latency.p50);
        // The logs have no names any more.
        std::fs::remove_dir(&folder).expect("the folder is empty");
    }
}
