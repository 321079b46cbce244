//! Log escaping: shows untrusted text in a log line without letting it forge or fill the log.
//!
//! A request's target or a peer's name may hold any bytes. Written raw, a line break forges a line,
//! a terminal executes escape sequences, and targets of 60 KB fill a disk. Quotes, backslashes,
//! control characters (C0 and C1) and all non-ASCII bytes become `\xNN`; a long text is cut off.

use std::fmt;

/// The most bytes of a log line that one escaped text takes.
pub const ESCAPED_BYTES_MAX: usize = 256;

/// The mark at the place where a text was cut off.
const CUT: &str = "...";

/// A text that is displayed escaped, in at most [`ESCAPED_BYTES_MAX`] bytes unless `within` says
/// otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a> {
    bytes: &'a [u8],
    max: usize,
}

/// Wraps `text` to be displayed escaped.
pub fn escaped<T: AsRef<[u8]> + ?Sized>(text: &T) -> Escaped<'_> {
    Escaped { bytes: text.as_ref(), max: ESCAPED_BYTES_MAX }
}

impl Escaped<'_> {
    /// Limits the displayed text to `max` bytes.
    #[must_use]
    pub fn within(self, max: usize) -> Self {
        Self { max, ..self }
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.bytes;
        let mut left = self.max;
        while let Some(first) = rest.first() {
            let plain = rest.iter().position(|byte| !is_plain(*byte)).unwrap_or(rest.len());
            let cost = if plain == 0 { 4 } else { plain };
            // The last part may fill the whole room; every other part leaves room for the mark.
            let ends = rest.len() == plain.max(1);
            let left_for_part = if ends { left } else { left.saturating_sub(CUT.len()) };
            if plain == 0 {
                if left_for_part < cost {
                    return f.write_str(CUT);
                }
                write!(f, "\\x{first:02X}")?;
                rest = &rest[1..];
            } else {
                let fits =
                    if cost <= left_for_part { plain } else { left.saturating_sub(CUT.len()) };
                f.write_str(std::str::from_utf8(&rest[..fits]).unwrap_or_default())?;
                if fits < plain {
                    return f.write_str(CUT);
                }
                rest = &rest[plain..];
            }
            left -= cost;
        }
        Ok(())
    }
}

/// True for bytes that need no escaping.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_text_forges_no_line_and_runs_no_terminal_escape() {
        for (text, shown) in [
            ("", ""),
            ("frontend 127.0.0.1:1234", "frontend 127.0.0.1:1234"),
            ("a\nERROR b", r"a\x0AERROR b"),
            ("\r\u{1b}[2J", r"\x0D\x1B[2J"),
            ("\u{9b}31m", r"\xC2\x9B31m"),
            ("\"quoted\\", r"\x22quoted\x5C"),
            ("\u{7f}caf\u{e9}", r"\x7Fcaf\xC3\xA9"),
            ("\u{202e}drawkcab\u{2028}", r"\xE2\x80\xAEdrawkcab\xE2\x80\xA8"),
        ] {
            assert_eq!(escaped(text).to_string(), shown, "{text:?}");
        }
        assert_eq!(escaped(&[0xe9, b'/']).to_string(), r"\xE9/", "the bytes are not UTF-8");
    }

    #[test]
    fn an_escaped_text_stays_within_its_limit() {
        for unit in ["a", "\n", "ab\n", "\u{e9}x"] {
            for length in 0..200 {
                for max in [16, 17, 18, 19, 20, 256] {
                    let text = unit.repeat(length);
                    let shown = escaped(&text).within(max).to_string();
                    assert!(shown.len() <= max, "{unit:?} {length} {max}: {shown}");
                    assert!(shown.is_ascii());
                    let whole = escaped(&text).within(usize::MAX).to_string();
                    assert!(shown == whole || shown.ends_with(CUT), "{shown}");
                    assert!(max < 2 * text.len() * 4 || shown == whole, "{shown} {whole}");
                }
            }
        }
    }
}
