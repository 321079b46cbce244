//! What requests ask for, as far as that must be known to decide them: what many want is looked at
//! once, and what each of many wants is searched for together.

use std::cell::OnceCell;

use crate::codec::refs::{BatchRef, CommandRef, LineRef, RequestRef};
use crate::command::Command;
use crate::named::Row;
use crate::replies::Hashed;
use crate::stock::Stock;

/// A request of an entry, before it is decided.
#[derive(Debug)]
pub(crate) struct Incoming<'a> {
    pub(crate) request: RequestRef<'a>,
    pub(crate) key: Option<Hashed>,
    /// It does not ask for the same as the one before it.
    pub(crate) is_new: bool,
}

/// A command in its bytes, and what was found out about it; kept for the requests that follow and
/// ask for the same.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    bytes: CommandRef<'a>,
    /// What a key is bound to.
    print: u64,
    /// Of an order of one line, where its product stood when it was looked at.
    product: Option<(Row, LineRef<'a>)>,
    /// Taken apart, once somebody needed that.
    command: OnceCell<Command>,
}

impl<'a> Incoming<'a> {
    /// All of a batch, in order.
    pub(crate) fn all(batch: &BatchRef<'a>) -> impl Iterator<Item = Self> + use<'a> {
        let mut last = None;
        batch.requests().map(move |request| {
            let is_new = last.replace(request.command) != Some(request.command);
            Self { request, key: request.key.as_ref().map(Hashed::new), is_new }
        })
    }
}

impl<'a> Asked<'a> {
    /// Looks at all of these commands, which were checked, together: one for each, in order.
    pub(crate) fn all(commands: impl Iterator<Item = CommandRef<'a>>, stock: &Stock) -> Vec<Self> {
        let read: Vec<_> = commands.map(|bytes| (bytes, bytes.only_line())).collect();
        // No product has the empty name.
        let rows = stock.rows(read.iter().map(|(_, line)| line.map_or("", |line| line.name)));
        let found = read.iter().zip(rows).map(|((bytes, line), row)| {
            let (print, product) = (bytes.print(), row.zip(*line));
            Self { bytes: *bytes, print, product, command: OnceCell::new() }
        });
        found.collect()
    }

    /// 64 bits of what [`Command::fingerprint`] says.
    pub(crate) fn print(&self) -> u64 {
        self.print
    }

    /// The product of an order of one line, if there was that product when it was looked at: such
    /// an order need not be taken apart to be decided.
    pub(crate) fn product(&self) -> Option<(Row, LineRef<'a>)> {
        self.product
    }

    /// The command, taken apart.
    pub(crate) fn command(&self) -> &Command {
        self.command.get_or_init(|| self.bytes.command())
    }

    /// It attaches or detaches a catalog, or is to.
    pub(crate) fn is_about_catalogs(&self) -> bool {
        self.bytes.lines().is_none()
            && matches!(self.command(), Command::Attach { .. } | Command::Detach { .. })
    }
}
