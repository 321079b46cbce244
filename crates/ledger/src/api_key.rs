//! API keys: the terms of who asks, and of what may be asked.
//!
//! An API key authenticates a client and belongs to a [`Principal`], which owns idempotency keys
//! and orders. Several API keys may belong to one principal: that is how a key is replaced.

use std::fmt;

use smol_str::SmolStr;

/// The length of an API key's id, in characters.
pub const API_KEY_ID_BYTES: usize = 8;

/// The longest name of a principal, in bytes.
pub const PRINCIPAL_BYTES_MAX: usize = 64;

/// The longest note of an API key, in bytes of UTF-8.
pub const NOTE_BYTES_MAX: usize = 64;

/// The alphabet of ids and secrets: Crockford base 32 in lower case, without i, l, o and u.
pub const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The id of an API key: 8 characters of the [`ALPHABET`]. It is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiKeyId([u8; API_KEY_ID_BYTES]);

/// 128 bits of the BLAKE3 digest of a whole API key. The ledger never holds the key itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApiKeyDigest(pub [u8; 16]);

/// The owner of API keys, idempotency keys and orders: 1 to 64 characters `a-z`, `0-9`, `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(SmolStr);

/// The principal of a request, and the API key that it came with: `webshop/7f3kq2mw` as text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actor(SmolStr);

/// The most requests per second, and at once, of a [`RequestRate`].
pub const REQUEST_RATE_MAX: u32 = 1_000_000;

/// How many requests frontends take from the holder of an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestRate {
    per_second: u32,
    burst: u32,
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u16);

