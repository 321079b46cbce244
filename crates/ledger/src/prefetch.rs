//! Prefetch: reads what a chunk of requests will need, so that the memory reads overlap.
//!
//! The key windows and the table of products outgrow the CPU's caches, so a look-up waits for main
//! memory: for the bucket of a hash, then for the row that the bucket leads to. One look-up after
//! the other waits each time; reads that do not depend on each other wait together. So an entry is
//! applied in chunks of 64 requests. Before the first request of a chunk is decided, the buckets
//! and rows of all of them are read once, which brings them into the caches (docs/performance.md
//! has before and after).
//!
//! Only rows of products are kept from this, because a product keeps its row. Keys are looked up
//! again when their request is decided: an earlier request of the chunk may have the same key.

use std::cell::OnceCell;

use crate::codec::refs::{CommandRef, LineRef, RequestRef};
use crate::command::Command;
use crate::idempotency::{BoundKey, Idempotency};
use crate::name_table::{NameHash, NameTable, Row};
use crate::stock::{Product, Stock};
use crate::terms::Origin;
use crate::windows::WindowId;

/// Items of a chunk: few enough that all that is prefetched for them stays in the CPU's caches.
const CHUNK: usize = 64;

/// A chunk of requests, prepared for their decisions.
#[derive(Debug)]
pub(crate) struct Prefetched<'c, 'a> {
    requests: &'c [RequestRef<'a>],
    /// One for each request.
    prepared: Vec<PreparedKey>,
    /// One for each run of equal commands, which is examined once.
    commands: Vec<PreparedCommand<'a>>,
}

/// A request, prepared for its decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PreparedRequest<'c, 'a> {
    pub(crate) request: &'c RequestRef<'a>,
    pub(crate) key: Option<BoundKey>,
    pub(crate) command: &'c PreparedCommand<'a>,
}

/// A request's key, and where its command stands among the commands of the chunk.
#[derive(Debug)]
struct PreparedKey {
    key: Option<BoundKey>,
    command: usize,
}

/// A borrowed command, and what was computed and looked up for it.
#[derive(Debug)]
pub(crate) struct PreparedCommand<'a> {
    bytes: CommandRef<'a>,
    /// The command's fingerprint, to which a key is bound.
    fingerprint: u64,
    /// The line, if the command is an order of one line.
    line: Option<PreparedLine<'a>>,
    /// The decoded command, once it was needed.
    decoded: OnceCell<Command>,
}

/// The line of an order of one line.
#[derive(Debug)]
struct PreparedLine<'a> {
    line: LineRef<'a>,
    hash: NameHash,
    /// The row of the product, if it existed at the look-up.
    row: Option<Row>,
}

/// Prepares a chunk of checked requests, and prefetches what their decisions read.
pub(crate) fn prefetch<'c, 'a>(
    requests: &'c [RequestRef<'a>],
    idempotency: &mut Idempotency,
    stock: &Stock,
) -> Prefetched<'c, 'a> {
    let mut prepared = Vec::with_capacity(requests.len());
    let mut commands: Vec<PreparedCommand<'a>> = Vec::with_capacity(requests.len());
    let mut fingerprint = 0;
    let keys = requests.iter().filter_map(|request| request.key.as_ref());
    let mut owners = idempotency.owners(keys);
    for request in requests {
        if commands.last().is_none_or(|last| last.bytes != request.command) {
            let command = PreparedCommand::new(request.command);
            fingerprint = command.fingerprint;
            commands.push(command);
        }
        let key = request.key.as_ref().map(|key| {
            let owner = owners.next().expect("every key has an owner");
            BoundKey::new(key, owner, fingerprint)
        });
        prepared.push(PreparedKey { key, command: commands.len().saturating_sub(1) });
    }
    drop(owners);
    prefetch_keys(idempotency, &prepared.iter().filter_map(|request| request.key));
    find_products(&mut commands, stock.products());
    Prefetched { requests, prepared, commands }
}

/// Prefetches the buckets of these keys, and of keys that they are likely to push out.
pub(crate) fn prefetch_keys(
    idempotency: &Idempotency,
    keys: &(impl Iterator<Item = BoundKey> + Clone),
) {
    for origin in [Origin::Client, Origin::Frontend] {
        let keys = keys.clone().filter(|key| key.origin() == origin);
        let keys = keys.map(|key| (key.owner(), key.hash()));
        let accepted = idempotency.windows(WindowId::accepted(origin));
        let refused = idempotency.windows(WindowId::refused(origin));
        let pushed_out = accepted.pushed_out_by(keys.clone().count());
        touch(keys.clone().map(|(owner, key)| accepted.window(owner).first_bucket(key)));
        touch(pushed_out.map(|(owner, key)| accepted.window(owner).first_bucket(key)));
        touch(keys.map(|(owner, key)| refused.window(owner).first_bucket(key)));
    }
}

