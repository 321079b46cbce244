//! The changelog: the section `Unreleased` becomes that of a version, with its date.

use anyhow::{Result, bail};

/// The heading of the changes that no release has yet.
const UNRELEASED: &str = "## Unreleased";

/// Gives the unreleased changes their version and date; a new, empty section comes before them.
pub(super) fn date(text: &str, version: &str, date: &str) -> Result<String> {
    let Some((before, after)) = text.split_once(&format!("{UNRELEASED}\n")) else {
        bail!("CHANGELOG.md has no section {UNRELEASED:?}");
    };
    let own = after.split("\n## ").next().unwrap_or(after);
    if own.trim().is_empty() {
        bail!("CHANGELOG.md lists no change under {UNRELEASED:?}");
    }
    Ok(format!("{before}{UNRELEASED}\n\n{}, {date}\n{after}", heading(version)))
}

/// Fails unless the version has a section with a date.
pub(super) fn must_be_dated(text: &str, version: &str) -> Result<()> {
    let start = format!("{}, ", heading(version));
    if !text.lines().any(|line| line.starts_with(&start)) {
        bail!("CHANGELOG.md has no dated section of {version}");
    }
    Ok(())
}

fn heading(version: &str) -> String {
    format!("## {version}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Changelog\n\n## Unreleased\n\n* new\n\n## 0.0.9, 2026-01-01\n\n* old\n";

    #[test]
    fn the_unreleased_changes_get_a_version_and_a_date_and_a_new_section_begins() {
        let dated = date(TEXT, "0.1.0", "2026-11-29").unwrap();
        let start = "# Changelog\n\n## Unreleased\n\n## 0.1.0, 2026-11-29\n\n* new\n\n## 0.0.9";
        assert!(dated.starts_with(start), "{dated}");
        must_be_dated(&dated, "0.1.0").unwrap();
        must_be_dated(TEXT, "0.1.0").unwrap_err();
    }

    #[test]
    fn a_release_without_changes_is_no_release() {
        let dated = date(TEXT, "0.1.0", "2026-11-29").unwrap();
        let again = date(&dated, "0.2.0", "2026-12-01").unwrap_err();
        assert!(again.to_string().contains("lists no change"), "{again}");
        date("# Changelog\n", "0.1.0", "2026-11-29").unwrap_err();
    }
}
