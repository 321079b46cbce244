//! Compares the output on a page with the real output.
//!
//! The page decides what must be equal: its words, its signs, ids, HTTP statuses and addresses. Any
//! other number on it (a pid, a count, a time) matches any number, a digest any digest, white space
//! any white space, and `…` anything.

/// Numbers that must be equal: the ids of the pages' replicas, and HTTP's statuses.
const EXACT: [&str; 11] =
    ["123", "345", "456", "567", "124", "200", "404", "409", "422", "503", "504"];

/// The fewest hexadecimal digits of a digest.
const DIGEST_CHARS_MIN: usize = 12;

/// The first port that only `--ports auto` takes: a page with such a port means any of them.
const FREE_PORT_MIN: u32 = 10_000;

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Space,
    /// With its unit, which is `s` for any unit of time.
    Number(String, String),
    Digest,
    Word(String),
    Sign(char),
    /// `…`
    Anything,
}

/// True if a printed line is as the page's line says.
pub(crate) fn same(page: &str, printed: &str) -> bool {
    matches(&tokens(page), &tokens(printed))
}

fn matches(page: &[Token], printed: &[Token]) -> bool {
    let Some((first, rest)) = page.split_first() else { return printed.is_empty() };
    if *first == Token::Anything {
        return (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..]));
    }
    let Some((other, others)) = printed.split_first() else { return false };
    let fits = match (first, other) {
        (Token::Number(page, unit), Token::Number(printed, other)) => {
            unit == other && same_number(page, printed)
        }
        (page, printed) => page == printed,
    };
    fits && matches(rest, others)
}

fn same_number(page: &str, printed: &str) -> bool {
    if EXACT.contains(&page) {
        return page == printed;
    }
    match (address(page), address(printed)) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some((host, port)), Some((other, other_port))) => {
            let free = |port: Option<u32>| port.is_some_and(|port| FREE_PORT_MIN <= port);
            host == other && (port == other_port || (free(port) && free(other_port)))
        }
    }
}

/// The host and the port of an address.
fn address(text: &str) -> Option<(&str, Option<u32>)> {
    let (host, port) = match text.split_once(':') {
        None => (text, None),
        Some((host, port)) => (host, Some(port.parse().ok()?)),
    };
    (host.split('.').count() == 4).then_some((host, port))
}

fn tokens(line: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = line.trim();
    while let Some(letter) = rest.chars().next() {
        let (token, length) = if letter.is_whitespace() {
            (Token::Space, run(rest, char::is_whitespace))
        } else if letter == '…' {
            (Token::Anything, letter.len_utf8())
        } else if letter.is_alphanumeric() {
            word(rest)
        } else {
            (Token::Sign(letter), letter.len_utf8())
        };
        tokens.push(token);
        rest = &rest[length..];
    }
    tokens
}

/// The word, number or digest at the beginning of a text, and its length.
fn word(text: &str) -> (Token, usize) {
    let length = run(text, char::is_alphanumeric);
    let whole = &text[..length];
    let hex = |letter: char| matches!(letter, '0'..='9' | 'a'..='f');
    if DIGEST_CHARS_MIN <= length && whole.chars().all(hex) {
        return (Token::Digest, length);
    }
    if !whole.starts_with(|letter: char| letter.is_ascii_digit()) {
        return (Token::Word(whole.to_owned()), length);
    }
    let end = number_end(text);
    let unit_length = run(&text[end..], char::is_alphabetic);
    let unit = match &text[end..end + unit_length] {
        "s" | "ms" | "µs" => "s",
        other => other,
    };
    (Token::Number(text[..end].to_owned(), unit.to_owned()), end + unit_length)
}

/// The end of digits, and of signs between digits: 41.9, 3,035, 127.0.0.1:1115, 13:41:10.
fn number_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let joins =
        |at: usize| bytes.get(at).is_some_and(|byte| b".,:_".contains(byte)) && digit(at + 1);
    let mut end = 0;
    while digit(end) || (0 < end && joins(end)) {
        end += 1;
    }
    end
}

fn run(text: &str, belongs: fn(char) -> bool) -> usize {
    text.find(|letter| !belongs(letter)).unwrap_or(text.len())
}

/// Compares line by line. Empty lines do not count.
pub(crate) fn same_lines(page: &[&str], printed: &str) -> Result<(), String> {
    let printed: Vec<&str> = printed.lines().filter(|line| !line.trim().is_empty()).collect();
    for at in 0..page.len().max(printed.len()) {
        match (page.get(at), printed.get(at)) {
            (Some(page), Some(printed)) if same(page, printed) => {}
            (page, other) => {
                let (page, other) = (page.unwrap_or(&"nothing"), other.unwrap_or(&"nothing"));
                let all = printed.join("\n  ");
                return Err(format!(
                    "the page says\n  {page}\nand what was printed there is\n  {other}\nin\n  {all}"
                ));
            }
        }
    }
    Ok(())
}