impl ApiKeyId {
    /// An id, or `None` if it is not 8 characters of the alphabet.
    pub fn new(text: &[u8]) -> Option<Self> {
        let id: [u8; API_KEY_ID_BYTES] = text.try_into().ok()?;
        id.iter().copied().all(is_in_alphabet).then_some(Self(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// True for a character of the [`ALPHABET`]. Every record with an actor, and every API key that is
/// sent, is checked by it.
pub(crate) fn is_in_alphabet(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z') && !matches!(byte, b'i' | b'l' | b'o' | b'u')
}

impl RequestRate {
    /// A rate, or `None` if either number is not from 1 to [`REQUEST_RATE_MAX`]. `burst`: how many
    /// requests may come at once.
    pub fn new(per_second: u32, burst: u32) -> Option<Self> {
        let is_allowed = |number| (1..=REQUEST_RATE_MAX).contains(&number);
        (is_allowed(per_second) && is_allowed(burst)).then_some(Self { per_second, burst })
    }

    /// The numbers of a rate, as formats and the wire hold them: twice 0 if there is none.
    pub fn numbers(rate: Option<Self>) -> (u32, u32) {
        rate.map_or((0, 0), |rate| (rate.per_second, rate.burst))
    }

    /// Requests per second on average.
    pub fn per_second(self) -> u32 {
        self.per_second
    }

    /// How many requests may come at once.
    pub fn burst(self) -> u32 {
        self.burst
    }
}

impl Principal {
    /// A principal, or `None` if the name is empty, too long, or has other characters.
    pub fn new(name: &str) -> Option<Self> {
        Self::fits(name.as_bytes()).then(|| Self(name.into()))
    }

    fn fits(name: &[u8]) -> bool {
        let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        (1..=PRINCIPAL_BYTES_MAX).contains(&name.len()) && name.iter().all(allowed)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Principal {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Actor {
    /// An API key of a principal.
    pub fn new(principal: &Principal, id: ApiKeyId) -> Self {
        Self(smol_str::format_smolstr!("{principal}/{id}"))
    }

    /// An actor from its text.
    pub fn parse(text: &str) -> Option<Self> {
        split_actor(text.as_bytes()).map(|_| Self(text.into()))
    }

    /// The actor as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the principal.
    pub fn principal(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(principal, _)| principal)
    }

    /// The id of the API key.
    pub fn id(&self) -> Option<ApiKeyId> {
        split_actor(self.0.as_bytes()).map(|(_, id)| id)
    }
}

/// A request's principal and API key, as bytes that were checked; `None`: it came without one.
pub(crate) type ActorParts<'a> = Option<(&'a [u8], ApiKeyId)>;

/// Splits the bytes of an actor into its principal and the id of its API key.
pub(crate) fn split_actor(actor: &[u8]) -> Option<(&[u8], ApiKeyId)> {
    let cut = actor.len().checked_sub(API_KEY_ID_BYTES)?;
    let (principal, id) = actor.split_at_checked(cut)?;
    let principal = principal.strip_suffix(b"/").filter(|principal| Principal::fits(principal))?;
    Some((principal, ApiKeyId::new(id)?))
}

/// The principal of checked bytes of an actor; empty bytes are no actor, and have none.
pub(crate) fn principal_of(actor: &[u8]) -> &[u8] {
    let end = actor.len().saturating_sub(API_KEY_ID_BYTES.saturating_add(1));
    actor.get(..end).unwrap_or_default()
}

/// The parts of checked bytes of an actor; empty bytes are no actor.
pub(crate) fn parts_of(actor: &[u8]) -> ActorParts<'_> {
    Some((principal_of(actor), ApiKeyId(*actor.last_chunk()?)))
}

/// Each scope with its name, in the order in which people see them.
const SCOPES: [(Scopes, &str); 8] = [
    (Scopes::QUERY, "query"),
    (Scopes::ORDER, "order"),
    (Scopes::ORDER_ANY, "order:any"),
    (Scopes::IMPORT, "import"),
    (Scopes::SHOP, "shop"),
    (Scopes::MONITOR, "monitor"),
    (Scopes::OPERATE, "operate"),
    (Scopes::KEYS, "keys"),
];

/// Each preset with its name.
const PRESETS: [(Scopes, &str); 6] = [
    (Scopes(0b0000_0011), "storefront"),
    (Scopes(0b0000_1010), "importer"),
    (Scopes(0b0011_0001), "owner"),
    (Scopes(0b0110_0000), "operator"),
    (Scopes(0b0010_0001), "viewer"),
    (Scopes::ALL, "root"),
];

impl Scopes {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Products, single and listed.
    pub const QUERY: Self = Self(1);
    /// Placing orders; looking up the principal's own.
    pub const ORDER: Self = Self(1 << 1);
    /// Looking up every order.
    pub const ORDER_ANY: Self = Self(1 << 2);
    /// Placing orders in batches, together with [`Self::ORDER`].
    pub const IMPORT: Self = Self(1 << 3);
    /// Defining, pricing and restocking products.
    pub const SHOP: Self = Self(1 << 4);
    /// The whole status.
    pub const MONITOR: Self = Self(1 << 5);
    /// Members, leadership and repair.
    pub const OPERATE: Self = Self(1 << 6);
    /// Issuing and revoking API keys, with no scope that the issuing key lacks.
    pub const KEYS: Self = Self(1 << 7);
    /// Everything.
    pub const ALL: Self = Self(0xff);
    /// What no API key has.
    pub(crate) const NEVER: Self = Self(1 << 15);
    /// The most that requests without an API key may do.
    pub const ANONYMOUS_MAX: Self = Self(0b0011_1111);
    /// What requests without an API key may do in an open store.
    pub const OPEN: Self = Self(0b0000_1111);

    /// The scopes of a list of names and presets, separated by commas; `none` is no scope.
    ///
    /// # Errors
    ///
    /// The first name that is neither.
    pub fn parse(list: &str) -> Result<Self, &str> {
        let mut all = Self::NONE;
        for name in list.split(',').map(str::trim).filter(|name| *name != "none") {
            let known = SCOPES.iter().chain(&PRESETS).find(|(_, known)| *known == name);
            all = all.with(known.ok_or(name)?.0);
        }
        Ok(all)
    }

    /// The scopes of these bits, or `None` if one of them is no scope.
    pub fn from_bits(bits: u16) -> Option<Self> {
        (bits & !Self::ALL.0 == 0).then_some(Self(bits))
    }

    /// The scopes as bits.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// True if all of `others` are among these.
    pub fn contain(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// These without the others.
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// These and the others.
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = SCOPES.iter().filter(|(scope, _)| self.contain(*scope)).map(|(_, name)| *name);
        let names: Vec<_> = names.collect();
        f.write_str(&if names.is_empty() { "nothing".to_owned() } else { names.join(", ") })
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A digest tells nothing about its key, but no log needs it.
impl fmt::Debug for ApiKeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyDigest")
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// True if a text can be the note of an API key.
pub fn is_note(note: &str) -> bool {
    note.len() <= NOTE_BYTES_MAX && !note.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_is_split_where_its_id_begins_and_nothing_else_passes_for_one() {
        let principal = Principal::new("web-shop").unwrap();
        let id = ApiKeyId::new(b"7f3kq2mw").unwrap();
        let actor = Actor::new(&principal, id);
        assert_eq!(actor.as_str(), "web-shop/7f3kq2mw");
        assert_eq!((actor.principal(), actor.id()), ("web-shop", Some(id)));
        assert_eq!(principal_of(actor.as_str().as_bytes()), b"web-shop");
        assert_eq!(principal_of(b""), b"");
        for odd in ["", "/7f3kq2mw", "a7f3kq2mw", "A/7f3kq2mw", "a/7f3kq2m", "a/7f3kq2mi", "a/b/7f"]
        {
            assert_eq!(Actor::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn the_characters_of_an_id_are_those_of_the_alphabet() {
        let found: Vec<_> = (0..=255).filter(|byte| is_in_alphabet(*byte)).collect();
        assert_eq!(found, ALPHABET);
    }

    #[test]
    fn scopes_are_read_by_name_and_preset_and_shown_by_name() {
        fn scopes(list: &str) -> Result<String, &str> {
            Scopes::parse(list).map(|scopes| scopes.to_string())
        }
        assert_eq!(scopes("storefront").as_deref(), Ok("query, order"));
        assert_eq!(scopes("importer").as_deref(), Ok("order, import"));
        assert_eq!(scopes("owner").as_deref(), Ok("query, shop, monitor"));
        assert_eq!(scopes("operator").as_deref(), Ok("monitor, operate"));
        assert_eq!(scopes("viewer,order:any").as_deref(), Ok("query, order:any, monitor"));
        assert_eq!(scopes("none").as_deref(), Ok("nothing"));
        assert_eq!(scopes("query,admin"), Err("admin"));
        let all = "query, order, order:any, import, shop, monitor, operate, keys";
        assert_eq!(scopes("root").as_deref(), Ok(all));
        assert_eq!(Scopes::from_bits(0x100), None);
    }
}
