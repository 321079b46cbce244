//! `.env`: parses the lines `NAME=value` of a file, as a pure function over its bytes.
//!
//! A line that cannot be parsed is an error with its number: no setting is ever skipped. A value
//! stands in single quotes (verbatim), in double quotes (with `\"`, `\\`, `\$`, `\n`, `\t`), or
//! bare; a bare value ends before blanks and a `#`. Variables are not expanded: see
//! [`EnvLine::replaces`].

use std::io::ErrorKind;
use std::iter::Peekable;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::str::Chars;

/// A `NAME=value` of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnvLine {
    /// The line's number, from 1.
    pub(crate) number: usize,
    /// The name.
    pub(crate) name: String,
    /// The value, without its quotes.
    pub(crate) value: String,
    /// Whether a shell would expand a variable (`$NAME`, `${NAME}`) in it.
    pub(crate) replaces: bool,
    /// Whether the value stands without quotes and a shell would end it earlier: at a blank, a
    /// control character or a `;`.
    pub(crate) is_divided: bool,
}

/// The bytes of the file; None: the file does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let odd = |error: std::io::Error| format!("cannot be read: {error}; mend or remove it");
    match std::fs::symlink_metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(odd(error)),
    }
    let found = std::fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "is a link to nothing: mend or remove it".to_owned(),
        _ => odd(error),
    })?;
    // A container hides a file by mounting `/dev/null` over it.
    let null = || std::fs::metadata("/dev/null").is_ok_and(|null| null.rdev() == found.rdev());
    let is_empty = found.file_type().is_char_device() && null();
    if !found.is_file() && !is_empty {
        return Err("is no file: put one in its place, or remove it".into());
    }
    std::fs::read(path).map(Some).map_err(odd)
}

/// Parses every `NAME=value` of a file; the error names the line.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<EnvLine>, String> {
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
    for (place, line) in text.split('\n').enumerate() {
        let number = place + 1;
        let line = line.strip_suffix('\r').unwrap_or(line);
        // Other programs end a line here: the text after it would be hidden in this line.
        if let Some(end) = line.chars().find(|letter| LINE_ENDS.contains(letter)) {
            return Err(format!(
                "line {number}: U+{:04X} ends no line here: save the file with line ends of Unix \
                 or of Windows",
                u32::from(end)
            ));
        }
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = entry(line).map_err(|why| format!("line {number}: {why}"))?;
        let Parsed { name, value, replaces, is_divided } = parsed;
        lines.push(EnvLine { number, name, value, replaces, is_divided });
    }
    Ok(lines)
}

/// The line ends of other systems, which are an error here: old Macs, mainframes, Unicode.
const LINE_ENDS: [char; 6] = ['\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];

/// A parsed line, without its number.
struct Parsed {
    name: String,
    value: String,
    replaces: bool,
    is_divided: bool,
}

fn entry(line: &str) -> Result<Parsed, String> {
    let exported = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
    let line = exported.unwrap_or(line);
    let odd = || format!("expected NAME=value, found {line:?}");
    let (name, value) = line.split_once('=').ok_or_else(odd)?;
    let name = name.trim();
    let letters = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    if name.is_empty() || !name.chars().all(letters) {
        return Err(odd());
    }
    let start = value.trim_start();
    let name = name.to_owned();
    Ok(match start.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let (value, replaces) = quoted(start[1..].chars().peekable(), quote)?;
            Parsed { name, value, replaces, is_divided: false }
        }
        _ => {
            let value = bare(value);
            let divides =
                |letter: char| letter == ';' || letter.is_whitespace() || letter.is_control();
            let replaces = names_variable(value);
            let is_divided = value.contains(divides);
            Parsed { name, value: value.to_owned(), replaces, is_divided }
        }
    })
}

/// The text before blanks that precede a `#`.
fn bare(value: &str) -> &str {
    let remark = value.match_indices('#').map(|(at, _)| &value[..at]);
    let before = remark.into_iter().find(|before| before.ends_with(char::is_whitespace));
    before.unwrap_or(value).trim()
}

fn quoted(mut rest: Peekable<Chars<'_>>, quote: char) -> Result<(String, bool), String> {
    let mut value = String::new();
    let mut replaces = false;
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
    if remark.is_empty() || (remark.starts_with('#') && remark.len() < after.len()) {
        Ok((value, replaces))
    } else {
        Err(format!("{remark:?} stands behind the quotes: quote the whole value"))
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
    fn a_value_is_read_as_its_quotes_say() {
        for (line, expected) in [
            ("NAME=5", "5"),
            ("export NAME = 5 ", "5"),
            ("NAME=5 # five", "5"),
            ("NAME=5\t# five # times", "5"),
            ("NAME=a#b", "a#b"),
            ("NAME=#5", "#5"),
            ("NAME=", ""),
            ("NAME= # none", ""),
            ("NAME='a # b' # c", "a # b"),
            ("NAME='\\n$X'", "\\n$X"),
            ("NAME=\"a\\\"b\\\\c\\td\\$X\"", "a\"b\\c\td$X"),
            ("NAME=\"\"", ""),
            ("\u{feff}NAME=5\r\n", "5"),
            ("NAME=a=b", "a=b"),
            ("NAME=5\r", "5"),
        ] {
            assert_eq!(value(line).as_deref(), Ok(expected), "{line}");
        }
    }

    /// Kind: a line that is skipped or read as another setting.
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
            (b"A=1\rB=2\r", "line 1: U+000D"),
            (b"# one\rA=1\n", "line 1: U+000D"),
            ("A=1\u{85}B=2".as_bytes(), "U+0085"),
            ("A=1\u{2028}B=2".as_bytes(), "U+2028"),
            ("# A\u{2029}B=2".as_bytes(), "U+2029"),
            (b"A=1\x0cB=2", "U+000C"),
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

    #[test]
    fn a_bare_value_that_a_shell_would_end_earlier_is_noticed() {
        for (line, expected) in [
            ("A=x B=./dd", true),
            ("export A=x B=./dd", true),
            ("A=x; B=./dd", true),
            ("A=x;B=./dd", true),
            ("A=x\u{a0}y", true),
            ("A=x\u{1b}[0m", true),
            ("A='x B=1'", false),
            ("A=\"x; y\"", false),
            ("export\tA=x # y; z", false),
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap()[0].is_divided, expected, "{line}");
        }
    }

    /// Kind: a path that is no regular file and is skipped, or at which the process hangs.
    #[test]
    fn a_path_that_is_no_regular_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(read(&at("none")), Ok(None));
        std::fs::write(at("file"), "A=1").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        assert_eq!(read(&at("link")), Ok(Some(b"A=1".to_vec())));
        std::os::unix::fs::symlink("/dev/null", at("null")).unwrap();
        assert_eq!(read(&at("null")), Ok(Some(Vec::new())));
        std::os::unix::fs::symlink("nothing", at("dangling")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        let kind = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), kind, mode, 0).unwrap();
        for (name, words) in
            [("dangling", "link to nothing"), ("folder", "no file"), ("fifo", "no file")]
        {
            let error = read(&at(name)).unwrap_err();
            assert!(error.contains(words), "{name}: {error}");
        }
    }
}
