//! The type parameters of the log's library, `raft-log`: what a record holds, and who is told when
//! it is on disk.

use std::fmt::{self, Debug};
use std::io;
use std::time::Instant;

use openraft::storage::IOFlushed;
use tokio::sync::oneshot;

use crate::failpoints;
use crate::history::durable_mark;
use crate::raft::codec::{StoredBody, StoredLogId, StoredVote};
use crate::raft::types::{LogId, Types};

/// The type parameters of `raft-log`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogTypes;

/// The receiver of a flush's result.
pub(crate) enum FlushWaiter {
    /// The engine, for entries appended at this moment; with the last entry and its epoch, for the
    /// durable mark.
    Append(IOFlushed<Types>, Instant, Option<(LogId, u64, durable_mark::OnDisk)>),
    /// A task of the log store.
    Waiter(oneshot::Sender<io::Result<()>>),
    /// No receiver; only a failure is recorded.
    Unwatched(durable_mark::OnDisk),
}

impl Debug for FlushWaiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnDisk")
    }
}

impl raft_log::Callback for FlushWaiter {
    fn send(self, result: io::Result<()>) {
        failpoints::await_disk();
        match self {
            Self::Append(done, since, up_to) => {
                match (&result, up_to) {
                    (Ok(()), Some((last, epoch, on_disk))) => {
                        on_disk.syncs().observe(since.elapsed());
                        on_disk.reach(last, epoch);
                    }
                    (Err(error), Some((_, _, on_disk))) => on_disk.fail(error),
                    (_, None) => {}
                }
                done.io_completed(result);
            }
            // A task that has stopped waiting does not need the result.
            Self::Waiter(waiter) => drop(waiter.send(result)),
            Self::Unwatched(on_disk) => drop(result.inspect_err(|error| on_disk.fail(error))),
        }
    }
}

impl raft_log::Types for LogTypes {
    type LogId = StoredLogId;
    type LogPayload = StoredBody;
    type Vote = StoredVote;
    type Callback = FlushWaiter;
    type UserData = ();

    fn log_index(log_id: &StoredLogId) -> u64 {
        log_id.0.index
    }

    fn payload_size(payload: &StoredBody) -> u64 {
        payload.size()
    }
}
