//! The text of an API key: what a client sends, and the only place of its secret.
//!
//! `opk_7f3kq2mw_1v9c4tq8hz0rj5xk2ebn7ypw3mkd8x`: 43 characters of Crockford base 32 in lower case:
//! an id (40 bits), a secret (26 characters, 130 bits) and 4 check characters (20 bits of a CRC-32
//! of all before). The prefix lets scanners find leaked keys; the check characters tell a mistyped
//! key from an unknown one. The secret is random, so its digest needs no salt and no slow hash.

use std::fmt;

use crate::api_key::{ALPHABET, API_KEY_ID_BYTES, ApiKeyDigest, ApiKeyId, is_in_alphabet};

/// The first characters of every API key.
pub const API_KEY_PREFIX: &str = "opk_";

/// The length of an API key.
pub const API_KEY_TEXT_BYTES: usize = 43;

/// The length of a secret.
const SECRET_BYTES: usize = 26;

/// The length before the check characters.
const CHECKED_BYTES: usize = API_KEY_TEXT_BYTES - CHECK_BYTES;

/// The length of the check characters.
const CHECK_BYTES: usize = 4;

/// The number of random bytes that a new API key takes.
pub const RANDOM_BYTES: usize = API_KEY_ID_BYTES + SECRET_BYTES;

/// The text of an API key. It is never shown in full by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeyText(String);

/// Why a text is no API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnApiKey {
    /// The text does not have the form of an API key.
    #[error("it does not have the form of an API key: `opk_` and 39 letters and digits")]
    Form,
    /// The form is right, but the check characters do not match.
    #[error("it is mistyped: its check characters do not match")]
    Mistyped,
}

impl ApiKeyText {
    /// A new API key of these random bytes.
    pub fn new(random: &[u8; RANDOM_BYTES]) -> Self {
        let mut text = String::with_capacity(API_KEY_TEXT_BYTES);
        text.push_str(API_KEY_PREFIX);
        for (place, byte) in random.iter().enumerate() {
            if place == API_KEY_ID_BYTES {
                text.push('_');
            }
            text.push(letter(u32::from(*byte)));
        }
        let check = check(text.as_bytes());
        text.extend(check);
        Self(text)
    }

    /// The API key that this text is.
    pub fn parse(text: &str) -> Result<Self, NotAnApiKey> {
        parts(text.as_bytes()).map(|_| Self(text.to_owned()))
    }

    /// The whole text, for the one line that shows it and for the request that carries it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The key's id, which is no secret.
    pub fn id(&self) -> ApiKeyId {
        parts(self.0.as_bytes()).expect("the text was checked")
    }

    /// The digest that the ledger holds.
    pub fn digest(&self) -> ApiKeyDigest {
        digest(self.0.as_bytes())
    }
}

/// The id and the digest of the API key that these bytes are.
pub fn identify(text: &[u8]) -> Result<(ApiKeyId, ApiKeyDigest), NotAnApiKey> {
    Ok((parts(text)?, digest(text)))
}

fn digest(text: &[u8]) -> ApiKeyDigest {
    let hash = blake3::hash(text);
    ApiKeyDigest(hash.as_bytes().first_chunk().copied().unwrap_or_default())
}

/// Checks the bytes, and returns the id in them.
fn parts(text: &[u8]) -> Result<ApiKeyId, NotAnApiKey> {
    let rest = text.strip_prefix(API_KEY_PREFIX.as_bytes()).ok_or(NotAnApiKey::Form)?;
    let (id, rest) = rest.split_at_checked(API_KEY_ID_BYTES).ok_or(NotAnApiKey::Form)?;
    let secret = rest.strip_prefix(b"_").ok_or(NotAnApiKey::Form)?;
    let id = ApiKeyId::new(id).ok_or(NotAnApiKey::Form)?;
    let (checked, found) = text.split_at_checked(CHECKED_BYTES).ok_or(NotAnApiKey::Form)?;
    let has_form = found.len() == CHECK_BYTES && secret.iter().copied().all(is_in_alphabet);
    if !has_form {
        return Err(NotAnApiKey::Form);
    }
    let matches =
        found.iter().copied().eq(check(checked).map(|letter| u8::try_from(letter).unwrap_or(0)));
    if matches { Ok(id) } else { Err(NotAnApiKey::Mistyped) }
}

/// The check characters of the text before them.
fn check(text: &[u8]) -> [char; CHECK_BYTES] {
    let crc = crc32fast::hash(text);
    [15, 10, 5, 0].map(|shift| letter(crc >> shift))
}

/// The letter of the lowest five bits.
fn letter(bits: u32) -> char {
    let place = usize::try_from(bits & 31).unwrap_or(0);
    ALPHABET.get(place).map_or('0', |letter| char::from(*letter))
}

impl fmt::Debug for ApiKeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{API_KEY_PREFIX}{}_…", self.id())
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics has found something"
)]
mod tests {
    use super::*;

    fn key() -> ApiKeyText {
        let mut random = [0; RANDOM_BYTES];
        random.iter_mut().zip(7..).for_each(|(byte, value)| *byte = value);
        ApiKeyText::new(&random)
    }

    #[test]
    fn a_key_has_43_characters_and_reads_back() {
        let key = key();
        assert_eq!(key.reveal(), "opk_789abcde_fghjkmnpqrstvwxyz0123456787jaj");
        assert_eq!(ApiKeyText::parse(key.reveal()), Ok(key.clone()));
        assert_eq!(identify(key.reveal().as_bytes()), Ok((key.id(), key.digest())));
        assert_eq!(key.id().as_str(), "789abcde");
    }

    #[test]
    fn one_wrong_letter_or_two_swapped_are_found() {
        let text = key().reveal().to_owned();
        for place in API_KEY_PREFIX.len()..text.len() {
            let mut bytes = text.clone().into_bytes();
            let other = if bytes[place] == b'z' { b'y' } else { b'z' };
            if bytes[place] == b'_' {
                continue;
            }
            bytes[place] = other;
            assert_eq!(identify(&bytes), Err(NotAnApiKey::Mistyped), "place {place}");
            let mut bytes = text.clone().into_bytes();
            if place + 1 < bytes.len() && bytes[place + 1] != b'_' {
                bytes.swap(place, place + 1);
                let same = bytes == text.as_bytes();
                assert_eq!(identify(&bytes).is_ok(), same, "places {place} and the next");
            }
        }
    }

    #[test]
    fn what_has_another_form_is_no_key() {
        let text = key().reveal().to_owned();
        for odd in ["", "opk_", "Bearer", &text[1..], &text[..42], &format!("{text}0")] {
            assert_eq!(ApiKeyText::parse(odd), Err(NotAnApiKey::Form), "{odd}");
        }
        for (from, to) in [("opk_", "OPK_"), ("_f", "-f"), ("789", "78I"), ("k", "é")] {
            let odd = text.replacen(from, to, 1);
            assert_eq!(ApiKeyText::parse(&odd), Err(NotAnApiKey::Form), "{odd}");
        }
    }

    #[test]
    fn no_debug_output_has_the_secret() {
        let shown = format!("{:?} {:?}", key(), key().digest());
        assert_eq!(shown, "opk_789abcde_… ApiKeyDigest");
    }
}
