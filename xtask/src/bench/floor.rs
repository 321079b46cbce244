//! The machine's own costs: a sync to disk, and a round trip over loopback.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bench::load::{Latencies, Spread};

/// The bytes written before each sync: about what one order adds to a log.
const RECORD: usize = 256;

/// The size of the file that is overwritten, in bytes.
const WRITTEN_BEFORE: usize = 1 << 20;

/// The fewest syncs of a measurement.
const SYNCS_MIN: u64 = 20;

/// Measures `fdatasync` after a record, repeated for `length`, in ms. The file grows, as a plain
/// log does, or it is overwritten in place, as a log may be.
pub(crate) fn syncs(folder: &Path, grows: bool, length: Duration) -> Result<Spread> {
    let path = folder.join(if grows { "grows" } else { "overwritten" });
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    if !grows {
        file.write_all_at(&vec![1; WRITTEN_BEFORE], 0).context("fill a file")?;
    }
    file.sync_all().context("sync a file")?;
    let (mut took, began, mut at) = (Latencies::new(), Instant::now(), 0);
    while began.elapsed() < length || took.count() < SYNCS_MIN {
        let start = Instant::now();
        file.write_all_at(&[2; RECORD], at).context("write a record")?;
        file.sync_data().context("sync a record")?;
        took.record(start.elapsed());
        at += RECORD as u64;
        if !grows && WRITTEN_BEFORE as u64 <= at + RECORD as u64 {
            at = 0;
        }
    }
    std::fs::remove_file(&path).context("remove a file")?;
    Ok(took.spread())
}

/// Measures a few bytes to another thread and back, over TCP on loopback, repeated for `length`, in
/// ms.
pub(crate) fn round_trips(length: Duration) -> Result<Spread> {
    let (mut here, mut there) = pair()?;
    let echo = thread::spawn(move || {
        let mut record = [0; RECORD];
        // The echo ends when the other end is dropped.
        while there.read_exact(&mut record).and_then(|()| there.write_all(&record)).is_ok() {}
    });
    let (mut took, began, mut record) = (Latencies::new(), Instant::now(), [3; RECORD]);
    while began.elapsed() < length {
        let start = Instant::now();
        here.write_all(&record).context("write a record")?;
        here.read_exact(&mut record).context("read a record")?;
        took.record(start.elapsed());
    }
    drop(here);
    // A thread that only echoes cannot panic.
    let _ = echo.join();
    Ok(took.spread())
}

/// Both ends of a connection over loopback that sends without delay.
pub(crate) fn pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("take a port")?;
    let address = listener.local_addr().context("ask for the port")?;
    let here = TcpStream::connect(address).context("connect")?;
    let (there, _) = listener.accept().context("accept")?;
    for stream in [&here, &there] {
        stream.set_nodelay(true).context("switch Nagle's algorithm off")?;
    }
    Ok((here, there))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_and_a_round_trip_take_some_time() {
        let folder = std::env::temp_dir().join(format!("oppidum-floor-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        for grows in [true, false] {
            let spread = syncs(&folder, grows, Duration::ZERO).expect("a file can be synced");
            assert!(0.0 < spread.max);
        }
        std::fs::remove_dir_all(&folder).expect("the folder exists");
        let spread = round_trips(Duration::from_millis(20)).expect("loopback works");
        assert!(0.0 < spread.max);
    }
}
