//! The archive: the stripped program, its list of crates, and what deployment needs. The same
//! program gives the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{crate_list, output_of};
use crate::bench::process;

/// What is packed beside the program, from the root of the repository.
const PACKED_FILES: [&str; 5] = ["README.md", "CHANGELOG.md", "LICENSE", "deploy", "shops"];

/// The file with the checksum of the archive.
const SUMS: &str = "SHA256SUMS";

/// Packs the built program into `target/release-VERSION/`, and tries what was packed.
pub(super) fn pack(root: &Path, version: &str) -> Result<PathBuf> {
    let machine = std::env::consts::ARCH;
    let name = format!("oppidum-{version}-{machine}-linux");
    let target = root.join("target").join(format!("release-{version}"));
    let staged = target.join(&name);
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    fs::create_dir_all(&staged)?;
    let program = staged.join("oppidum");
    let built = process::released(root, "oppidum");
    run(root, "strip", &["-o", text(&program)?, text(&built)?])?;
    // Only what is committed: a folder may hold more.
    let beside = target.join("files.tar");
    let export = ["archive", "--output", text(&beside)?, "HEAD"];
    run(root, "git", &[&export[..], &PACKED_FILES[..]].concat())?;
    run(&staged, "tar", &["-xf", text(&beside)?])?;
    fs::remove_file(&beside)?;
    let tree = ["tree", "-p", "oppidum", "-e", "normal", "--locked", "--prefix", "none"];
    let tree = output_of(root, env!("CARGO"), &[&tree[..], &["--format", "{p}\t{l}"]].concat())?;
    let lock = fs::read_to_string(root.join("Cargo.lock"))?;
    let crates = crate_list::write("oppidum", version, &tree, &lock)?;
    fs::write(staged.join("crates.cdx.json"), crates)?;
    let archive = format!("{name}.tar.xz");
    let at = format!("--mtime=@{}", output_of(root, "git", &["log", "-1", "--format=%ct"])?);
    let whose = ["--owner=0", "--group=0", "--numeric-owner", "--mode=go=rX,u+rw", "--sort=name"];
    let what = ["-cJf", &archive, &at, &name];
    run(&target, "tar", &[&whose[..], &what].concat())?;
    let sum = output_of(&target, "sha256sum", &[&archive])?;
    fs::write(target.join(SUMS), sum + "\n")?;
    fs::remove_dir_all(&staged)?;
    check(&target, &archive, &name, version)?;
    Ok(target.join(archive))
}

/// Unpacks the archive as its user does: the checksum holds, and the program says its version.
fn check(target: &Path, archive: &str, name: &str, version: &str) -> Result<()> {
    run(target, "sha256sum", &["--check", "--quiet", SUMS])?;
    run(target, "tar", &["-xJf", archive])?;
    let program = target.join(name).join("oppidum");
    let told = output_of(target, text(&program)?, &["--version"])?;
    if told != format!("oppidum {version}") {
        bail!("the packed program calls itself {told:?}");
    }
    let refused =
        Command::new(&program).args(["order", "--id", "1", "--fault", "switches"]).output()?;
    if !String::from_utf8_lossy(&refused.stderr).contains("unexpected argument '--fault'") {
        bail!("the packed program accepts failpoints");
    }
    let size = fs::metadata(target.join(archive))?.len();
    println!("{} bytes, of them {} in the program", size, fs::metadata(&program)?.len());
    fs::remove_dir_all(target.join(name))?;
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))
}

/// Runs a program in a folder; it must succeed.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    output_of(folder, program, arguments).map(drop)
}
