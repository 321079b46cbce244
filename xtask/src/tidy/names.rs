//! Names: one meaning for a type's name in a crate, and each module's name explained.
//!
//! A type's name stands once in a crate. A module, and each word in the name of a core's type, is a
//! standard word, listed here, or a term of docs/glossary.md.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::blank::blank;
use crate::tidy::{Complaint, Source};

const GLOSSARY: &str = "docs/glossary.md";

/// Names that several types of a crate may have: their module says of what.
const SHARED_NAMES: [&str; 2] = ["Options", "Shared"];

/// Module names that any engineer of the field knows, and names that Rust gives.
const STANDARD: &[&str] = &[
    "access_log",
    "address",
    "answer",
    "api",
    "bounds",
    "cache",
    "cli",
    "client",
    "clients",
    "clock",
    "codec",
    "command",
    "compaction",
    "config",
    "connection",
    "connections",
    "control",
    "core",
    "customer",
    "descriptors",
    "elections",
    "engine",
    "handover",
    "head",
    "history",
    "http",
    "identity",
    "keys",
    "ledger",
    "lib",
    "limits",
    "lines",
    "listeners",
    "log_store",
    "main",
    "metrics",
    "mod",
    "names",
    "net",
    "numbering",
    "operator",
    "output",
    "peers",
    "price",
    "problem",
    "progress",
    "prompt",
    "queries",
    "replica",
    "replicas",
    "report",
    "restart",
    "run",
    "serve",
    "server",
    "service",
    "settings",
    "shop",
    "signals",
    "simulated",
    "snapshots",
    "state_machine",
    "status",
    "stock",
    "stream",
    "supervisor",
    "table",
    "tables",
    "telemetry",
    "tests",
    "timeline",
    "timer",
    "transport",
    "types",
    "writer",
];

/// Words of a core's types that need no explanation. All others are terms of the glossary.
const WORDS: &[&str] = &[
    "accepted",
    "answer",
    "auditor",
    "bound",
    "builder",
    "cents",
    "compact",
    "context",
    "counts",
    "cut",
    "decode",
    "definition",
    "draft",
    "effects",
    "error",
    "event",
    "field",
    "fields",
    "hashed",
    "header",
    "id",
    "incoming",
    "item",
    "items",
    "keyed",
    "kind",
    "lookup",
    "lost",
    "met",
    "moment",
    "needed",
    "next",
    "noun",
    "per",
    "point",
    "prefetched",
    "prepared",
    "proof",
    "quantity",
    "query",
    "reach",
    "reader",
    "record",
    "recorder",
    "ref",
    "restoring",
    "reveals",
    "slot",
    "stock",
    "timeline",
    "timestamp",
    "try",
    "value",
    "verdict",
    "violation",
    "visitor",
    "writer",
];

/// Every complaint about names.
pub(crate) fn check(sources: &[Source]) -> Vec<Complaint> {
    let glossary = sources.iter().find(|source| source.path == GLOSSARY);
    let Some(glossary) = glossary else {
        return vec![Complaint::whole(GLOSSARY, "there is no glossary")];
    };
    let mut complaints = modules(sources, &glossary.text);
    complaints.extend(types(sources));
    complaints.extend(words(sources, &glossary.text));
    complaints
}

/// Every word of a core's type that no list explains.
fn words(sources: &[Source], glossary: &str) -> Vec<Complaint> {
    let marked = glossary.split("**").skip(1).step_by(2);
    let quoted = glossary.split('`').skip(1).step_by(2);
    let known: BTreeSet<String> = marked
        .chain(quoted)
        .flat_map(|term| term.split(|letter: char| !letter.is_alphanumeric()))
        .map(str::to_lowercase)
        .collect();
    let is_core = |path: &str| path.starts_with("crates/ledger/") || path.contains("/core/");
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| source.is("rs") && in_product(&source.path)) {
        if !is_core(&source.path) {
            continue;
        }
        for (at, line) in blank(&source.text).lines().enumerate() {
            // Types in a function or in a module of tests are indented.
            let name = type_name(line).filter(|_| !line.starts_with(' '));
            let Some(name) = name else { continue };
            let unknown = split(name).find(|word| {
                let one = word.strip_suffix('s').unwrap_or(word);
                [word, one].iter().all(|word| !WORDS.contains(word) && !known.contains(*word))
            });
            if let Some(word) = unknown {
                let what = format!("the word `{word}` of the type `{name}` is not in {GLOSSARY}");
                complaints.push(Complaint::at(&source.path, at + 1, what));
            }
        }
    }
    complaints
}

/// The words of a type's name, in small letters.
fn split(name: &str) -> impl Iterator<Item = String> {
    let mut words: Vec<String> = Vec::new();
    for letter in name.chars() {
        match words.last_mut() {
            Some(word) if !letter.is_uppercase() => word.push(letter),
            _ => words.push(letter.to_lowercase().collect()),
        }
    }
    words.into_iter()
}

