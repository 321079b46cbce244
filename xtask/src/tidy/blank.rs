//! Blanks all that is not code in Rust source: comments, strings and characters become spaces.
//!
//! Lines keep their numbers, so that a finding in the code has the line number of the file.

/// The code of a Rust file, without its comments and literals.
pub(crate) fn blank(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < letters.len() {
        let end = literal_end(&letters, at).unwrap_or(at);
        if end == at {
            code.push(letters[at]);
            at += 1;
            continue;
        }
        code.extend(letters[at..end].iter().map(|letter| match letter {
            '\n' => '\n',
            _ => ' ',
        }));
        at = end;
    }
    code
}

/// The end of the comment or literal that begins at `at`. `None`: none begins there.
fn literal_end(letters: &[char], at: usize) -> Option<usize> {
    let next = letters.get(at + 1).copied();
    match (letters[at], next) {
        ('/', Some('/')) => Some(find(letters, at, "\n")),
        ('/', Some('*')) => Some(block_comment_end(letters, at)),
        ('"', _) => Some(string_end(letters, at + 1)),
        ('r', Some('"' | '#')) if !in_word(letters, at) => raw_string_end(letters, at + 1),
        ('\'', _) => char_end(letters, at),
        _ => None,
    }
}

fn in_word(letters: &[char], at: usize) -> bool {
    // `br"…"` is a raw string too.
    let before = at.checked_sub(1).map(|before| letters[before]);
    before.is_some_and(|letter| letter != 'b' && (letter.is_alphanumeric() || letter == '_'))
}

/// The position of `what` at or after `at`, or the end.
fn find(letters: &[char], at: usize, what: &str) -> usize {
    let what: Vec<char> = what.chars().collect();
    let found = letters[at..].windows(what.len()).position(|window| window == what);
    found.map_or(letters.len(), |offset| at + offset)
}

fn block_comment_end(letters: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut here = at;
    while here < letters.len() {
        match (letters[here], letters.get(here + 1)) {
            ('/', Some('*')) => (depth, here) = (depth + 1, here + 2),
            ('*', Some('/')) => (depth, here) = (depth - 1, here + 2),
            _ => here += 1,
        }
        if depth == 0 {
            break;
        }
    }
    here.min(letters.len())
}

fn string_end(letters: &[char], mut at: usize) -> usize {
    while at < letters.len() {
        match letters[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    letters.len()
}

fn raw_string_end(letters: &[char], at: usize) -> Option<usize> {
    let hashes = letters[at..].iter().take_while(|letter| **letter == '#').count();
    if letters.get(at + hashes) != Some(&'"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    Some((find(letters, at + hashes + 1, &close) + close.len()).min(letters.len()))
}

/// The end of a character, if this is no lifetime: `'a'`, `'\n'`, `'\u{7f}'`.
fn char_end(letters: &[char], at: usize) -> Option<usize> {
    match (letters.get(at + 1), letters.get(at + 2)) {
        (Some('\\'), _) => Some((find(letters, at + 3, "'") + 1).min(letters.len())),
        (Some(_), Some('\'')) => Some(at + 3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_left_and_lines_keep_their_numbers() {
        let text =
            "let a = \"{ // \\\" }\"; // {\nlet b = r#\"\"{\"#; /* { /* { */\n */ let c = '{';";
        let code = blank(text);
        assert_eq!(code.lines().count(), text.lines().count());
        assert!(!code.contains('{'));
        assert!(code.contains("let a =") && code.contains("let b =") && code.contains("let c ="));
    }

    #[test]
    fn lifetimes_are_code() {
        assert_eq!(blank("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
        assert_eq!(
            blank("['\\'', 'x', '\\u{7f}'];").trim_end_matches(';').trim(),
            "[    ,    ,         ]"
        );
    }
}
