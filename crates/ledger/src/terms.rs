//! The domain's types, so that two numbers cannot be exchanged by mistake.
//!
//! Each type states its unit and its limits. Constructors reject values outside the limits, so the
//! rules of the ledger never meet an impossible value.

use std::fmt;
use std::sync::Arc;

use smol_str::SmolStr;

use crate::api_key::Actor;

/// The greatest quantity in one line of an order or one restock: 1,000,000 pieces.
pub const QUANTITY_MAX: u64 = 1_000_000;

/// The greatest stock of a product: 2^53 − 1, the last integer that every JSON reader keeps exact.
pub const STOCK_MAX: u64 = (1 << 53) - 1;

/// The greatest number of an order: 2^53 − 1, the last integer that every JSON reader keeps exact.
/// The next order is refused.
pub const ORDER_NUMBER_MAX: u64 = (1 << 53) - 1;

/// The greatest number that a shop's first order may have: 10^15 orders fit between it and
/// [`ORDER_NUMBER_MAX`].
pub const FIRST_ORDER_NUMBER_MAX: u64 = 8_000_000_000_000_000;

/// The greatest price: 10^13 cents, so that price × quantity stays far inside 64 bits.
pub const CENTS_MAX: u64 = 10_000_000_000_000;

/// The longest product name, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 128;

/// The longest idempotency key, in bytes (visible ASCII).
pub const KEY_BYTES_MAX: usize = 255;

/// A position in the log: the store's logical time. 0 means "before everything".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

/// The number of an accepted order. Dense from the shop's first order number on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderNumber(pub u64);

/// Log time in milliseconds since the Unix epoch. The leader stamps it, and it never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// The index and the log time of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryTime {
    pub(crate) index: Index,
    pub(crate) at: Timestamp,
}

/// Money in integer cents, 0 to [`CENTS_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cents(u64);

/// A number of pieces, 1 to [`QUANTITY_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(u32);

/// A product's name: 1 to [`NAME_BYTES_MAX`] bytes of UTF-8 without control characters, compared
/// exactly. Names of up to 23 bytes, nearly all names, need no heap memory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(SmolStr);

/// The identity of one ledger: 128 random bits drawn by the leader that opened the shop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LedgerId(pub [u8; 16]);

/// A digest of everything applied up to an index; equal on every replica at equal index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// The maker of an idempotency key. Each origin has key windows of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The client sent the key and may rely on it for the whole key window.
    Client,
    /// A frontend made the key for a request without one; it covers only the frontend's own
    /// retries.
    Frontend,
}

/// An idempotency key: one key, one answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The maker of the key, which selects its window.
    pub origin: Origin,
    /// The API key that the request came with. `None`: none. An idempotency key belongs to the
    /// principal: the same text of another principal is another key.
    pub actor: Option<Actor>,
    /// 1 to [`KEY_BYTES_MAX`] visible ASCII characters.
    text: Arc<str>,
}

impl Index {
    /// The position after this one. The engine counts entries one by one, so none reaches 2^64. The
    /// greatest position, which tests use as "after everything", is its own successor.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl OrderNumber {
    /// The number after this one. A ledger gives out none above [`ORDER_NUMBER_MAX`], except in
    /// batches before version 2: there the last 64-bit number repeats, and such entries are applied
    /// again as they were.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Cents {
    /// A price, or `None` above [`CENTS_MAX`].
    pub fn new(cents: u64) -> Option<Self> {
        (cents <= CENTS_MAX).then_some(Self(cents))
    }

    /// The amount in cents.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl Quantity {
    /// A quantity, or `None` outside 1 to [`QUANTITY_MAX`].
    pub fn new(pieces: u64) -> Option<Self> {
        let small = u32::try_from(pieces).ok()?;
        (1..=QUANTITY_MAX).contains(&pieces).then_some(Self(small))
    }

    /// The number of pieces.
    pub fn get(self) -> u64 {
        u64::from(self.0)
    }
}

impl Name {
    /// A name, or `None` if it is empty, longer than [`NAME_BYTES_MAX`] or has control characters.
    pub fn new(name: &str) -> Option<Self> {
        Self::fits(name).then(|| Self(name.into()))
    }

    /// True if a text is a valid name.
    pub fn fits(name: &str) -> bool {
        if name.is_empty() || NAME_BYTES_MAX < name.len() {
            return false;
        }
        // Most names are plain ASCII, and bytes are checked faster than characters.
        if name.is_ascii() {
            !name.bytes().any(|byte| byte.is_ascii_control())
        } else {
            !name.chars().any(char::is_control)
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Key {
    /// A key, or `None` if it is empty, too long or not visible ASCII.
    pub fn new(origin: Origin, text: &str) -> Option<Self> {
        let key = || Self { origin, actor: None, text: text.into() };
        Self::fits(text.as_bytes()).then(key)
    }

    /// True if bytes are the text of a valid key.
    pub fn fits(text: &[u8]) -> bool {
        let short = !text.is_empty() && text.len() <= KEY_BYTES_MAX;
        short && text.iter().all(u8::is_ascii_graphic)
    }

    /// The same key, sent with this API key.
    pub fn sent_by(self, actor: Option<Actor>) -> Self {
        Self { actor, ..self }
    }

    /// The name of the key's principal; empty for a request without an API key.
    pub fn principal(&self) -> &str {
        self.actor.as_ref().map_or("", Actor::principal)
    }

    /// The key as text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for OrderNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for LedgerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
