//! Backs up a running store: the history of one of its followers, as of one entry.
//!
//! Nothing is locked in the store, and nothing is read twice: only the blocks that the backup
//! lacks, no faster than [`READ_BYTES_PER_SECOND_MAX`](super::core::read_rate).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ledger::terms::Index;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use wire::exit::Stop;
use wire::proto::{HistoryAsk, HistoryHead, HistoryPart, history_part};
use wire::status::{ProcessStatus, StoreStatus};
use wire::wall_clock::since_epoch;

use super::backup_error::BackupError;
use super::core::read_rate;
use super::core::utc_second::UtcSecond;
use super::storage::BackupStorage;
use super::writer::{BackedUp, BackupWriter};
use crate::inspect::{self, block_stream};

/// How long a replica may send nothing.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Blocks are handed to the writer in parts of about this many bytes.
const PART_BYTES: usize = 1 << 20;

/// A backup, and how it came about.
#[derive(Debug)]
pub(crate) struct OnlineBackup {
    pub(crate) backed_up: BackedUp,
    /// The replica that was read.
    pub(crate) replica: u64,
    pub(crate) took: Duration,
    /// How many old restore points were removed.
    pub(crate) removed: usize,
}

/// Makes one backup of the store at `url`; removes restore points that are older than `keep`.
pub(crate) async fn back_up(
    url: &str,
    storage: Arc<dyn BackupStorage>,
    keep: Option<Duration>,
    stop: &CancellationToken,
) -> Result<OnlineBackup, Stop> {
    let began = Instant::now();
    let store = inspect::fetch(url).await?;
    let name = writer_name();
    let writer = blocking(move || BackupWriter::begin(storage, &name, since_epoch())).await?;
    let mut writing = Writing { writer: Some(writer), part: Vec::new(), part_bytes: 0 };
    let done = tokio::select! {
        done = writing.read_any(url, &store) => done,
        () = stop.cancelled() => Err(Stop::Setup("stopped before the end".into())),
    };
    let (backed_up, replica) = match done {
        Ok(done) => done,
        Err(error) => {
            // The first error counts. A writer that is at work in a task cannot be asked.
            if let Some(writer) = writing.writer.take() {
                let _ = blocking(move || writer.release()).await;
            }
            return Err(error);
        }
    };
    let removed = writing
        .with(move |writer| {
            let oldest = keep.map(|keep| UtcSecond::of(since_epoch().saturating_sub(keep)));
            let removed = oldest.map(|oldest| writer.retain(&oldest)).transpose();
            writer.release().and(removed)
        })
        .await?;
    let took = began.elapsed();
    Ok(OnlineBackup { backed_up, replica, took, removed: removed.unwrap_or(0) })
}

/// A name for this process, for people and for the lock.
fn writer_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("process {} on {host} ({:08x})", std::process::id(), rand::random::<u32>())
}

/// Runs what may wait for a disk.
async fn blocking<T: Send + 'static>(
    task: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, Stop> {
    let done = tokio::task::spawn_blocking(task).await;
    let done = done.map_err(|error| Stop::Defect(error.to_string()))?;
    done.map_err(Stop::from)
}

/// The replicas that answer, in the order in which they are tried: followers first, and of them the
/// one that has applied most.
fn candidates(store: &StoreStatus) -> Vec<&ProcessStatus> {
    let answers = |process: &&ProcessStatus| process.role == "order" && process.error.is_none();
    let mut replicas: Vec<_> = store.processes.iter().filter(answers).collect();
    let leads = |process: &ProcessStatus| process.id == store.leader;
    replicas.sort_by_key(|process| (leads(process), std::cmp::Reverse(process.applied_index)));
    replicas
}

/// A backup while a replica is read.
struct Writing {
    /// `None`: a task has it.
    writer: Option<BackupWriter>,
    /// The blocks that the writer has not taken yet.
    part: Vec<Bytes>,
    part_bytes: usize,
}

