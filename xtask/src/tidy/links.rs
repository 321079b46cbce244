//! Checks that every relative link leads somewhere, and that every decision is in the index.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::tidy::{Complaint, Source};

const DECISIONS: &str = "docs/decisions/";

/// Every complaint about links between the texts.
pub(crate) fn check(sources: &[Source]) -> Vec<Complaint> {
    let pages = || sources.iter().filter(|source| source.is("md"));
    pages().flat_map(|page| dead(page, sources)).chain(unindexed(sources)).collect()
}

/// The links of one page that lead nowhere.
fn dead(page: &Source, sources: &[Source]) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (line, target) in targets(&page.text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
        let path = if file.is_empty() { page.path.clone() } else { resolve(&page.path, file) };
        let found = sources.iter().find(|source| source.path == path);
        let folder = format!("{}/", path.trim_end_matches('/'));
        let exists = found.is_some() || sources.iter().any(|it| it.path.starts_with(&folder));
        if !exists {
            complaints.push(Complaint::at(&page.path, line, format!("leads nowhere: {target}")));
        } else if !anchor.is_empty() && !found.is_some_and(|it| anchors(&it.text).contains(anchor))
        {
            complaints.push(Complaint::at(&page.path, line, format!("no such heading: {target}")));
        }
    }
    complaints
}

/// Every `[text](target)` outside code, with its line.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, line) in prose(text) {
        // Code between backticks is not prose either.
        let line: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (place, _) in line.match_indices("](") {
            let rest = &line[place + 2..];
            if let Some(end) = rest.find(')') {
                found.push((at, rest[..end].to_owned()));
            }
        }
    }
    found
}

/// The lines outside fenced blocks, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((at + 1, line))
    })
}

/// The anchors of a page's headings.
pub(super) fn anchors(text: &str) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for (_, line) in prose(text).filter(|(_, line)| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        known.insert(anchor);
    }
    known
}

fn resolve(page: &str, file: &str) -> String {
    let mut path = PathBuf::from(page);
    path.pop();
    for part in Path::new(file).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(part) => path.push(part),
            _ => {}
        }
    }
    path.to_string_lossy().replace('\\', "/")
}

/// Decisions that the index does not list, and numbers that are used twice.
fn unindexed(sources: &[Source]) -> Vec<Complaint> {
    let index = format!("{DECISIONS}README.md");
    let listed = sources.iter().find(|it| it.path == index).map_or("", |it| it.text.as_str());
    let mut numbers = BTreeSet::new();
    let mut complaints = Vec::new();
    for path in sources.iter().map(|it| &it.path).filter(|path| path.starts_with(DECISIONS)) {
        let name = &path[DECISIONS.len()..];
        if name == "README.md" {
            continue;
        }
        let number = name.split('-').next().unwrap_or_default();
        if number.len() != 4 || number.parse::<u16>().is_err() {
            complaints.push(Complaint::whole(path, "a decision is named NNNN-what-it-is.md"));
        } else if !numbers.insert(number.to_owned()) {
            complaints.push(Complaint::whole(path, format!("the number {number} is taken")));
        }
        if !listed.contains(&format!("]({name})")) {
            complaints.push(Complaint::whole(path, format!("not listed in {index}")));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(texts: &[(&str, &str)]) -> Vec<String> {
        let source = |(path, text): &(&str, &str)| Source {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        let sources: Vec<Source> = texts.iter().map(source).collect();
        check(&sources).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_link_that_leads_nowhere_is_caught() {
        let other = ("docs/other.md", "# The `one` heading, here!\n\n[up](../README.md)\n");
        let good = "[a](docs/other.md#the-one-heading-here) [b](docs) [c](https://x.y) `[d](e)`\n";
        assert!(complaints(&[("README.md", good), other]).is_empty());
        let bad = "\n[a](docs/missing.md)\n[b](docs/other.md#elsewhere)\n```\n[c](d)\n```\n";
        let caught = complaints(&[("README.md", bad), other]);
        let nowhere = "README.md:2: leads nowhere: docs/missing.md";
        assert_eq!(caught, [nowhere, "README.md:3: no such heading: docs/other.md#elsewhere"]);
    }

    #[test]
    fn a_decision_that_is_not_indexed_is_caught() {
        let index = ("docs/decisions/README.md", "[0001](0001-one.md)\n");
        assert!(complaints(&[index, ("docs/decisions/0001-one.md", "# One\n")]).is_empty());
        let one = ("docs/decisions/0001-one.md", "# One\n");
        let caught = complaints(&[index, one, ("docs/decisions/0001-two.md", "# Two\n")]);
        assert_eq!(caught.len(), 2, "{caught:?}");
        assert_eq!(complaints(&[index, one, ("docs/decisions/two.md", "# Two\n")]).len(), 2);
    }
}
