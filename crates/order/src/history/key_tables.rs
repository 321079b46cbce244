//! Key tables: which blocks hold keys of which window, so that a start reads no others.
//!
//! The oldest key of a quiet principal may be a week older than the oldest of a busy one. So each
//! principal has rows of its own: of the blocks since its oldest key, only those with its keys are
//! read.

use std::io;

use ledger::key_summary::{KeySummary, KeyedWindows};
use ledger::terms::Index;
use ledger::windows::{PerAnswer, PerWindow, WindowId};
use redb::{ReadTransaction, Table, TableDefinition, WriteTransaction};

use crate::history::errors::broken;

/// For each window that belongs to no principal, the indexes of the blocks that hold keys of it.
pub(super) const KEYS: PerWindow<TableDefinition<u64, ()>> = PerWindow {
    clients: TableDefinition::new("client keys"),
    client_refusals: TableDefinition::new("client refusals"),
    frontends: TableDefinition::new("frontend keys"),
    frontend_refusals: TableDefinition::new("frontend refusals"),
};

/// By principal and index: 1 if the block holds keys of its accepted requests, 2 if of refused
/// ones, 3 if of both.
pub(super) const PRINCIPAL_KEYS: TableDefinition<(&str, u64), u8> =
    TableDefinition::new("principal keys");
const ACCEPTED: u8 = 1;
const REFUSED: u8 = 2;

/// The tables that name the blocks with keys, open for writing.
pub(super) struct KeyTables<'a> {
    shared: PerWindow<Table<'a, u64, ()>>,
    principals: Table<'a, (&'static str, u64), u8>,
}

impl<'a> KeyTables<'a> {
    /// Opens the tables; creates those that are absent.
    pub(super) fn open(write: &'a WriteTransaction) -> io::Result<Self> {
        let open = |definition| write.open_table(definition).map_err(broken);
        let shared = PerWindow {
            clients: open(KEYS.clients)?,
            client_refusals: open(KEYS.client_refusals)?,
            frontends: open(KEYS.frontends)?,
            frontend_refusals: open(KEYS.frontend_refusals)?,
        };
        Ok(Self { shared, principals: write.open_table(PRINCIPAL_KEYS).map_err(broken)? })
    }

    /// Notes in which windows a block's keys are.
    pub(super) fn note(&mut self, index: Index, keys: &KeyedWindows) -> io::Result<()> {
        for id in WindowId::ALL.into_iter().filter(|id| *keys.shared.get(*id)) {
            self.shared.get_mut(id).insert(index.0, ()).map_err(broken)?;
        }
        for (principal, PerAnswer { accepted, refused }) in &keys.principals {
            let windows = u8::from(*accepted) * ACCEPTED + u8::from(*refused) * REFUSED;
            self.principals.insert((principal.as_str(), index.0), windows).map_err(broken)?;
        }
        Ok(())
    }

    /// Removes the rows of the blocks in `(after, to]`.
    pub(super) fn clear(&mut self, after: Index, to: Index) -> io::Result<()> {
        for id in WindowId::ALL {
            let table = self.shared.get_mut(id);
            table.retain_in(after.0 + 1..=to.0, |_, ()| false).map_err(broken)?;
        }
        let stays = |index: u64| index <= after.0 || to.0 < index;
        self.principals.retain(|(_, index), _| stays(index)).map_err(broken)
    }
}

/// The indexes of the blocks up to `to` that may hold keys of this summary, in order.
pub(super) fn indexes_of(
    read: &ReadTransaction,
    key_summary: &KeySummary,
    to: Index,
) -> io::Result<Vec<u64>> {
    let mut indexes = Vec::new();
    for id in WindowId::ALL {
        let after = key_summary.after(id, "");
        if after < to {
            let table = read.open_table(*KEYS.get(id)).map_err(broken)?;
            for row in table.range(after.0 + 1..=to.0).map_err(broken)? {
                indexes.push(row.map_err(broken)?.0.value());
            }
        }
    }
    let table = read.open_table(PRINCIPAL_KEYS).map_err(broken)?;
    for (principal, PerAnswer { accepted, refused }) in &key_summary.windows.principals {
        let after = accepted.after.min(refused.after);
        if to <= after {
            continue;
        }
        let rows = (principal.as_str(), after.0 + 1)..=(principal.as_str(), to.0);
        for row in table.range(rows).map_err(broken)? {
            let (key, windows) = row.map_err(broken)?;
            let ((_, index), windows) = (key.value(), windows.value());
            let holds = |window, after: Index| windows & window != 0 && after.0 < index;
            if holds(ACCEPTED, accepted.after) || holds(REFUSED, refused.after) {
                indexes.push(index);
            }
        }
    }
    indexes.sort_unstable();
    indexes.dedup();
    Ok(indexes)
}
