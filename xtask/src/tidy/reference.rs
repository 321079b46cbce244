//! Checks that the reference lists every promise, every problem and every limit, and that every
//! promise has a test that names it or is listed as having none.

use crate::tidy::{Complaint, Source};

const PAGE: &str = "docs/reference.md";
const PROBLEMS: &str = "crates/wire/src/problem.rs";

/// The promises of the store: P1 to P10.
const PROMISES: u32 = 10;

/// The line of the reference that lists the promises without a test.
const OWED: &str = "Promises that no test names yet:";

/// Every complaint about gaps in the reference.
pub(crate) fn check(sources: &[Source]) -> Vec<Complaint> {
    let find = |path: &str| sources.iter().find(|source| source.path == path);
    let Some(page) = find(PAGE) else {
        return vec![Complaint::whole(PAGE, "there is no reference")];
    };
    let mut complaints = promises(&page.text, sources);
    let problems = find(PROBLEMS).map_or_else(Vec::new, |source| problems(&source.text));
    let named = |name: &String| page.text.contains(&format!("`{name}`"));
    for code in problems.iter().filter(|code| !named(code)) {
        complaints.push(Complaint::whole(PAGE, format!("the problem `{code}` is missing")));
    }
    for source in sources.iter().filter(|source| source.is("rs")) {
        for limit in limits(source).iter().filter(|limit| !named(limit)) {
            let what = format!("the limit `{limit}` of {} is missing", source.path);
            complaints.push(Complaint::whole(PAGE, what));
        }
    }
    complaints
}

fn promises(page: &str, sources: &[Source]) -> Vec<Complaint> {
    let owed = page.lines().find_map(|line| line.strip_prefix(OWED)).unwrap_or_default();
    let mut complaints = Vec::new();
    for promise in (1..=PROMISES).map(|number| format!("P{number}")) {
        if !page.contains(&format!("| {promise} |")) {
            complaints.push(Complaint::whole(PAGE, format!("the promise {promise} is missing")));
        }
        let tested = sources.iter().any(|source| has_word(tests(source), &promise));
        let what = match (tested, has_word(owed, &promise)) {
            (false, false) => "no test names the promise",
            (true, true) => "a test names the promise that is said to have none:",
            _ => continue,
        };
        complaints.push(Complaint::whole(PAGE, format!("{what} {promise}")));
    }
    complaints
}

/// The tests of a source: all of it in a folder of tests, else the module at its end.
fn tests(source: &Source) -> &str {
    let Source { path, text } = source;
    if path.starts_with("crates/") && path.contains("/tests/") {
        return text;
    }
    let rust = path.starts_with("crates/") && source.is("rs");
    let start = rust.then(|| text.find("#[cfg(test)]")).flatten();
    start.map_or("", |at| &text[at..])
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|letter: char| !letter.is_alphanumeric()).any(|part| part == word)
}

/// The variants of `enum Code` that have numbers.
fn problems(text: &str) -> Vec<String> {
    let body = text.lines().skip_while(|line| !line.contains("pub enum Code")).skip(1);
    let body = body.take_while(|line| *line != "}");
    let variant = |line: &str| {
        let (name, number) = line.trim().strip_suffix(',')?.split_once(" = ")?;
        number.parse::<u32>().is_ok().then(|| name.to_owned())
    };
    body.filter_map(variant).collect()
}

/// The limits that a source publishes: every constant of a `limits.rs`, and every `…_MAX`
/// elsewhere.
fn limits(source: &Source) -> Vec<String> {
    let all = source.path.ends_with("/limits.rs");
    let product = source.path.starts_with("crates/") && source.path.contains("/src/");
    let constant = |line: &str| {
        let (name, _) = line.strip_prefix("pub const ")?.split_once(':')?;
        (product && (all || name.ends_with("_MAX"))).then(|| name.to_owned())
    };
    source.text.lines().filter_map(constant).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(page: &str, texts: &[(&str, &str)]) -> Vec<String> {
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let mut sources = vec![source(PAGE, page)];
        sources.extend(texts.iter().map(|(path, text)| source(path, text)));
        check(&sources).iter().map(ToString::to_string).collect()
    }

    fn page(last: u32, owed: &str) -> String {
        let rows: Vec<String> = (1..=last).map(|n| format!("| P{n} | it holds |")).collect();
        format!("{}\n\n{OWED} {owed}.\n", rows.join("\n"))
    }

    const ALL: &str = "P1, P2, P3, P4, P5, P6, P7, P8, P9, P10";

    #[test]
    fn a_promise_without_a_row_or_a_test_is_caught() {
        assert!(complaints(&page(10, ALL), &[]).is_empty());
        assert_eq!(complaints(&page(9, ALL), &[]).len(), 1);
        assert_eq!(complaints(&page(10, "P2, P3, P4, P5, P6, P7, P8, P9, P10"), &[]).len(), 1);
    }

    #[test]
    fn a_tested_promise_that_is_listed_as_untested_is_caught() {
        let test = [("crates/a/tests/b.rs", "//! Shows P7.\n")];
        assert_eq!(complaints(&page(10, ALL), &test).len(), 1);
        let prose = [("crates/a/src/b.rs", "//! Keeps P7.\n")];
        assert!(complaints(&page(10, ALL), &prose).is_empty());
    }

    #[test]
    fn a_problem_or_a_limit_that_is_not_explained_is_caught() {
        let problem = "pub enum Code {\n    /// Why.\n    DiskFull = 5,\n}\n";
        let limit = "pub const NAME_BYTES_MAX: usize = 128;\npub const OTHER: u8 = 1;\n";
        let texts = [(PROBLEMS, problem), ("crates/a/src/terms.rs", limit)];
        assert_eq!(complaints(&page(10, ALL), &texts).len(), 2);
        let told = page(10, ALL) + "`DiskFull` and `NAME_BYTES_MAX`\n";
        assert!(complaints(&told, &texts).is_empty());
        assert_eq!(complaints(&told, &[("crates/a/src/limits.rs", limit)]).len(), 1);
    }
}