/// Every module whose name no list explains. Tests have sentences for names.
fn modules(sources: &[Source], glossary: &str) -> Vec<Complaint> {
    let unexplained = |source: &&Source| {
        let name = module(&source.path)?;
        let term = name.replace('_', " ");
        let explained = STANDARD.contains(&name)
            || [name, &term].iter().any(|word| {
                glossary.contains(&format!("`{word}`")) || glossary.contains(&format!("**{word}**"))
            });
        let what = || format!("the module `{name}` is not in {GLOSSARY}");
        (!explained).then(|| Complaint::whole(&source.path, what()))
    };
    let product = |source: &&Source| source.is("rs") && in_product(&source.path);
    sources.iter().filter(product).filter_map(|source| unexplained(&source)).collect()
}

/// Whether a file is part of a crate of the product, and no test.
fn in_product(path: &str) -> bool {
    let is_test = |part: &str| part.trim_end_matches(".rs").ends_with("tests");
    path.starts_with("crates/") && path.contains("/src/") && !path.split('/').any(is_test)
}

/// The name of the module in a file.
fn module(path: &str) -> Option<&str> {
    let path = path.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.rsplit('/').next()
}

/// Every type's name that stands twice in a crate.
fn types(sources: &[Source]) -> Vec<Complaint> {
    let mut seen: BTreeMap<(&str, String), String> = BTreeMap::new();
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| source.is("rs") && in_product(&source.path)) {
        let Some(package) = source.path.split('/').nth(1) else { continue };
        for (at, line) in blank(&source.text).lines().enumerate() {
            let Some(name) = type_name(line).filter(|name| !SHARED_NAMES.contains(name)) else {
                continue;
            };
            let here = format!("{}:{}", source.path, at + 1);
            if let Some(other) = seen.get(&(package, name.to_owned())) {
                let what =
                    format!("the type `{name}` stands at {other}, too: one name, one meaning");
                complaints.push(Complaint::at(&source.path, at + 1, what));
            } else {
                seen.insert((package, name.to_owned()), here);
            }
        }
    }
    complaints
}

/// The name of the type that a line declares. An indented `type` belongs to a trait.
fn type_name(line: &str) -> Option<&str> {
    let alias = line.starts_with("type ") || line.starts_with("pub");
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
    let keyword = words.next()?;
    let declares =
        matches!(keyword, "struct" | "enum" | "trait" | "union") || keyword == "type" && alias;
    let name = declares.then(|| words.next())??;
    let end = name.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(name.len());
    (0 < end).then(|| &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(files: &[(&str, &str)]) -> Vec<String> {
        let glossary = (GLOSSARY, "| **batch queue** | … |\n| `lease` | … |\n");
        let source =
            |(path, text): &(&str, &str)| Source { path: (*path).into(), text: (*text).into() };
        let sources: Vec<Source> = files.iter().chain([&glossary]).map(source).collect();
        check(&sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_module_that_is_not_explained_is_caught() {
        assert!(complaints(&[("crates/order/src/batch_queue.rs", "")]).is_empty());
        assert!(complaints(&[("crates/wire/src/watch/core/lease/mod.rs", "")]).is_empty());
        assert!(complaints(&[("crates/wire/src/lib.rs", "")]).is_empty());
        assert!(complaints(&[("crates/wire/src/watch/loopback_tests.rs", "")]).is_empty());
        let caught = complaints(&[("crates/order/src/mourning.rs", "")]);
        assert_eq!(
            caught,
            ["crates/order/src/mourning.rs: the module `mourning` is not in docs/glossary.md"]
        );
    }

    #[test]
    fn a_word_of_a_cores_type_that_is_not_explained_is_caught() {
        let caught = |text| complaints(&[("crates/order/src/core/leader_term.rs", text)]);
        let module = 1; // `leader_term` itself is not in the glossary of this test.
        assert_eq!(caught("pub struct BatchQueueHeader;\n").len(), module);
        assert_eq!(caught("pub struct LeaseIds;\n").len(), module);
        let chair = caught("pub struct LeaseChair;\n");
        assert!(chair[1].contains("the word `chair` of the type `LeaseChair`"), "{chair:?}");
        assert!(complaints(&[("crates/order/src/run.rs", "struct Chair;\n")]).is_empty());
    }

    #[test]
    fn a_name_of_two_types_is_caught() {
        let one = ("crates/order/src/run.rs", "pub(crate) struct Line<T> {\n}\n");
        for two in
            ["enum Line {\n", "    struct Line;\n", "type Line = u8;\n", "pub trait Line {\n"]
        {
            let caught = complaints(&[one, ("crates/order/src/net.rs", two)]);
            assert_eq!(caught.len(), 1, "{two}");
            assert!(complaints(&[one, ("crates/wire/src/net.rs", two)]).is_empty());
        }
        for two in ["    type Line = u8;\n", "struct Options;\n", "// struct Line;\n"] {
            assert!(complaints(&[one, ("crates/order/src/net.rs", two)]).is_empty(), "{two}");
        }
    }
}
