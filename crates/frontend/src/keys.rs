//! Idempotency keys: those that clients send, and those that a frontend makes if there is none.

use http::HeaderMap;
use ledger::terms::{Key, Origin};

use crate::answer::IDEMPOTENCY_KEY;

/// The prefix of the keys that frontends make: a client may send such a key back.
const OWN_KEY: &str = "frontend-";

const WHY: &str = "Idempotency-Key must be 1 to 255 visible ASCII characters";

/// The client's key, if the request has one.
pub(crate) fn of_client(headers: &HeaderMap) -> Result<Option<Key>, &'static str> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err("Idempotency-Key was sent more than once");
    }
    given_as(value.to_str().map_err(|_| WHY)?).map(Some)
}

/// Parses a key as sent: 1 to 255 visible ASCII characters, bare or in double quotes.
pub(crate) fn given_as(text: &str) -> Result<Key, &'static str> {
    let text = text.trim();
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let text = quoted.unwrap_or(text);
    Key::new(origin(text), text).ok_or(WHY)
}

/// The key window in which a key lives, by its text.
pub(crate) fn origin(text: &str) -> Origin {
    if text.starts_with(OWN_KEY) { Origin::Frontend } else { Origin::Client }
}

/// A key made by this frontend: 128 random bits.
pub(crate) fn own() -> Key {
    let text = own_text(rand::random());
    Key::new(Origin::Frontend, &text).expect("it is short and all of it is visible ASCII")
}

/// The text of a key made by this frontend.
pub(crate) fn own_text(random: u128) -> String {
    format!("{OWN_KEY}{random:032x}")
}
