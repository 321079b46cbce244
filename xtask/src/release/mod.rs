//! A release: `--record` keeps what later versions must stay compatible with; without it, the
//! program is built as it is deployed, and packed.
//!
//! `releases/VERSION/` holds the commit, the contracts between processes, and the data folders and
//! answers of a store after a scripted day; the tests of each later version read them. An archive
//! holds the program, its list of crates, and what deployment needs. Programs are not committed.

mod archive;
mod changelog;
mod crate_list;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::bench::machine;
use crate::bench::process::PROFILE;

/// What to do for a release.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Begins a release: dates its changes, and records in `releases/` what it writes and promises
    #[arg(long)]
    record: bool,
    /// Builds and packs from any tree, and sets no tag
    #[arg(long, conflicts_with = "record")]
    trial: bool,
}

/// The file with the commit that was recorded.
const COMMIT: &str = "commit";

/// What the program is made from.
const PROGRAM: [&str; 5] = ["Cargo.lock", "Cargo.toml", "crates", "proto", "shops"];

/// The version that is released: that of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Records or packs.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    if !options.trial {
        must_be_clean(root)?;
    }
    if options.record { record(root) } else { pack(root, options.trial) }
}

/// The folder that later versions compare with.
fn folder(root: &Path) -> PathBuf {
    root.join("releases").join(VERSION)
}

/// Writes `releases/VERSION/`, and dates the changes.
fn record(root: &Path) -> Result<()> {
    let folder = folder(root);
    if folder.exists() {
        bail!("{} is there already: a release is recorded once", folder.display());
    }
    let changes = root.join("CHANGELOG.md");
    let dated = changelog::date(&fs::read_to_string(&changes)?, VERSION, &machine::date())?;
    // Renamed when everything is in it: a release that was recorded in part is none.
    let draft = root.join("releases").join(format!(".{VERSION}"));
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    fs::create_dir_all(&draft)?;
    println!("Recording the contracts and a day of a store, with the program that tests build.");
    let tests = [
        ["-p", "wire", "--test", "contracts", "every_contract_of_every_release_is_kept"],
        ["-p", "oppidum", "--test", "e2e", "a_day_with_every_kind_of_record_survives_a_restart"],
    ];
    for test in tests {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(root).args(["test", "--quiet"]).args(test);
        if !command.env("OPPIDUM_RECORD", &draft).status()?.success() {
            bail!("the day failed, and nothing was recorded");
        }
    }
    fs::write(draft.join(COMMIT), output_of(root, "git", &["rev-parse", "HEAD"])? + "\n")?;
    fs::write(changes, dated)?;
    fs::rename(&draft, &folder)?;
    println!("Recorded in {}. Commit it, then: cargo xtask release", folder.display());
    Ok(())
}

/// Builds the program as it is deployed, packs it, and sets the tag.
fn pack(root: &Path, trial: bool) -> Result<()> {
    if !trial {
        if !folder(root).is_dir() {
            bail!("nothing is recorded for {VERSION}: first `cargo xtask release --record`");
        }
        changelog::must_be_dated(&fs::read_to_string(root.join("CHANGELOG.md"))?, VERSION)?;
        must_be_recorded(root)?;
    }
    println!("Building what is deployed: some ten minutes on two cores, the first time.");
    let build = ["build", "--locked", "--profile", PROFILE, "--package", "oppidum"];
    let mut building = Command::new(env!("CARGO"));
    building.current_dir(root).args(build);
    // `oppidum_build_info` shows it; a trial may be outside of any repository.
    if let Ok(revision) = output_of(root, "git", &["rev-parse", "HEAD"]) {
        building.env("OPPIDUM_REVISION", revision);
    }
    let built = building.status();
    if !built.context("start cargo")?.success() {
        bail!("the program does not build");
    }
    let archive = archive::pack(root, VERSION)?;
    println!("{}", archive.display());
    if !trial {
        let (tag, message) = (tag(), format!("Release {VERSION}"));
        output_of(root, "git", &["tag", "--annotate", &tag, "--message", &message])?;
        println!("tagged {tag}");
    }
    Ok(())
}

fn tag() -> String {
    format!("v{VERSION}")
}

/// What is packed is what was recorded, and has no tag yet.
fn must_be_recorded(root: &Path) -> Result<()> {
    let recorded = fs::read_to_string(folder(root).join(COMMIT))?;
    let both = ["diff", "--name-only", recorded.trim(), "HEAD", "--"];
    let changed = output_of(root, "git", &[&both[..], &PROGRAM[..]].concat())?;
    if !changed.is_empty() {
        bail!(
            "these files have changed since {VERSION} was recorded; remove its folder in releases/ \
             and record it again:\n{changed}"
        );
    }
    if !output_of(root, "git", &["tag", "--list", &tag()])?.is_empty() {
        bail!("the tag {} exists: {VERSION} is released", tag());
    }
    Ok(())
}

/// What is released is what is committed.
fn must_be_clean(root: &Path) -> Result<()> {
    let changed = output_of(root, "git", &["status", "--porcelain"])?;
    if !changed.is_empty() {
        bail!("a release is made from a clean tree; commit or remove:\n{changed}");
    }
    Ok(())
}

/// The output of a program, without its last line end.
fn output_of(root: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    let output = command.current_dir(root).args(arguments).output();
    let output = output.with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", arguments.join(" "), why.trim_end());
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}
