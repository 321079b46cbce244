//! Prepares a chunk of requests for their decision: a run of equal commands is examined once, and
//! the searches for all products overlap.

use std::cell::OnceCell;

use crate::codec::BatchRef;
use crate::codec::refs::{CommandRef, LineRef, RequestRef};
use crate::command::Command;
use crate::idempotency::HashedKey;
use crate::name_table::Row;
use crate::stock::Stock;

/// A request of an entry, before it is decided.
#[derive(Debug)]
pub(crate) struct IncomingRequest<'a> {
    pub(crate) request: RequestRef<'a>,
    pub(crate) key: Option<HashedKey>,
    /// True if the command differs from that of the request before.
    pub(crate) is_new: bool,
}

/// A borrowed command and what was looked up about it, also for the equal commands that follow.
#[derive(Debug)]
pub(crate) struct PreparedCommand<'a> {
    bytes: CommandRef<'a>,
    /// The command's fingerprint, to which a key is bound.
    print: u64,
    /// The line of an order of one line, and the row of its product when that was looked up.
    product: Option<(Row, LineRef<'a>)>,
    /// The decoded command, once it was needed.
    command: OnceCell<Command>,
}

impl<'a> IncomingRequest<'a> {
    /// All requests of a batch, in order.
    pub(crate) fn all(batch: &BatchRef<'a>) -> impl Iterator<Item = Self> + use<'a> {
        let mut last = None;
        batch.requests().map(move |request| {
            let is_new = last.replace(request.command) != Some(request.command);
            Self { request, key: request.key.as_ref().map(HashedKey::new), is_new }
        })
    }
}

impl<'a> PreparedCommand<'a> {
    /// Prepares these commands together, one result for each, in order. They must have been
    /// checked.
    pub(crate) fn all(commands: impl Iterator<Item = CommandRef<'a>>, stock: &Stock) -> Vec<Self> {
        let read: Vec<_> = commands.map(|bytes| (bytes, bytes.only_line())).collect();
        // A command without such a line searches for the empty name, which no product has.
        let rows = stock.rows(read.iter().map(|(_, line)| line.map_or("", |line| line.name)));
        let found = read.iter().zip(rows).map(|((bytes, line), row)| {
            let (print, product) = (bytes.fingerprint64(), row.zip(*line));
            Self { bytes: *bytes, print, product, command: OnceCell::new() }
        });
        found.collect()
    }

    /// The first 64 bits of [`Command::fingerprint`].
    pub(crate) fn fingerprint64(&self) -> u64 {
        self.print
    }

    /// Row and line of an order of one line, if its product existed at the lookup. Such an order is
    /// decided without being decoded.
    pub(crate) fn product(&self) -> Option<(Row, LineRef<'a>)> {
        self.product
    }

    /// The decoded command.
    pub(crate) fn command(&self) -> &Command {
        self.command.get_or_init(|| self.bytes.command())
    }

    /// True if the command attaches or detaches a catalog.
    pub(crate) fn is_about_catalogs(&self) -> bool {
        self.bytes.lines().is_none()
            && matches!(self.command(), Command::Attach { .. } | Command::Detach { .. })
    }
}
