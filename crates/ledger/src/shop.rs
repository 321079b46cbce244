//! The state of the shop: what readers see of a ledger, and the rules that change it.
//!
//! It has no key windows, so no entry can be applied to it alone: that needs a
//! [`Ledger`](crate::ledger::Ledger). While a replica installs a snapshot, its keys are
//! [being restored](crate::restore), and the state of the shop answers reads meanwhile.

use std::collections::BTreeMap;

use crate::access::Access;
use crate::api_key::{ActorParts, Scopes};
use crate::block::Header;
use crate::change::Change;
use crate::codec::BatchRef;
use crate::command::{CATALOGS_MAX, Command, Shop};
use crate::outcome::{Accepted, Refusal};
use crate::prefetch::PreparedCommand;
use crate::state::State;
use crate::stock::{Product, Stock};
use crate::terms::{Digest, Index, LedgerId, Name, ORDER_NUMBER_MAX, OrderNumber, Timestamp};
use crate::windows::PerOwner;

/// Everything that holds at an index, except the blocks and the keys.
#[derive(Clone, Debug, Default)]
pub struct ShopState {
    applied: Index,
    settled: Index,
    at: Timestamp,
    ledger_id: Option<LedgerId>,
    first_order_number: OrderNumber,
    next_order_number: OrderNumber,
    digest: Digest,
    stock: Stock,
    attached: BTreeMap<u64, Name>,
    access: Access,
}

/// What all decisions of an entry depend on, besides the ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryContext {
    pub(crate) index: Index,
    pub(crate) term: u64,
    pub(crate) at: Timestamp,
    /// The greatest number that an order may get.
    pub(crate) order_number_max: u64,
}

impl ShopState {
    /// The index of the last applied entry.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// The greatest settled index that an entry carried so far.
    pub fn settled(&self) -> Index {
        self.settled
    }

    /// Log time: the greatest stamp so far.
    pub fn log_time(&self) -> Timestamp {
        self.at
    }

    /// The ledger's identity, once it is open.
    pub fn ledger_id(&self) -> Option<LedgerId> {
        self.ledger_id
    }

    /// True once the shop is open.
    pub fn is_open(&self) -> bool {
        self.ledger_id.is_some()
    }

    /// The number of the first order.
    pub fn first_order_number(&self) -> OrderNumber {
        self.first_order_number
    }

    /// The number that the next order gets.
    pub fn next_order_number(&self) -> OrderNumber {
        self.next_order_number
    }

    /// The digest of all that was applied; equal on every replica at equal applied index.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The product with this name, as watchers receive it.
    pub fn product(&self, name: &str) -> Option<Change> {
        self.stock.change(name)
    }

    /// At most `limit` products with names above `after`, in name order.
    pub fn products(&self, after: Option<&str>, limit: usize) -> Vec<Change> {
        self.stock.list(after, limit)
    }

    /// The product with this name, with the totals by which it is audited.
    pub fn audited(&self, name: &str) -> Option<&Product> {
        self.stock.get(name)
    }

    /// The number of products.
    pub fn product_count(&self) -> usize {
        self.stock.len()
    }

