//! Name check of new products: rejects names that look the same as another name.
//!
//! The check runs where a product is defined (a shop file, `ctl`, an owner's call) and not in the
//! ledger: Unicode's tables grow with each version, and a replica's decisions must not depend on
//! the version that it was built with. Names that exist already stay valid.

use std::ops::RangeInclusive;

use ledger::terms::Name;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Characters that a font may leave out (Unicode's `Default_Ignorable_Code_Point`), in every
/// category: the soft hyphen, the grapheme joiner, Hangul fillers, Khmer's inherent vowels,
/// variation selectors of Mongolian and of all other scripts, tags. Also the empty Braille pattern,
/// which looks like a blank.
const UNSEEN: [RangeInclusive<char>; 18] = [
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{202a}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fff8}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

/// Checks the name of a new product.
///
/// # Errors
///
/// The reason why `text` may not name a new product, as a sentence for the owner.
pub fn new_name(text: &str) -> Result<Name, String> {
    let name = Name::new(text).ok_or("a name has 1 to 128 bytes and no control characters")?;
    if matches!(text, "." | "..") {
        return Err(format!("{text:?} is no name: in a URL it means a folder"));
    }
    if text.trim() != text {
        return Err(format!("a name begins and ends with no blank, and {text:?} does"));
    }
    if let Some(unseen) = text.chars().find(|character| is_unseen(*character)) {
        return Err(format!(
            "a name has only characters that show, and U+{:04X} in {text:?} does not: leave it out",
            u32::from(unseen)
        ));
    }
    let composed: String = text.nfc().collect();
    if composed != text {
        return Err(format!(
            "a name is in Unicode's normal form C: {} where {} stands",
            composed.escape_unicode(),
            text.escape_unicode()
        ));
    }
    Ok(name)
}

/// True for control, format, private-use and unassigned characters, line ends, [`UNSEEN`], and
/// every blank except those that keyboards type: U+0020 and the ideographic space.
///
/// U+FE0F is among them although keyboards put it behind some emoji: a name looks the same with and
/// without it.
fn is_unseen(character: char) -> bool {
    match character.general_category() {
        GeneralCategory::Control
        | GeneralCategory::Format
        | GeneralCategory::PrivateUse
        | GeneralCategory::Unassigned
        | GeneralCategory::LineSeparator
        | GeneralCategory::ParagraphSeparator => true,
        GeneralCategory::SpaceSeparator => !matches!(character, ' ' | '\u{3000}'),
        _ => UNSEEN.iter().any(|range| range.contains(&character)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readable_names_are_accepted() {
        for text in [
            "a",
            "GameStart",
            "Füchse",
            "übergröße 2.0",
            "いぬ\u{3000}ねこ",
            "...",
            "a.b",
            "❤",
            "🦊",
        ] {
            assert_eq!(new_name(text).map(|name| name.to_string()).as_deref(), Ok(text));
        }
    }

    /// Covers every kind of character by which two names could look the same.
    #[test]
    fn names_that_look_like_another_name_are_rejected() {
        let edges = [" a", "a ", "a\u{a0}", "\u{3000}a", "\u{2003}a", "a\u{85}", " "];
        let unseen = [
            "a\u{200b}b",
            "\u{feff}a",
            "\u{202e}a",
            "a\u{2060}",
            "a\u{ad}b",
            "a\u{200d}b",
            "a\u{2028}b",
            "a\u{2029}b",
            "a\u{a0}b",
            "a\u{e000}b",
            "a\u{10fffd}",
            "a\u{e0041}",
            "a\u{61c}b",
            "\u{3164}",
            "a\u{115f}",
            "a\u{2800}b",
            "❤\u{fe0f}",
            "a\u{fe00}",
            "a\u{180b}",
            "a\u{180f}",
            "a\u{fff0}",
            "a\u{e0100}",
            "a\u{e0fff}",
            "a\u{1d173}b",
            "a\u{fdd0}",
            "a\u{ffff}",
            "a\u{1fffe}",
            "a\u{10ffff}",
            "a\u{378}",
            "a\tb",
            "a\u{9b}b",
        ];
        let decomposed = ["e\u{301}", "\u{212b}", "\u{1112}\u{1161}", "a\u{323}\u{307}\u{301}"];
        for text in edges.iter().chain(&unseen).chain(&decomposed).chain(&["", ".", ".."]) {
            assert!(new_name(text).is_err(), "{}", text.escape_unicode());
        }
    }

    #[test]
    fn the_error_says_what_is_wrong_with_a_name() {
        let table = [
            ("a ", "blank"),
            ("a\u{200b}", "U+200B"),
            ("❤\u{fe0f}", "U+FE0F"),
            ("a\u{e0100}", "leave it out"),
            ("e\u{301}", "normal form C: \\u{e9} where"),
            ("..", "folder"),
            ("", "1 to 128 bytes"),
        ];
        for (text, word) in table {
            let why = new_name(text).unwrap_err();
            assert!(why.contains(word), "{text:?} says {why:?}");
        }
    }
}
