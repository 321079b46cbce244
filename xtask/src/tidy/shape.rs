//! Checks the shape of a file: its opening sentence, and the size of its lines and functions.

use crate::tidy::blank::blank;
use crate::tidy::{Complaint, Source};

/// The most lines of a file. A file of 400 lines probably holds two ideas.
const FILE_LINES_MAX: usize = 500;

/// The most lines of a function, from its signature to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// The most columns of a line.
const COLUMNS_MAX: usize = 100;

/// The fewest characters of an opening sentence.
const SENTENCE_CHARS_MIN: usize = 12;

/// Every complaint about the shape of one text.
pub(crate) fn check(source: &Source) -> Vec<Complaint> {
    let Source { path, text } = source;
    let rust = source.is("rs");
    if !(rust || source.is("proto")) {
        return Vec::new();
    }
    let mut complaints = columns(path, text);
    if rust {
        complaints.extend(opening(path, text));
        complaints.extend(file_lines(path, text));
        complaints.extend(function_lines(path, text));
    }
    complaints
}

/// Every file begins with a comment that says what the file is for.
fn opening(path: &str, text: &str) -> Option<Complaint> {
    let first = text.lines().next().and_then(|line| line.strip_prefix("//! "));
    let opens = first.is_some_and(|sentence| SENTENCE_CHARS_MIN <= sentence.chars().count());
    (!opens).then(|| Complaint::at(path, 1, "the file does not say what it is for (`//!`)"))
}

fn file_lines(path: &str, text: &str) -> Option<Complaint> {
    let count = text.lines().count();
    let what = || format!("{count} lines; a file has {FILE_LINES_MAX} at most: split it by idea");
    (FILE_LINES_MAX < count).then(|| Complaint::whole(path, what()))
}

fn columns(path: &str, text: &str) -> Vec<Complaint> {
    let wide = |(at, line): (usize, &str)| {
        let count = line.chars().count();
        let what = || format!("{count} columns; a line has {COLUMNS_MAX} at most");
        (COLUMNS_MAX < count).then(|| Complaint::at(path, at + 1, what()))
    };
    text.lines().enumerate().filter_map(wide).collect()
}

fn function_lines(path: &str, text: &str) -> Vec<Complaint> {
    let code = blank(text);
    let mut complaints = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let part = |letter: char| letter.is_alphanumeric() || letter == '_';
        // A function's name follows; otherwise this is the type of a function.
        let starts_word = !code[..at].ends_with(part) && code[at + 3..].starts_with(part);
        let Some(length) = starts_word.then(|| body_end(&code[at..])).flatten() else { continue };
        let lines = code[at..at + length].lines().count();
        if FUNCTION_LINES_MAX < lines {
            let line = code[..at].matches('\n').count() + 1;
            let what =
                format!("{lines} lines; a function has {FUNCTION_LINES_MAX} at most: split it");
            complaints.push(Complaint::at(path, line, what));
        }
    }
    complaints
}

/// The bytes from a signature to the end of its body. `None`: there is no body.
///
/// The body begins with the first brace outside all brackets. `<` and `>` are brackets too, unless
/// they belong to an arrow: commas and braces within them belong to types.
fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    let mut before = ' ';
    for (at, letter) in code.char_indices() {
        let arrow = letter == '>' && matches!(before, '-' | '=');
        before = letter;
        match letter {
            '(' | '[' | '<' if braces == 0 => brackets += 1,
            ')' | ']' | '>' if braces == 0 && !arrow => brackets = brackets.checked_sub(1)?,
            ';' if braces == 0 && brackets == 0 => return None,
            '{' if 0 < braces || brackets == 0 => braces += 1,
            '}' if braces == 1 => return Some(at + 1),
            '}' => braces = braces.saturating_sub(1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> Vec<String> {
        let source = Source { path: path.into(), text: text.into() };
        check(&source).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_without_an_opening_sentence_is_caught() {
        assert!(complaints("a.rs", "//! What it is for.\n").is_empty());
        assert_eq!(complaints("a.rs", "use std::fmt;\n").len(), 1);
        assert_eq!(complaints("a.rs", "//! a.\n").len(), 1);
    }

    #[test]
    fn a_long_file_is_caught() {
        let long = format!("//! What it is for.\n{}", "\n".repeat(FILE_LINES_MAX));
        assert!(complaints("a.rs", &long)[0].contains("501 lines"));
    }

    #[test]
    fn a_wide_line_is_caught() {
        let wide = format!("//! What it is for.\n// {}\n", "é".repeat(98));
        assert_eq!(complaints("a.rs", &wide), ["a.rs:2: 101 columns; a line has 100 at most"]);
        assert_eq!(complaints("a.proto", &wide).len(), 1);
        assert!(complaints("a.md", &wide).is_empty());
    }

    #[test]
    fn a_long_function_is_caught_and_braces_in_strings_are_not_counted() {
        let body = |lines| "    go(\"}\");\n".repeat(lines);
        let file = |lines| {
            format!(
                "//! What it is for.\n\ntrait T {{\n    fn t(a: [u8; 2]);\n}}\n\n\
                 fn f() -> u8 {{\n{}}}\n",
                body(lines)
            )
        };
        assert!(complaints("a.rs", &file(68)).is_empty());
        let long = "a.rs:7: 71 lines; a function has 70 at most: split it";
        assert_eq!(complaints("a.rs", &file(69)), [long]);
    }

    /// Kind: signatures that hide their body from the rule.
    #[test]
    fn a_long_function_is_caught_under_any_signature() {
        for signature in [
            "fn f() -> Result<(), Stop> {",
            "fn f<T, U>(t: T, u: U) -> Option<(T, U)>\nwhere\n    T: Copy,\n    U: Copy,\n{",
            "fn f(go: impl Fn(u8) -> Result<u8, Stop>) -> impl Iterator<Item = (u8, u8)> {",
            "fn f<const N: usize>(t: Of<{ N + 1 }>) -> [u8; { N * 2 }] {",
            "const fn f<'a>(table: fn(&'a str, u8) -> u8, more: &'a [u8]) -> Map<&'a str, u8> {",
            "async fn f(&self) -> Vec<Vec<u8>> {",
        ] {
            let file = |lines| {
                let body = "    go();\n".repeat(lines);
                format!("//! What it is for.\n\n{signature}\n{body}}}\n")
            };
            let own = signature.lines().count();
            assert!(complaints("a.rs", &file(69 - own)).is_empty(), "{signature}");
            assert_eq!(
                complaints("a.rs", &file(70 - own)),
                ["a.rs:3: 71 lines; a function has 70 at most: split it"],
                "{signature}"
            );
        }
        let none =
            "trait T {\n    fn f(&self) -> Result<(), Stop>;\n}\n\ntype F = fn (u8, u8) -> u8;\n";
        let file = format!("//! What it is for.\n\n{none}\nmod m {{\n{}}}\n", "\n".repeat(80));
        assert!(complaints("a.rs", &file).is_empty());
    }
}