    /// The attached catalogs, by incarnation.
    pub fn attached(&self) -> impl Iterator<Item = (u64, &Name)> + '_ {
        self.attached.iter().map(|(incarnation, name)| (*incarnation, name))
    }

    /// True if this catalog is attached.
    pub fn is_attached(&self, incarnation: u64) -> bool {
        self.attached.contains_key(&incarnation)
    }

    /// The API keys, and what requests without one may do.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The state in memory of a snapshot's state.
    pub(crate) fn from_state(state: State) -> Self {
        let mut stock = Stock::default();
        state.products.into_iter().for_each(|(name, product)| stock.put(name, product));
        Self {
            applied: state.applied,
            settled: state.settled,
            at: state.at,
            ledger_id: state.ledger_id,
            first_order_number: state.first_order_number,
            next_order_number: state.next_order_number,
            digest: state.digest,
            stock,
            attached: state.attached.into_iter().collect(),
            access: state.access,
        }
    }

    /// The state for a snapshot. The blocks above `keys_after` hold the keys, whose numbers are
    /// `key_counts`.
    pub(crate) fn to_state(&self, keys_after: Index, key_counts: Option<PerOwner<u64>>) -> State {
        let attached = self.attached().map(|(incarnation, name)| (incarnation, name.clone()));
        State {
            applied: self.applied,
            settled: self.settled,
            at: self.at,
            ledger_id: self.ledger_id,
            first_order_number: self.first_order_number,
            next_order_number: self.next_order_number,
            digest: self.digest,
            keys_after,
            key_counts,
            products: self.stock.iter().map(|(name, p)| (name.clone(), p.clone())).collect(),
            attached: attached.collect(),
            access: self.access.clone(),
        }
    }

    /// The products with their stock.
    pub(crate) fn stock(&self) -> &Stock {
        &self.stock
    }

    /// Advances to an entry, whose batch is `None` if it carries none.
    pub(crate) fn advance(&mut self, index: Index, batch: Option<&BatchRef<'_>>) {
        assert!(self.applied < index, "entry {index} comes again after {}", self.applied);
        self.applied = index;
        if let Some(batch) = batch {
            self.settled = self.settled.max(batch.settled);
            self.at = self.at.max(batch.at);
        }
    }

    /// The header of the next block, as far as it is known before the entry is decided.
    pub(crate) fn next_header(&self, entry: EntryContext) -> Header {
        Header {
            index: entry.index,
            term: entry.term,
            at: entry.at,
            first_order_number: self.next_order_number,
            orders: 0,
            previous: self.digest,
            digest: Digest::default(),
        }
    }

    /// Ends an entry with the digest of its block. `None`: the entry carried no requests. Returns
    /// the latest value of each product that the entry changed, in name order.
    pub(crate) fn end_entry(&mut self, digest: Option<Digest>) -> Vec<Change> {
        self.digest = digest.unwrap_or(self.digest);
        self.stock.changes()
    }

    /// Notes a command about API keys, or one that begins a new series of order numbers, also if it
    /// is refused: from then on the log is not one of release 0.1.
    pub(crate) fn note_command(&mut self, entry: EntryContext, command: &PreparedCommand<'_>) {
        let is_newer = |command: &Command| {
            command.is_about_api_keys() || matches!(command, Command::Reopen { .. })
        };
        if !command.is_order() && is_newer(command.decoded()) {
            self.access.begin(entry.index);
        }
    }

    /// Checks that the API key of a request allows this command, or that none is needed.
    pub(crate) fn check_rights(
        &self,
        entry: EntryContext,
        actor: ActorParts<'_>,
        command: &PreparedCommand<'_>,
    ) -> Result<(), Refusal> {
        let needed = if command.is_order() { Scopes::ORDER } else { needed(command.decoded()) };
        // Requests of processes and operators have no API key; they are no orders of clients.
        if actor.is_none() && !command.is_order() {
            return Ok(());
        }
        self.access.check(actor, needed, entry.at)
    }

    /// Carries out a command, or refuses it.
    pub(crate) fn carry_out(
        &mut self,
        entry: EntryContext,
        actor: ActorParts<'_>,
        command: &PreparedCommand<'_>,
    ) -> Result<Accepted, Refusal> {
        // A product exists only in an open shop, so this order needs no check for that.
        let Some((row, line)) = command.product() else {
            return self.perform(entry, actor, command.decoded());
        };
        self.check_numbers_left(entry)?;
        self.stock.place_one(row, line.quantity, line.side, entry.index)?;
        Ok(self.placed())
    }

    fn perform(
        &mut self,
        entry: EntryContext,
        actor: ActorParts<'_>,
        command: &Command,
    ) -> Result<Accepted, Refusal> {
        let EntryContext { index, term, at, .. } = entry;
        match command {
            Command::Open(shop) => return Ok(self.open(shop, index)),
            Command::Attach { incarnation, name } => return self.attach(*incarnation, name),
            Command::Detach { incarnation, term: decided } => {
                let valid = *decided == term && self.attached.remove(incarnation).is_some();
                return Ok(if valid { Accepted::Done } else { Accepted::Unchanged });
            }
            // A closed store gets its first API key before it opens.
            Command::IssueApiKey(new) => return self.access.issue(new, actor, (index, at)),
            Command::RevokeApiKey { id, ends } => {
                return self.access.revoke(*id, *ends, (index, at));
            }
            Command::SetAnonymousScopes(scopes) => {
                return self.access.set_anonymous(*scopes, index);
            }
            Command::OperatorAction(_) => {}
            _ if !self.is_open() => return Err(Refusal::NotOpen),
            Command::Reopen { next_number } => return self.reopen(*next_number),
            Command::Define(definition) => self.stock.define(definition, index)?,
            Command::SetPrice { name, price } => self.stock.set_price(name, *price, index)?,
            Command::RestockBy { name, quantity } => {
                self.stock.restock(name, quantity.get(), index)?;
            }
            Command::RestockTo { name, quantity } => {
                let product = self.stock.get(name.as_str());
                let product = product.ok_or_else(|| Refusal::NoSuchProduct(name.clone()))?;
                if product.stock != 0 {
                    return Ok(Accepted::Unchanged);
                }
                self.stock.restock(name, quantity.get(), index)?;
            }
            Command::Place(lines) => {
                self.check_numbers_left(entry)?;
                self.stock.place(lines, index)?;
                return Ok(self.placed());
            }
        }
        Ok(Accepted::Done)
    }

    /// Fails if the next order's number is one that some clients cannot read exactly.
    fn check_numbers_left(&self, entry: EntryContext) -> Result<(), Refusal> {
        if entry.order_number_max < self.next_order_number.0 {
            return Err(Refusal::NumbersExhausted);
        }
        Ok(())
    }

    /// Gives the next number to an accepted order.
    fn placed(&mut self) -> Accepted {
        let number = self.next_order_number;
        self.next_order_number = number.next();
        Accepted::Placed(number)
    }

    fn open(&mut self, shop: &Shop, index: Index) -> Accepted {
        if self.is_open() {
            return Accepted::Unchanged;
        }
        self.ledger_id = Some(shop.ledger_id);
        self.first_order_number = shop.first_order_number;
        self.next_order_number = shop.first_order_number;
        for definition in &shop.products {
            // Of a repeated name, the first definition counts.
            let _ = self.stock.define(definition, index);
        }
        Accepted::Done
    }

    /// Begins a new series of order numbers. Numbers never go back.
    fn reopen(&mut self, next_number: OrderNumber) -> Result<Accepted, Refusal> {
        if ORDER_NUMBER_MAX < next_number.0 {
            return Err(Refusal::NumbersExhausted);
        }
        if next_number <= self.next_order_number {
            return Ok(Accepted::Unchanged);
        }
        self.next_order_number = next_number;
        Ok(Accepted::Done)
    }

    fn attach(&mut self, incarnation: u64, name: &Name) -> Result<Accepted, Refusal> {
        if self.attached.contains_key(&incarnation) {
            return Ok(Accepted::Unchanged);
        }
        if CATALOGS_MAX <= self.attached.len() {
            return Err(Refusal::CatalogsLimit);
        }
        self.attached.insert(incarnation, name.clone());
        Ok(Accepted::Done)
    }
}

/// What an API key needs for a command. No API key attaches catalogs, opens shops or begins a
/// series of order numbers.
fn needed(command: &Command) -> Scopes {
    match command {
        Command::Place(_) => Scopes::ORDER,
        Command::Define(_)
        | Command::SetPrice { .. }
        | Command::RestockBy { .. }
        | Command::RestockTo { .. } => Scopes::SHOP,
        Command::IssueApiKey(_) | Command::RevokeApiKey { .. } | Command::SetAnonymousScopes(_) => {
            Scopes::KEYS
        }
        Command::OperatorAction(_) => Scopes::OPERATE,
        Command::Open(_)
        | Command::Attach { .. }
        | Command::Detach { .. }
        | Command::Reopen { .. } => Scopes::NEVER,
    }
}
