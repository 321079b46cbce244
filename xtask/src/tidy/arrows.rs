//! Checks which crate may use which: the `deps` block of ARCHITECTURE.md against the manifests.
//!
//! A dependency for tests only is not an arrow: it does not reach the product.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::{Complaint, Source};

const PAGE: &str = "ARCHITECTURE.md";

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Every difference between the page and the manifests.
pub(crate) fn check(sources: &[Source]) -> Vec<Complaint> {
    let page = sources.iter().find(|source| source.path == PAGE);
    let drawn = page.and_then(|page| drawn(&page.text));
    let Some(drawn) = drawn else {
        return vec![Complaint::whole(PAGE, "there is no `deps` block")];
    };
    match built(sources) {
        Ok(built) => compare(&drawn, &built),
        Err(complaint) => vec![complaint],
    }
}

fn compare(drawn: &Arrows, built: &Arrows) -> Vec<Complaint> {
    let missing = built.keys().filter(|name| !drawn.contains_key(*name));
    let mut complaints: Vec<Complaint> = missing
        .map(|name| Complaint::whole(PAGE, format!("the crate {name} is not in the `deps` block")))
        .collect();
    for (name, drawn) in drawn {
        let Some(built) = built.get(name) else {
            complaints.push(Complaint::whole(PAGE, format!("there is no crate {name}")));
            continue;
        };
        if drawn != built {
            let what = format!("{name} is drawn to use {drawn:?}, and uses {built:?}");
            complaints.push(Complaint::whole(PAGE, what));
        }
    }
    complaints
}

/// `name -> used used   what it is for`, one line per crate, in a block fenced as `deps`.
fn drawn(page: &str) -> Option<Arrows> {
    let block = page.lines().skip_while(|line| line.trim() != "```deps").skip(1);
    let lines =
        block.take_while(|line| line.trim() != "```").filter(|line| !line.trim().is_empty());
    let arrow = |line: &str| {
        let (name, rest) = line.split_once("->")?;
        let used = rest.strip_prefix(' ').unwrap_or(rest);
        let used = used.split("  ").next().unwrap_or_default();
        let used = used.split(' ').filter(|word| !word.is_empty()).map(str::to_owned);
        Some((name.trim().to_owned(), used.collect()))
    };
    let arrows: Arrows = lines.map(arrow).collect::<Option<_>>()?;
    (!arrows.is_empty()).then_some(arrows)
}

/// The dependencies among our crates, as their manifests name them.
fn built(sources: &[Source]) -> Result<Arrows, Complaint> {
    let ours = |path: &str| path != "Cargo.toml" && path.ends_with("/Cargo.toml");
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources.iter().filter(|source| ours(&source.path)) {
        let manifest: toml::Table = source
            .text
            .parse()
            .map_err(|error| Complaint::whole(&source.path, format!("cannot be read: {error}")))?;
        let name = manifest.get("package").and_then(|package| package.get("name"));
        let name = name.and_then(toml::Value::as_str).unwrap_or(&source.path).to_owned();
        let named = ["dependencies", "build-dependencies"]
            .iter()
            .filter_map(|section| manifest.get(*section)?.as_table())
            .flat_map(|table| table.keys().cloned());
        uses.insert(name, named.collect());
    }
    let crates: BTreeSet<String> = uses.keys().cloned().collect();
    for used in uses.values_mut() {
        used.retain(|name| crates.contains(name));
    }
    Ok(uses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(block: &str, order_uses: &str) -> Vec<String> {
        let manifest = |name: &str, uses: &str| {
            format!("[package]\nname = \"{name}\"\n[dependencies]\nbytes = \"1\"\n{uses}")
        };
        let source = |path: &str, text: String| Source { path: path.into(), text };
        let sources = [
            source("ARCHITECTURE.md", format!("# It\n\n```deps\n{block}```\n")),
            source("crates/ledger/Cargo.toml", manifest("ledger", "")),
            source("crates/order/Cargo.toml", manifest("order", order_uses)),
        ];
        check(&sources).iter().map(ToString::to_string).collect()
    }

    const LEDGER: &str = "ledger.workspace = true\n";

    #[test]
    fn a_block_that_matches_the_manifests_passes() {
        let block = "ledger ->          what is true\norder  -> ledger   the replica\n";
        assert!(complaints(block, LEDGER).is_empty());
    }

    #[test]
    fn a_dependency_that_is_not_drawn_is_caught() {
        let block = "ledger ->   what is true\norder  ->   the replica\n";
        assert!(complaints(block, LEDGER)[0].contains("order is drawn to use {}"));
    }

    #[test]
    fn a_surplus_or_missing_crate_is_caught() {
        assert!(complaints("ledger ->   what is true\n", "")[0].contains("the crate order is not"));
        let block = "ledger ->   it\norder ->   it\nsim ->   it\n";
        assert!(complaints(block, "")[0].contains("there is no crate sim"));
        assert!(complaints("", "")[0].contains("there is no `deps` block"));
    }
}