/// A line of a process: its short name on the pages, and its text.
pub(crate) type Line<'a> = (&'a str, &'a str);

/// A line as `oppidum up` prints it, without its time: `order-123   | 17:55:36.453 …`.
pub(crate) fn line_of_up(line: &str) -> Option<Line<'_>> {
    let (name, said) = line.split_once("| ")?;
    let name = name.trim();
    let short = name.strip_prefix("order-").unwrap_or(name);
    let short = short.strip_suffix("-1").unwrap_or(short);
    Some((short, without_time(said)))
}

/// A process's line without the time in front of it.
pub(crate) fn without_time(said: &str) -> &str {
    let is_time = |word: &str| word.len() == 12 && word.matches(':').count() == 2;
    match said.trim().split_once(' ') {
        Some((time, rest)) if is_time(time) => rest,
        _ => said.trim(),
    }
}

/// Each process must print the page's lines in the page's order, with any other lines between them.
/// Err: the first line that is missing.
pub(crate) fn says_all<'a>(page: &[&'a str], printed: &[Line<'_>]) -> Result<(), &'a str> {
    let mut heard: Vec<(&str, usize)> = Vec::new();
    for line in page {
        let (name, words) = line.split_once(char::is_whitespace).ok_or(*line)?;
        let from = heard.iter().find(|(known, _)| *known == name).map_or(0, |(_, from)| *from);
        let fits = |(who, said): &Line<'_>| *who == name && same(words, said);
        let at = printed[from..].iter().position(fits).ok_or(*line)?;
        heard.retain(|(known, _)| *known != name);
        heard.push((name, from + at + 1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_times_digests_and_white_space_may_differ_and_words_may_not() {
        assert!(same("345 leads; orders waited for 9 ms", "345 leads; orders  waited for 12 ms"));
        assert!(same("order 123   18932  e793f1d5b141", "order 123 7 0123456789ab"));
        assert!(same("caught up: 282024 orders in 3.4s", "caught up: 7 orders in 812.3ms"));
        assert!(same("at 2026-11-21 13:41:10 UTC", "at 2027-01-02 03:04:05 UTC"));
        assert!(!same("345 leads", "456 leads"));
        assert!(!same("345 leads", "345 led"));
        assert!(!same("9 orders", "9 ms"));
        assert!(!same("a pid of 7", "a pid of -"));
    }

    #[test]
    fn a_number_of_the_page_matches_any_number_even_an_id() {
        assert!(same("order 123   18932", "order 123 345"));
        assert!(!same("order 123   18932", "order 345 123"));
    }

    #[test]
    fn addresses_must_be_equal_except_for_free_ports() {
        assert!(same("at 127.0.0.1:1115", "at 127.0.0.1:1115"));
        assert!(!same("at 127.0.0.1:1115", "at 127.0.0.1:1116"));
        assert!(!same("at 127.0.0.1:1115", "at 10.0.0.1:1115"));
        assert!(same("at 127.0.0.1:21001", "at 127.0.0.1:30234"));
        assert!(!same("at 127.0.0.1", "at 7"));
    }

    #[test]
    fn an_ellipsis_stands_for_anything() {
        assert!(same("oppidum: …/order-123 is full", "oppidum: /var/lib/order-123 is full"));
        assert!(same("… orders behind", "17 orders behind"));
        assert!(!same("oppidum: …/order-123 is full", "oppidum: /var/lib/order-123 is empty"));
    }

    #[test]
    fn a_surplus_or_missing_line_is_a_difference() {
        assert!(same_lines(&["a 1", "b"], "a 2\n\nb\n").is_ok());
        assert!(same_lines(&["a 1", "b"], "a 2\n").is_err());
        assert!(same_lines(&["a 1"], "a 2\nb\n").unwrap_err().contains("nothing"));
    }

    #[test]
    fn each_process_says_the_lines_of_the_page_in_its_own_order() {
        let lines = ["order-123   | 17:55:36.453 one", "frontend-1  | two", "order-123   | three"];
        let lines: Vec<Line<'_>> = lines.iter().filter_map(|line| line_of_up(line)).collect();
        assert_eq!(lines[0], ("123", "one"));
        assert_eq!(says_all(&["frontend  two", "123  one", "123 three"], &lines), Ok(()));
        assert_eq!(says_all(&["123 three", "123  one"], &lines), Err("123  one"));
        assert_eq!(says_all(&["345 one"], &lines), Err("345 one"));
    }
}
