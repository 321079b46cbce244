//! Key tables: which blocks hold keys of which window, so that a start reads no others.
//!
//! The oldest key of a quiet principal may be a week older than the oldest of a busy one. So each
//! principal has rows of its own: of the blocks since its oldest key, only those with its keys are
//! read.

use std::io;

use ledger::api_key::Principal;
use ledger::key_summary::{KeySummary, KeyedWindows};
use ledger::terms::Index;
use ledger::windows::{PerWindow, WindowId};
use redb::{ReadTransaction, Table, TableDefinition, WriteTransaction};

use crate::history::errors::broken;

/// For each window that belongs to no principal, the indexes of the blocks that hold keys of it.
pub(super) const KEYS: PerWindow<TableDefinition<u64, ()>> = PerWindow {
    clients: TableDefinition::new("client keys"),
    client_refusals: TableDefinition::new("client refusals"),
    frontends: TableDefinition::new("frontend keys"),
    frontend_refusals: TableDefinition::new("frontend refusals"),
};

/// By principal, kind of answer and index: the blocks that hold keys of the principal's clients.
/// Rows that no start needs any more go when the principal gets new ones.
pub(super) const PRINCIPAL_KEYS: TableDefinition<(&str, u8, u64), ()> =
    TableDefinition::new("principal keys");

/// The kinds of answers in rows of principals.
const KINDS: [(u8, WindowId); 2] = [(1, WindowId::Clients), (2, WindowId::ClientRefusals)];

/// The tables that name the blocks with keys, open for writing.
pub(super) struct KeyTables<'a> {
    shared: PerWindow<Table<'a, u64, ()>>,
    principals: Table<'a, (&'static str, u8, u64), ()>,
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
        for (principal, windows) in &keys.principals {
            for (kind, _) in KINDS.iter().filter(|(_, id)| *windows.get(*id)) {
                let row = (principal.as_str(), *kind, index.0);
                self.principals.insert(row, ()).map_err(broken)?;
            }
        }
        Ok(())
    }

    /// Removes rows of these principals' blocks that a start with this summary does not read.
    pub(super) fn prune(
        &mut self,
        keys: &KeyedWindows,
        key_summary: &KeySummary,
    ) -> io::Result<()> {
        for principal in keys.principals.keys().map(Principal::as_str) {
            for (kind, id) in KINDS {
                let after = key_summary.after(id, principal).0;
                let rows = (principal, kind, 0)..=(principal, kind, after);
                self.principals.retain_in(rows, |_, ()| false).map_err(broken)?;
            }
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
        self.principals.retain(|(_, _, index), ()| stays(index)).map_err(broken)
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
    for principal in key_summary.windows.principals.keys().map(Principal::as_str) {
        for (kind, id) in KINDS {
            let after = key_summary.after(id, principal);
            if after < to {
                let rows = (principal, kind, after.0 + 1)..=(principal, kind, to.0);
                for row in table.range(rows).map_err(broken)? {
                    indexes.push(row.map_err(broken)?.0.value().2);
                }
            }
        }
    }
    indexes.sort_unstable();
    indexes.dedup();
    Ok(indexes)
}
