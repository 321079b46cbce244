//! The Debian package: a plain tree, packed by `dpkg-deb`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The files of the repository in the package.
const FILES: [(&str, &str); 6] = [
    ("deploy/systemd/oppidum-order@.service", "usr/lib/systemd/system/oppidum-order@.service"),
    ("deploy/systemd/oppidum-catalog.service", "usr/lib/systemd/system/oppidum-catalog.service"),
    ("deploy/systemd/oppidum-frontend.service", "usr/lib/systemd/system/oppidum-frontend.service"),
    ("deploy/systemd/oppidum.env", "etc/oppidum/oppidum.env"),
    ("deploy/debian/oppidum.sysusers", "usr/lib/sysusers.d/oppidum.conf"),
    ("LICENSE", "usr/share/doc/oppidum/copyright"),
];

/// The scripts of the package.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Where each shell looks for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("oppidum.bash", "usr/share/bash-completion/completions/oppidum"),
    ("oppidum.fish", "usr/share/fish/vendor_completions.d/oppidum.fish"),
    ("_oppidum", "usr/share/zsh/vendor-completions/_oppidum"),
];

/// Packs a built program; returns the package.
pub(crate) fn pack(root: &Path, program: &Path, to: &Path) -> Result<PathBuf> {
    let tree = to.join("tree");
    let generated = to.join("generated");
    for folder in [&tree, &generated] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    let file = |inside: &str| -> Result<PathBuf> {
        let path = tree.join(inside);
        fs::create_dir_all(path.parent().unwrap_or(&tree))?;
        Ok(path)
    };
    let binary = file("usr/bin/oppidum")?;
    run(Command::new("strip").arg("-o").arg(&binary).arg(program))?;
    run(Command::new(program).arg("generate").arg(&generated))?;
    for (from, inside) in FILES {
        copy(&root.join(from), &file(inside)?, 0o644)?;
    }
    for (from, inside) in COMPLETIONS {
        copy(&generated.join("completions").join(from), &file(inside)?, 0o644)?;
    }
    for page in fs::read_dir(generated.join("man"))? {
        let page = page?;
        let name = page.file_name().to_string_lossy().into_owned();
        gzip(&page.path(), &file(&format!("usr/share/man/man1/{name}.gz"))?)?;
    }
    gzip(&root.join("CHANGELOG.md"), &file("usr/share/doc/oppidum/changelog.gz")?)?;
    for script in SCRIPTS {
        let path = root.join("deploy/debian").join(script);
        copy(&path, &file(&format!("DEBIAN/{script}"))?, 0o755)?;
    }
    fs::write(file("DEBIAN/conffiles")?, "/etc/oppidum/oppidum.env\n")?;
    let architecture = printed("dpkg", &["--print-architecture"])?;
    fs::write(file("DEBIAN/control")?, control(&architecture, &libc()?))?;
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
    let version = super::VERSION;
    let package = to.join(format!("oppidum_{version}_{architecture}.deb"));
    let pack = ["-Zxz", "--root-owner-group", "--build"];
    run(Command::new("dpkg-deb").args(pack).arg(&tree).arg(&package))?;
    Ok(package)
}

/// The description of the package for `dpkg`.
fn control(architecture: &str, libc: &str) -> String {
    let version = super::VERSION;
    format!(
        "Package: oppidum
Version: {version}
Architecture: {architecture}
Maintainer: The authors of Oppidum <oppidum@localhost>
Depends: libc6 (>= {libc}), libgcc-s1, procps, systemd (>= 252)
Section: database
Priority: optional
Description: replicated inventory and order service
 Clients query products, buy and sell, and look orders up over HTTP. Three replicas
 hold one ledger; any process may be killed, the leader included.
"
    )
}

/// The C library that the program was built with: it may need that one, or a later one.
fn libc() -> Result<String> {
    let whole = printed("dpkg-query", &["--show", "--showformat=${Version}", "libc6"])?;
    Ok(whole.split('-').next().unwrap_or(&whole).to_owned())
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

/// Compresses a file, without a time, so that the same tree gives the same package.
fn gzip(from: &Path, to: &Path) -> Result<()> {
    let output = Command::new("gzip").args(["-9", "-n", "-c"]).arg(from).output()?;
    if !output.status.success() {
        bail!("gzip {}: {}", from.display(), String::from_utf8_lossy(&output.stderr));
    }
    fs::write(to, output.stdout)?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(0o644))?)
}

fn printed(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("start {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a command that must not fail.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_of_the_repository_is_in_the_package() {
        let folder = crate::root().join("deploy/systemd");
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        for name in names {
            let name = format!("deploy/systemd/{}", name.to_string_lossy());
            assert!(FILES.iter().any(|(from, _)| *from == name), "{name}");
        }
    }
}
