//! `.env`: the lines `NAME=value` of a file, as a pure function over its bytes.
//!
//! What cannot be understood is an error with its line: a setting is never passed over. A value may
//! stand in single quotes (as it is), in double quotes (with `\"`, `\\`, `\$`, `\n`, `\t`), or
//! bare, and then ends before blanks and a `#`. Nothing is replaced: see [`Line::replaces`].

use std::iter::Peekable;
use std::str::Chars;

/// One `NAME=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its number, from 1.
    pub(crate) number: usize,
    /// The name.
    pub(crate) name: String,
    /// The value, without its quotes.
    pub(crate) value: String,
    /// Whether a shell would put the value of a variable (`$NAME`, `${NAME}`) into it.
    pub(crate) replaces: bool,
}

/// Every `NAME=value` of a file, or why not.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Line>, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("is UTF-16: save it as UTF-8".into());
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        format!("line {line}: is not UTF-8: save the file as UTF-8")
    })?;
    let mut lines = Vec::new();
    for (place, line) in text.lines().enumerate() {
        let number = place + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = entry(line).map_err(|why| format!("line {number}: {why}"))?;
        let (name, (value, replaces)) = parsed;
        lines.push(Line { number, name, value, replaces });
    }
    Ok(lines)
}

fn entry(line: &str) -> Result<(String, (String, bool)), String> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let odd = || format!("expected NAME=value, found {line:?}");
    let (name, value) = line.split_once('=').ok_or_else(odd)?;
    let name = name.trim();
    let letters = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    if name.is_empty() || !name.chars().all(letters) {
        return Err(odd());
    }
    let start = value.trim_start();
    let value = match start.chars().next() {
        Some(quote @ ('"' | '\'')) => quoted(start[1..].chars().peekable(), quote)?,
        _ => (bare(value).to_owned(), names_variable(bare(value))),
    };
    Ok((name.to_owned(), value))
}

/// Up to blanks with a `#` behind them.
fn bare(value: &str) -> &str {
    let remark = value.match_indices('#').map(|(at, _)| &value[..at]);
    let before = remark.into_iter().find(|before| before.ends_with(char::is_whitespace));
    before.unwrap_or(value).trim()
}

fn quoted(mut rest: Peekable<Chars<'_>>, quote: char) -> Result<(String, bool), String> {
    let (mut value, mut replaces) = (String::new(), false);
    loop {
        match rest.next() {
            None => return Err(format!("the quote {quote} has no end on its line")),
            Some(letter) if letter == quote => break,
            Some('\\') if quote == '"' => match rest.next() {
                Some(letter @ ('"' | '\\' | '$')) => value.push(letter),
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                other => {
                    let other = other.map_or_else(String::new, String::from);
                    return Err(format!("\\{other} means nothing here: write \\\\ for \\"));
                }
            },
            Some('$') if quote == '"' => {
                let next = rest.peek().copied().unwrap_or(' ');
                replaces |= next == '{' || next == '_' || next.is_ascii_alphabetic();
                value.push('$');
            }
            Some(letter) => value.push(letter),
        }
    }
    let after: String = rest.collect();
    let remark = after.trim_start();
    match remark.is_empty() || (remark.starts_with('#') && remark.len() < after.len()) {
        true => Ok((value, replaces)),
        false => Err(format!("{remark:?} stands behind the quotes: quote the whole value")),
    }
}

fn names_variable(value: &str) -> bool {
    let named = |(at, _)| {
        let next = value[at + 1..].chars().next();
        next.is_some_and(|next| next == '{' || next == '_' || next.is_ascii_alphabetic())
    };
    value.match_indices('$').any(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(line: &str) -> Result<String, String> {
        let lines = parse(line.as_bytes())?;
        assert_eq!((lines.len(), lines[0].name.as_str()), (1, "NAME"), "{line}");
        Ok(lines[0].value.clone())
    }

    #[test]
    fn a_value_is_what_a_person_means() {
        for (line, expected) in [
            ("NAME=5", "5"),
            ("export NAME = 5 ", "5"),
            ("NAME=5 # five", "5"),
            ("NAME=5\t# five # times", "5"),
            ("NAME=a#b", "a#b"),
            ("NAME=#5", "#5"),
            ("NAME=", ""),
            ("NAME= # none", ""),
            ("NAME=a b", "a b"),
            ("NAME='a # b' # c", "a # b"),
            ("NAME='\\n$X'", "\\n$X"),
            ("NAME=\"a\\\"b\\\\c\\td\\$X\"", "a\"b\\c\td$X"),
            ("NAME=\"\"", ""),
            ("\u{feff}NAME=5\r\n", "5"),
            ("NAME=a=b", "a=b"),
        ] {
            assert_eq!(value(line).as_deref(), Ok(expected), "{line}");
        }
    }

    /// Kind: a line that is passed over, or read as something else.
    #[test]
    fn a_line_that_cannot_be_understood_is_an_error_with_its_number() {
        for (text, words) in [
            (&b"A=1\nnonsense\n"[..], "line 2"),
            (b"A B=1", "line 1"),
            (b"=1", "line 1"),
            (b"A=\"1", "no end"),
            (b"A='1", "no end"),
            (b"A='1'2", "behind"),
            (b"A='1'#2", "behind"),
            (b"A=\"\\x\"", "\\x"),
            (b"A=1\nB=\xff\n", "line 2"),
            (b"\xff\xfeA\x00=\x00", "UTF-16"),
            ("“A”=1".as_bytes(), "line 1"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_value_that_names_a_variable_is_noticed_unless_it_is_meant_as_it_is() {
        for (line, expected) in [
            ("A=$HOME/x", true),
            ("A=x${HOME}", true),
            ("A=\"$_x\"", true),
            ("A='$HOME'", false),
            ("A=\"\\$HOME\"", false),
            ("A=5$", false),
            ("A=$5", false),
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap()[0].replaces, expected, "{line}");
        }
    }
}