impl Writing {
    /// Reads the first replica that can be read.
    async fn read_any(&mut self, url: &str, store: &StoreStatus) -> Result<(BackedUp, u64), Stop> {
        let mut why =
            Stop::Setup(format!("{url} knows no replica that answers: see `oppidum status`"));
        for replica in candidates(store) {
            let id = replica.id.unwrap_or(0);
            match self.open(id, &replica.address).await {
                Ok((head, parts)) => return Ok((self.read(id, head, parts).await?, id)),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Asks a replica for the blocks that the backup lacks, and reads its state.
    async fn open(
        &mut self,
        id: u64,
        address: &str,
    ) -> Result<(HistoryHead, Streaming<HistoryPart>), Stop> {
        let no = |why: &str| Stop::Setup(format!("replica {id} cannot be backed up: {why}"));
        let end = self.writer.as_ref().map_or(0, BackupWriter::end);
        let ask = HistoryAsk { after: end, for_backup: true, ..HistoryAsk::default() };
        let mut parts = block_stream::open((id, address), ask).await?;
        let first = next(&mut parts).await.map_err(|why| no(&why))?;
        let Some(history_part::What::Head(head)) = first.and_then(|part| part.what) else {
            return Err(no("it sent no state"));
        };
        if head.state.is_empty() {
            return Err(no("it runs an older program: upgrade it first"));
        }
        if head.ledger_id.is_empty() {
            return Err(no("its shop is not open yet"));
        }
        let opened = head.clone();
        self.with(move |writer| writer.open(&opened)).await?;
        if head.applied_index < end {
            let stands = Index(head.applied_index);
            return Err(no(&format!("it stands at entry {stands}, before the end of the backup")));
        }
        Ok((head, parts))
    }

    async fn read(
        &mut self,
        id: u64,
        head: HistoryHead,
        mut parts: Streaming<HistoryPart>,
    ) -> Result<BackedUp, Stop> {
        let no = |why: String| Stop::Setup(format!("replica {id} cannot be backed up: {why}"));
        let (began, mut bytes) = (Instant::now(), 0);
        while let Some(part) = next(&mut parts).await.map_err(no)? {
            let Some(history_part::What::Block(block)) = part.what else { continue };
            bytes += u64::try_from(block.len()).unwrap_or(u64::MAX);
            self.part_bytes += block.len();
            self.part.push(block);
            if PART_BYTES <= self.part_bytes {
                self.hand_over().await?;
                tokio::time::sleep(read_rate::pause(bytes, began.elapsed())).await;
            }
        }
        self.hand_over().await?;
        self.with(move |writer| writer.finish(&head, since_epoch())).await
    }

    /// Hands the blocks to the writer.
    async fn hand_over(&mut self) -> Result<(), Stop> {
        self.part_bytes = 0;
        let part = std::mem::take(&mut self.part);
        self.with(move |writer| {
            writer.renew(since_epoch())?;
            part.into_iter().try_for_each(|block| writer.take(block))
        })
        .await
    }

    /// Runs a task of the writer. After a failure it can still be released.
    async fn with<T: Send + 'static>(
        &mut self,
        task: impl FnOnce(&mut BackupWriter) -> Result<T, BackupError> + Send + 'static,
    ) -> Result<T, Stop> {
        let gone = || Stop::Defect("the writer of the backup is gone".into());
        let mut writer = self.writer.take().ok_or_else(gone)?;
        let (writer, done) = blocking(move || {
            let done = task(&mut writer);
            Ok((writer, done))
        })
        .await?;
        self.writer = Some(writer);
        done.map_err(Stop::from)
    }
}

/// The next part of a history. `None`: it has ended.
async fn next(parts: &mut Streaming<HistoryPart>) -> Result<Option<HistoryPart>, String> {
    match tokio::time::timeout(SILENCE_MAX, parts.message()).await {
        Ok(part) => part.map_err(|status| status.message().to_owned()),
        Err(_) => Err(format!("it sent nothing for {SILENCE_MAX:?}")),
    }
}
