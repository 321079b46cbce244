//! Tidy: the rules of the repository that no compiler checks.
//!
//! Each rule is a pure function over texts and has a test with a sample that it must catch. `run`
//! reads the repository once and applies them all; the test at the end does the same, so that
//! `cargo test` covers it.

mod arrows;
mod blank;
mod cycles;
mod links;
mod metrics;
mod names;
mod reference;
mod register;
mod shape;
mod words;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// One text of the repository.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Relative to the workspace, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// Whether its name ends like this.
    pub(crate) fn is(&self, ending: &str) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, it)| it == ending)
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Complaint {
    path: String,
    /// 0: the whole file.
    line: usize,
    what: String,
}

impl Complaint {
    pub(crate) fn at(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.into(), line, what: what.into() }
    }

    pub(crate) fn whole(path: &str, what: impl Into<String>) -> Self {
        Self::at(path, 0, what)
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// Applies every rule to the repository. Fails when there is anything to complain about.
pub(crate) fn run(root: &Path) -> Result<()> {
    let sources = read(root)?;
    let complaints = check(&sources);
    for complaint in &complaints {
        println!("{complaint}");
    }
    match complaints.len() {
        0 => println!("tidy: {} files, nothing to complain about", sources.len()),
        count => bail!("tidy: {count} complaints"),
    }
    Ok(())
}

/// Every rule, over all texts.
fn check(sources: &[Source]) -> Vec<Complaint> {
    let mut complaints: Vec<Complaint> = sources
        .iter()
        .flat_map(|source| [shape::check(source), words::check(source), register::check(source)])
        .flatten()
        .collect();
    complaints.extend(arrows::check(sources));
    complaints.extend(cycles::check(sources));
    complaints.extend(links::check(sources));
    complaints.extend(metrics::check(sources));
    complaints.extend(names::check(sources));
    complaints.extend(reference::check(sources));
    complaints.sort();
    complaints
}

/// Folders that hold nothing of ours.
const NOT_OURS: [&str; 3] = ["target", ".git", "oppidum-data"];

/// Endings of the texts that are read: what we write, and what pages show.
const TEXTS: [&str; 8] = ["rs", "md", "toml", "proto", "yml", "svg", "csv", "json"];

fn is_text(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    let script = path.parent().is_some_and(|folder| folder.ends_with("scripts"));
    script || path.ends_with(".ci/run") || path.ends_with("LICENSE") || TEXTS.contains(&&*ending)
}

fn read(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !NOT_OURS.contains(&name.as_str()) {
                    folders.push(path);
                }
                continue;
            }
            if !is_text(&path) {
                continue;
            }
            let text =
                fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let path = path.strip_prefix(root).unwrap_or(&path);
            sources.push(Source { path: path.to_string_lossy().replace('\\', "/"), text });
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let sources = read(&crate::root()).expect("the repository can be read");
        let complaints: Vec<String> = check(&sources).iter().map(ToString::to_string).collect();
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }

    #[test]
    fn a_complaint_says_where() {
        assert_eq!(Complaint::at("a.rs", 7, "too long").to_string(), "a.rs:7: too long");
        assert_eq!(Complaint::whole("a.rs", "too long").to_string(), "a.rs: too long");
    }
}