/// Finds the product of each order of one line.
fn find_products(commands: &mut [PreparedCommand<'_>], products: &NameTable<Product>) {
    let lines = commands.iter().filter_map(|command| command.line.as_ref());
    prefetch_rows(products, &lines.map(|line| line.hash));
    for line in commands.iter_mut().filter_map(|command| command.line.as_mut()) {
        line.row = products.find(line.line.name, line.hash);
    }
}

/// Finds the row of each of these names, so that the memory reads of all searches overlap.
pub fn find_rows<'a, T>(
    table: &NameTable<T>,
    names: impl Iterator<Item = &'a str>,
) -> Vec<Option<Row>> {
    let names: Vec<_> = names.map(|name| (name, NameHash::new(name))).collect();
    prefetch_rows(table, &names.iter().map(|(_, hash)| *hash));
    names.iter().map(|(name, hash)| table.find(name, *hash)).collect()
}

/// Prefetches first the buckets of these names, then the rows that the buckets lead to.
fn prefetch_rows<T>(table: &NameTable<T>, hashes: &(impl Iterator<Item = NameHash> + Clone)) {
    touch(hashes.clone().map(|hash| table.first_bucket(hash)));
    touch(hashes.clone().map(|hash| table.first_row(hash)));
}

/// Makes sure that these reads are done, though nothing depends on their values.
fn touch(reads: impl Iterator<Item = u64>) {
    std::hint::black_box(reads.fold(0, |sum, read| sum ^ read));
}

/// Passes all items to `each`, in chunks of 64.
pub(crate) fn in_chunks<T>(mut items: impl Iterator<Item = T>, mut each: impl FnMut(&[T])) {
    let most = items.size_hint().1.map_or(CHUNK, |most| most.min(CHUNK));
    let mut chunk = Vec::with_capacity(most);
    loop {
        chunk.clear();
        chunk.extend(items.by_ref().take(CHUNK));
        if chunk.is_empty() {
            return;
        }
        each(&chunk);
    }
}

impl<'a> Prefetched<'_, 'a> {
    /// The requests, in order.
    pub(crate) fn requests(&self) -> impl Iterator<Item = PreparedRequest<'_, 'a>> {
        self.requests.iter().zip(&self.prepared).map(|(request, prepared)| {
            let command = self.commands.get(prepared.command);
            let command = command.expect("every request has a command");
            PreparedRequest { request, key: prepared.key, command }
        })
    }
}

impl<'a> PreparedCommand<'a> {
    /// Examines a command. Its product is not looked up yet.
    fn new(bytes: CommandRef<'a>) -> Self {
        let line = bytes.only_line();
        let line =
            line.map(|line| PreparedLine { line, hash: NameHash::new(line.name), row: None });
        Self { bytes, fingerprint: bytes.fingerprint64(), line, decoded: OnceCell::new() }
    }

    /// Row and line of an order of one line, if its product existed at the look-up. Such an order
    /// is decided without being decoded.
    pub(crate) fn product(&self) -> Option<(Row, LineRef<'a>)> {
        self.line.as_ref().and_then(|prepared| Some((prepared.row?, prepared.line)))
    }

    /// The decoded command.
    pub(crate) fn decoded(&self) -> &Command {
        self.decoded.get_or_init(|| self.bytes.command())
    }

    /// True if the command is an order.
    pub(crate) fn is_order(&self) -> bool {
        self.bytes.lines().is_some()
    }

    /// True if the command attaches or detaches a catalog.
    pub(crate) fn is_about_catalogs(&self) -> bool {
        self.bytes.lines().is_none()
            && matches!(self.decoded(), Command::Attach { .. } | Command::Detach { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::Name;

    #[test]
    fn each_of_many_rows_that_are_found_together_is_that_of_its_name() {
        let mut table = NameTable::default();
        let names: Vec<_> = (0..1_000_u32).map(|number| format!("toy {number}")).collect();
        let rows: Vec<_> =
            names.iter().map(|name| Some(table.put(Name::new(name).unwrap(), ()))).collect();
        let sought = names.iter().map(String::as_str).chain(["wolf", ""]);
        let found = find_rows(&table, sought);
        assert_eq!(found, [rows.as_slice(), &[None, None]].concat());
    }

    #[test]
    fn every_item_is_passed_once_in_order_and_in_full_chunks() {
        for count in [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let mut passed = Vec::new();
            let mut sizes = Vec::new();
            in_chunks(0..count, |chunk| {
                passed.extend_from_slice(chunk);
                sizes.push(chunk.len());
            });
            assert_eq!(passed, (0..count).collect::<Vec<_>>());
            let (last, full) = sizes.split_last().unwrap_or((&0, &[]));
            assert!(full.iter().all(|size| *size == CHUNK) && *last <= CHUNK, "{sizes:?}");
        }
    }
}
