//! The gate: every check in one command, with the time of each, and a summary.
//!
//! All steps run, even after a failure, so that one run reports everything that must be fixed. On a
//! developer's machine, a check whose tool is missing is reported and skipped; with `CI=true`, a
//! skipped check is a failed check.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{manual, packages, tidy};

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    Skipped,
}

#[derive(Debug)]
struct Step {
    name: &'static str,
    end: End,
    took: Duration,
}

/// Runs every check. Fails if a check failed, and with `CI=true` also if a check was skipped.
pub(crate) fn ci(root: &Path) -> Result<()> {
    let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
    let mut steps = Vec::new();
    let mut step = |name, check: &dyn Fn() -> Result<End>| {
        println!("\n=== {name} ===");
        let began = Instant::now();
        let end = check().unwrap_or_else(|error| {
            println!("{error:#}");
            End::Failed
        });
        let took = began.elapsed();
        println!("=== {name}: {} in {:.1} s ===", word(end), took.as_secs_f64());
        steps.push(Step { name, end, took });
    };
    step("formatting", &|| cargo(root, &["fmt", "--all", "--check"], &[]));
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    step("clippy", &|| cargo(root, &clippy, &[]));
    step("tidy", &|| tidy::run(root).map(|()| End::Passed));
    let doc = ["doc", "--workspace", "--no-deps", "--document-private-items"];
    step("documentation", &|| cargo(root, &doc, &[("RUSTDOCFLAGS", "-D warnings")]));
    step("licences and sources", &|| deny(root));
    step("simulator: licences", &|| deny(&root.join("sim")));
    step("tests", &|| cargo(root, &["test", "--workspace", "--no-fail-fast"], &[]));
    step("pages", &|| pages(root));
    step("package", &|| package(root));
    // Only this build shows that a release does not accept failpoints.
    let released = ["--config", "profile.dev.package.oppidum.debug-assertions=false"];
    let failpoints = ["test", "-p", "oppidum", "--bin", "oppidum", "failpoint"];
    step("no failpoints", &|| cargo(root, &[&failpoints[..], &released].concat(), &[]));
    let sim = root.join("sim");
    step("simulator: formatting", &|| cargo(&sim, &["fmt", "--all", "--check"], &[]));
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    step("simulator: clippy", &|| cargo(&sim, &clippy, &[]));
    step("simulator: tests", &|| cargo(&sim, &["test", "--workspace", "--no-fail-fast"], &[]));
    print!("{}", summary(&steps));
    match steps.iter().any(|step| is_shut(step.end, strict)) {
        true => bail!("the gate failed"),
        false => Ok(()),
    }
}

/// True if a step that ended like this fails the gate.
fn is_shut(end: End, strict: bool) -> bool {
    match end {
        End::Passed => false,
        End::Failed => true,
        End::Skipped => strict,
    }
}

/// Formats, and applies what clippy can fix by itself.
pub(crate) fn fix(root: &Path) -> Result<()> {
    let clippy = ["clippy", "--fix", "--workspace", "--all-targets", "--allow-dirty"];
    for arguments in [&clippy[..], &["fmt", "--all"]] {
        if cargo(root, arguments, &[])? == End::Failed {
            bail!("cargo {} failed", arguments.join(" "));
        }
    }
    Ok(())
}

fn cargo(root: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<End> {
    println!("cargo {}", arguments.join(" "));
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root).args(arguments).envs(environment.iter().copied());
    let status =
        command.status().with_context(|| format!("start cargo {}", arguments.join(" ")))?;
    Ok(if status.success() { End::Passed } else { End::Failed })
}

/// `cargo deny` is a separate tool, which `.ci/run` installs; without it the step is skipped.
/// Advisories are not checked: they come over the network and change without the repository.
fn deny(workspace: &Path) -> Result<End> {
    let asked = Command::new(env!("CARGO")).args(["deny", "--version"]).output();
    if !asked.is_ok_and(|answer| answer.status.success()) {
        println!("!!! NOT CHECKED: cargo-deny is not installed. `cargo install cargo-deny` !!!");
        return Ok(End::Skipped);
    }
    cargo(workspace, &["deny", "--locked", "check", "licenses", "bans", "sources"], &[])
}

/// Follows the operators' pages with the program that the tests have built.
fn pages(root: &Path) -> Result<End> {
    if let Some(why) = manual::obstacle() {
        println!("!!! NOT CHECKED: the pages cannot be followed here: {why} !!!");
        return Ok(End::Skipped);
    }
    manual::run(root, &manual::Options::built()).map(|()| End::Passed)
}

/// Installs the package in a booted Debian, with the program that the tests have built.
fn package(root: &Path) -> Result<End> {
    if let Some(why) = packages::obstacle() {
        println!("!!! NOT CHECKED: the package cannot be installed here: {why} !!!");
        return Ok(End::Skipped);
    }
    packages::run(root, &packages::Options::built()).map(|()| End::Passed)
}

fn word(end: End) -> &'static str {
    match end {
        End::Passed => "passed",
        End::Failed => "FAILED",
        End::Skipped => "NOT CHECKED",
    }
}

fn summary(steps: &[Step]) -> String {
    let line = |name: &str, end: &str, took: Duration| {
        format!("  {name:<22} {end:<12} {:>7.1} s\n", took.as_secs_f64())
    };
    let lines = steps.iter().map(|step| line(step.name, word(step.end), step.took));
    let total = steps.iter().map(|step| step.took).sum();
    let lines: String = lines.chain([line("together", "", total)]).collect();
    format!("\nSummary\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind: a check that a machine without its tool skips silently.
    #[test]
    fn a_skipped_check_fails_ci_and_not_a_local_run() {
        for (end, desk, ci) in
            [(End::Passed, false, false), (End::Skipped, false, true), (End::Failed, true, true)]
        {
            assert_eq!(is_shut(end, false), desk, "{end:?}");
            assert_eq!(is_shut(end, true), ci, "{end:?}");
        }
    }

    #[test]
    fn the_summary_names_every_step_and_what_was_not_checked() {
        let step = |name, end| Step { name, end, took: Duration::from_millis(1_500) };
        let text = summary(&[step("formatting", End::Passed), step("licences", End::Skipped)]);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(lines.contains(&vec!["formatting", "passed", "1.5", "s"]), "{text}");
        assert!(lines.contains(&vec!["licences", "NOT", "CHECKED", "1.5", "s"]), "{text}");
        assert!(lines.contains(&vec!["together", "3.0", "s"]), "{text}");
    }
}
