//! Log escaping: text that came from outside, as a line of a log may show it.
//!
//! A request's target or a peer's name may hold anything. Raw, a line break forges a line, a
//! terminal runs its escapes, and 60 KB fill a disk. Here quotes, backslashes, control characters
//! (C0 and C1) and everything beyond ASCII become `\xNN`, byte by byte, and the rest is cut off.

use std::fmt;

/// The most bytes that one escaped text takes in a line.
pub const ESCAPED_BYTES_MAX: usize = 256;

/// What stands where a text was cut.
const CUT: &str = "...";

/// Shows a text escaped, in at most [`ESCAPED_BYTES_MAX`] bytes.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a> {
    bytes: &'a [u8],
    max: usize,
}

/// Shows `text` escaped.
pub fn escaped<T: AsRef<[u8]> + ?Sized>(text: &T) -> Escaped<'_> {
    Escaped { bytes: text.as_ref(), max: ESCAPED_BYTES_MAX }
}

impl Escaped<'_> {
    /// The same in at most `max` bytes.
    #[must_use]
    pub fn within(self, max: usize) -> Self {
        Self { max, ..self }
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut rest, mut room) = (self.bytes, self.max);
        while let Some(first) = rest.first() {
            let plain = rest.iter().position(|byte| !is_plain(*byte)).unwrap_or(rest.len());
            let cost = if plain == 0 { 4 } else { plain };
            // What ends here may fill the room; what goes on leaves some for the dots.
            let ends = rest.len() == plain.max(1);
            let room_here = if ends { room } else { room.saturating_sub(CUT.len()) };
            if plain == 0 {
                if room_here < cost {
                    return f.write_str(CUT);
                }
                write!(f, "\\x{first:02X}")?;
                rest = &rest[1..];
            } else {
                let fits = if cost <= room_here { plain } else { room.saturating_sub(CUT.len()) };
                f.write_str(std::str::from_utf8(&rest[..fits]).unwrap_or_default())?;
                if fits < plain {
                    return f.write_str(CUT);
                }
                rest = &rest[plain..];
            }
            room -= cost;
        }
        Ok(())
    }
}

/// True for bytes that a log shows as they are.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_came_from_outside_forges_a_line_or_runs_in_a_terminal() {
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
        assert_eq!(escaped(&[0xe9, b'/']).to_string(), r"\xE9/", "no UTF-8 at all");
    }

    #[test]
    fn a_text_takes_no_more_of_a_line_than_its_bound() {
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
