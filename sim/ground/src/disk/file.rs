//! The file of the history on a simulated disk, under the real store.
//!
//! Every write and every sync is recorded until it is certainly on disk, so that a power cut can go
//! back to any point between two of them. Bytes synced before that point are there; each later
//! write is there, is not, or is there in part.

use std::io;

use redb::StorageBackend;

use super::{Crash, Handle};
use crate::rng::Rng;

/// The unit that a disk writes atomically, in bytes.
const SECTOR: usize = 512;

/// The file: the bytes certainly on disk, and the operations since.
#[derive(Clone, Debug, Default)]
pub(super) struct FileOps {
    sure: Vec<u8>,
    since: Vec<Op>,
    /// The content that the process reads: with all operations applied.
    cache: Vec<u8>,
    /// A task is waiting for the last operations to be written.
    under_way: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Write(usize, Vec<u8>),
    Length(usize),
    Sync,
}

impl FileOps {
    /// Begins to write the operations since. False: there are none.
    pub(super) fn begin(&mut self) -> bool {
        self.under_way = !self.since.is_empty();
        self.under_way
    }

    /// The writes are done: everything up to the last sync is certainly on disk.
    pub(super) fn settle(&mut self) {
        self.under_way = false;
        let synced = self.since.iter().rposition(|op| matches!(op, Op::Sync));
        if let Some(last) = synced {
            for op in self.since.drain(..=last) {
                perform(&mut self.sure, &op);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sure.len()
    }

    /// Applies a crash.
    pub(super) fn crash(&mut self, how: Crash, luck: &mut Rng) {
        let mut since = std::mem::take(&mut self.since);
        if self.under_way {
            // The crash interrupts the writes: the later ones have not been made.
            since.truncate(luck.place(since.len() + 1));
        }
        if how == Crash::Kill {
            // The writes are in the page cache, and the system will flush them.
            self.cache.clone_from(&self.sure);
            for op in &since {
                perform(&mut self.cache, op);
            }
            self.since = since;
            self.under_way = false;
            return;
        }
        let synced = since.iter().rposition(|op| matches!(op, Op::Sync)).map_or(0, |at| at + 1);
        let lost = since.split_off(synced);
        for op in &since {
            perform(&mut self.sure, op);
        }
        let mood = luck.below(4);
        for op in lost {
            let survives = match mood {
                0 => false,
                1 => true,
                _ => luck.percent(50),
            };
            match op {
                Op::Write(at, bytes) if mood == 3 => self.tear(at, &bytes, luck),
                op if survives => perform(&mut self.sure, &op),
                Op::Write(..) | Op::Length(_) | Op::Sync => {}
            }
        }
        self.cache.clone_from(&self.sure);
        self.under_way = false;
    }

    /// Of a torn write some sectors are on disk, the others are not.
    fn tear(&mut self, at: usize, bytes: &[u8], luck: &mut Rng) {
        let mut place = at;
        while place < at + bytes.len() {
            let end = ((place / SECTOR + 1) * SECTOR).min(at + bytes.len());
            if luck.percent(50) {
                let part = bytes[place - at..end - at].to_vec();
                perform(&mut self.sure, &Op::Write(place, part));
            }
            place = end;
        }
    }
}

fn perform(content: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write(at, bytes) => {
            let end = at + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*at..end].copy_from_slice(bytes);
        }
        Op::Length(length) => content.resize(*length, 0),
        Op::Sync => {}
    }
}

/// The file, as one run of the process uses it.
#[derive(Debug)]
pub struct SimFile {
    handle: Handle,
}

impl SimFile {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    fn with<T>(&self, act: impl FnOnce(&mut FileOps, bool) -> T) -> io::Result<T> {
        let over = || io::Error::other("this life of the process is over");
        self.handle.with(|inner| act(&mut inner.file, inner.lies.file)).ok_or_else(over)
    }

    fn change(&self, op: Op) -> io::Result<()> {
        self.with(|file, _| {
            perform(&mut file.cache, &op);
            file.since.push(op);
        })
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl StorageBackend for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|file, _| file.cache.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = place(offset)?;
        self.with(|file, _| match file.cache.get(at..at + out.len()) {
            Some(found) => {
                out.copy_from_slice(found);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        })?
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Op::Length(place(len)?))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|file, lies| {
            if !lies {
                file.since.push(Op::Sync);
            }
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Op::Write(place(offset)?, data.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, DiskMutants};

    fn content(disk: &Disk) -> Vec<u8> {
        let file = disk.open().file();
        let mut out = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read(0, &mut out).unwrap();
        out
    }

    #[test]
    fn a_power_cut_keeps_synced_bytes_and_may_lose_the_rest() {
        let (mut kept, mut lost) = (0, 0);
        for seed in 0..64 {
            let disk = Disk::new(seed, 1, DiskMutants::default());
            let file = disk.open().file();
            file.set_len(1024).unwrap();
            file.write(0, &[1; 512]).unwrap();
            file.sync_data().unwrap();
            file.write(512, &[2; 512]).unwrap();
            disk.crash(Crash::Power);
            assert!(file.write(0, &[9]).is_err(), "an ended run writes nothing");
            let left = content(&disk);
            assert_eq!(left[..512], [1; 512]);
            match left[512] {
                2 => kept += 1,
                _ => lost += 1,
            }
        }
        assert!(0 < kept && 0 < lost);
    }

    #[test]
    fn a_kill_keeps_written_bytes_and_a_skipped_sync_keeps_nothing() {
        let disk = Disk::new(1, 1, DiskMutants::default());
        let file = disk.open().file();
        file.write(0, &[7; 8]).unwrap();
        disk.crash(Crash::Kill);
        assert_eq!(content(&disk), [7; 8]);
        let any_lost = (0..64).any(|seed| {
            let disk = Disk::new(seed, 1, DiskMutants { file: true, ..DiskMutants::default() });
            let file = disk.open().file();
            file.write(0, &[7; 8]).unwrap();
            file.sync_data().unwrap();
            disk.crash(Crash::Power);
            content(&disk).is_empty()
        });
        assert!(any_lost);
    }
}
