//! The incarnation of a data folder: 128 random bits by which the replicas tell folders apart, and
//! its fingerprint.

use std::fmt::Write as _;

/// Begins a fingerprint.
const FINGERPRINT: &str = "h:";

/// 128 random bits as 32 hexadecimal digits.
pub(crate) type Hex = String;

/// A fresh incarnation.
pub(crate) fn draw() -> Hex {
    format!("{:032x}", rand::random::<u128>())
}

/// The fingerprint of an incarnation: says which data folder is meant, and no replica can call with
/// it. A fingerprint is its own fingerprint.
pub(crate) fn fingerprint(incarnation: &str) -> Hex {
    if is_fingerprint(incarnation) {
        return incarnation.to_owned();
    }
    let hash = blake3::hash(incarnation.as_bytes());
    let mut text = FINGERPRINT.to_owned();
    for byte in hash.as_bytes().iter().take(16) {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// True for a fingerprint.
pub(crate) fn is_fingerprint(text: &str) -> bool {
    text.strip_prefix(FINGERPRINT).is_some_and(is_hex)
}

/// Whether two texts, each an incarnation or a fingerprint, mean the same data folder.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    fingerprint(one) == fingerprint(other)
}

/// True for 128 bits in hexadecimal digits.
pub(crate) fn is_hex(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
