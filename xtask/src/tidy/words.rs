//! Words that do not belong where they stand: the engine outside its folder, clocks in pure files,
//! code that is not finished, paths of one machine.

use crate::tidy::blank::blank;
use crate::tidy::{Complaint, Source};

/// The only places that may name the engine: its folder, the tests of what is in it, and the
/// simulator, whose log it writes to.
const ENGINE_ROOMS: [&str; 3] = ["crates/order/src/raft/", "crates/order/tests/", "sim/"];

/// The only places that name the database of the history: its folder, and the simulated disk.
const DATABASE_ROOMS: [&str; 2] = ["crates/order/src/history/", "sim/ground/src/disk/"];

/// The folders that decide, and so depend on nothing but their arguments.
const PURE: [&str; 5] = [
    "crates/ledger/src/",
    "crates/wire/src/watch/core/",
    "crates/order/src/core/",
    "crates/catalog/src/core/",
    "crates/frontend/src/core/",
];

/// What a pure file never names: the runtime, the clocks, luck, unordered iteration is the
/// compiler's.
const IMPURE: [&str; 5] = ["tokio", "Instant", "SystemTime", "rand", "thread"];

/// The only places of the product that write to stdout and stderr. A raw macro panics on a broken
/// pipe or a full disk, which ends a store, and blocks while its reader does not read.
const OUTPUT: [&str; 2] = ["crates/oppidum/src/output.rs", "crates/wire/src/lines.rs"];

/// What writes to stdout and stderr.
const PRINTS: [&str; 6] =
    ["print!", "println!", "eprint!", "eprintln!", "io::stdout", "io::stderr"];

/// Code that says of itself that it is not finished.
const UNFINISHED: [&str; 5] =
    ["todo!", "unimplemented!", "dbg!", "#[ignore", "unreachable!(\"todo"];

/// Every complaint about the words of one text.
pub(crate) fn check(source: &Source) -> Vec<Complaint> {
    let Source { path, text } = source;
    let mut complaints = places(path, text);
    if source.is("rs") {
        let code = blank(text);
        for (at, line) in code.lines().enumerate() {
            complaints.extend(in_code(path, line).map(|what| Complaint::at(path, at + 1, what)));
        }
    }
    complaints
}

fn in_code<'a>(path: &'a str, line: &'a str) -> impl Iterator<Item = String> + 'a {
    let within = |places: &[&str]| places.iter().any(|place| path.starts_with(place));
    let engine = (!within(&ENGINE_ROOMS) && names(line, "openraft"))
        .then(|| format!("the engine is named only in {}", ENGINE_ROOMS[0]));
    let database = (!within(&DATABASE_ROOMS) && names(line, "redb"))
        .then(|| format!("the database is named only in {}", DATABASE_ROOMS[0]));
    let pure = within(&PURE);
    let impure = IMPURE.iter().filter(move |word| pure && names(line, word));
    let unfinished = UNFINISHED.iter().filter(move |word| line.contains(**word));
    let product = path.starts_with("crates/") && path.contains("/src/") && !within(&OUTPUT);
    let prints = PRINTS.iter().filter(move |word| product && names(line, word));
    engine
        .into_iter()
        .chain(database)
        .chain(prints.map(|word| format!("`{word}` only in {}: `answer!`, `note!`", OUTPUT[0])))
        .chain(impure.map(|word| format!("a pure file must not name `{word}`")))
        .chain(unfinished.map(|word| format!("`{word}` is not for the repository")))
}

/// Whether `word` stands in `line` as a word of its own.
fn names(line: &str, word: &str) -> bool {
    let part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let whole = word.ends_with(part);
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        !(before.ends_with(part) || whole && after.starts_with(part))
    })
}

/// Paths of one machine and reminders to oneself mean nothing to other readers.
fn places(path: &str, text: &str) -> Vec<Complaint> {
    // Spelled in two halves, so that this file may be checked as well.
    const WORDS: [&str; 5] = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
    ];
    let found = |(at, line): (usize, &str)| {
        let word = WORDS.iter().find(|word| line.contains(**word))?;
        Some(Complaint::at(path, at + 1, format!("`{word}` is not for the repository")))
    };
    text.lines().enumerate().filter_map(found).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> usize {
        check(&Source { path: path.into(), text: text.into() }).len()
    }

    #[test]
    fn the_engine_outside_its_folder_is_caught() {
        let bad = "use openraft::Raft;\n";
        assert_eq!(complaints("crates/order/src/replica.rs", bad), 1);
        assert_eq!(complaints("crates/order/src/raft/engine.rs", bad), 0);
        assert_eq!(complaints("crates/order/src/replica.rs", "// openraft\n"), 0);
    }

    #[test]
    fn the_database_outside_its_folder_is_caught() {
        let bad = "use redb::Database;\n";
        assert_eq!(complaints("crates/order/src/raft/engine.rs", bad), 1);
        assert_eq!(complaints("crates/order/src/history/blocks.rs", bad), 0);
    }

    #[test]
    fn a_clock_in_a_pure_file_is_caught() {
        let bad = "use std::time::{Duration, Instant};\n";
        assert_eq!(complaints("crates/ledger/src/stock.rs", bad), 1);
        assert_eq!(complaints("crates/frontend/src/core/retry.rs", "tokio::spawn(go());\n"), 1);
        assert_eq!(complaints("crates/frontend/src/run.rs", bad), 0);
        assert_eq!(complaints("crates/ledger/src/stock.rs", "struct Instantly;\n"), 0);
    }

    /// Kind: a print that ends or holds up a process.
    #[test]
    fn a_raw_print_is_caught() {
        for bad in [
            "println!(\"x\");\n",
            "    eprintln!();\n",
            "print!(\"x\");\n",
            "let mut out = std::io::stdout().lock();\n",
            "let _ = writeln!(io::stderr(), \"x\");\n",
        ] {
            assert_eq!(complaints("crates/oppidum/src/load/mod.rs", bad), 1, "{bad}");
            assert_eq!(complaints("crates/oppidum/src/output.rs", bad), 0, "{bad}");
            assert_eq!(complaints("crates/oppidum/tests/e2e/up.rs", bad), 0, "{bad}");
        }
        assert_eq!(complaints("crates/oppidum/src/load/mod.rs", "answer!(\"x\");\n"), 0);
    }

    #[test]
    fn unfinished_code_is_caught() {
        for bad in ["    todo!()\n", "#[ignore]\n", "#[ignore = \"slow\"]\n", "dbg!(x);\n"] {
            assert_eq!(complaints("a.rs", bad), 1, "{bad}");
        }
        assert_eq!(complaints("a.rs", "let what = \"todo!\";\n"), 0);
    }

    #[test]
    fn a_path_of_one_machine_is_caught() {
        assert_eq!(complaints("README.md", concat!("see /wo", "rk/plan\n")), 1);
        assert_eq!(complaints("README.md", "see docs/\n"), 0);
    }
}
