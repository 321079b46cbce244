//! Idempotency keys: those that clients send, and those that a frontend makes where there is none.

use http::HeaderMap;
use ledger::terms::{Key, Origin};

use crate::answer::IDEMPOTENCY_KEY;

/// The keys that frontends make begin with this, so that a client that sends one back is
/// understood.
const OWN_KEY: &str = "frontend-";

const WHY: &str = "Idempotency-Key must be 1 to 255 visible ASCII characters";

/// The client's key, if there is one.
pub(crate) fn of_client(headers: &HeaderMap) -> Result<Option<Key>, &'static str> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err("Idempotency-Key was sent more than once");
    }
    given_as(value.to_str().map_err(|_| WHY)?).map(Some)
}

/// The key that was sent as `text`: 1 to 255 visible ASCII characters, bare or in double quotes.
pub(crate) fn given_as(text: &str) -> Result<Key, &'static str> {
    let text = text.trim();
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let text = quoted.unwrap_or(text);
    Key::new(origin(text), text).ok_or(WHY)
}

/// In whose window a key lives, by its text.
pub(crate) fn origin(text: &str) -> Origin {
    if text.starts_with(OWN_KEY) { Origin::Frontend } else { Origin::Client }
}

/// A key of our own: 128 random bits.
pub(crate) fn own() -> Key {
    let text = own_text(rand::random());
    Key::new(Origin::Frontend, &text).expect("it is short and all of it is visible ASCII")
}

/// The text of a key of our own.
pub(crate) fn own_text(luck: u128) -> String {
    format!("{OWN_KEY}{luck:032x}")
}
