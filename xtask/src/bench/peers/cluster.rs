//! `PostgreSQL`'s own programs, the user that runs them, and the nodes made of them.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::bench::process::{Process, READY_MAX, measured};

/// The database's user.
pub(super) const USER: &str = "bench";

/// The folder of the programs, and the user that runs them: `PostgreSQL` refuses to run as root.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    folder: PathBuf,
    /// User and group. `None`: the current user.
    other: Option<(u32, u32)>,
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) process: Process,
    pub(super) port: u16,
}

impl Programs {
    /// The installed programs. `None`: one is missing.
    pub(crate) fn find() -> Option<Self> {
        let paths = std::env::var_os("PATH")?;
        let mut found = std::env::split_paths(&paths).map(|folder| folder.join("postgres"));
        let program = found.find_map(|path| path.canonicalize().ok())?;
        let folder = program.parent()?.to_owned();
        let needed = ["initdb", "pg_basebackup", "pgbench", "psql"];
        if !needed.iter().all(|name| folder.join(name).exists()) {
            return None;
        }
        let other = match rustix::process::geteuid().is_root() {
            true => Some(other_user(&fs::read_to_string("/etc/passwd").ok()?)?),
            false => None,
        };
        Some(Self { folder, other })
    }

    /// One of the programs, run as that user.
    pub(super) fn command(&self, name: &str) -> Command {
        let program = self.folder.join(name);
        let mut command = match name {
            "postgres" => measured(program),
            _ => Command::new(program),
        };
        if let Some((user, group)) = self.other {
            command.uid(user).gid(group);
        }
        command
    }

    /// Gives a folder to the user that runs the programs.
    pub(super) fn own(&self, folder: &Path) -> Result<()> {
        let Some((user, group)) = self.other else { return Ok(()) };
        chown(folder, Some(user), Some(group)).context("give a folder away")
    }

    /// The version that `postgres` reports.
    pub(super) fn version(&self) -> Result<String> {
        let said = done(self.command("postgres").arg("--version"))?;
        // `postgres (PostgreSQL) 15.18 (Debian …)`
        Ok(said.split(' ').skip(1).take(2).collect::<Vec<_>>().join(" ").replace(['(', ')'], ""))
    }
}

/// The ids of the user `postgres` in a password file, or else of the user without any rights.
fn other_user(passwd: &str) -> Option<(u32, u32)> {
    let line = |name: &str| passwd.lines().find(|line| line.starts_with(&format!("{name}:")));
    let mut fields = line("postgres").or_else(|| line("nobody"))?.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

impl Node {
    /// A new, empty node.
    pub(super) fn first(programs: &Programs, folder: &Path, port: u16) -> Result<Self> {
        let data = folder.join("primary");
        let mut initdb = programs.command("initdb");
        initdb.current_dir(folder).args(["--no-sync", "-A", "trust", "-U", USER, "-D"]);
        done(initdb.arg(&data))?;
        configure(&data, "max_connections = 200\n")?;
        Self::start(programs, &data, port)
    }

    /// A standby of the primary at `primary`.
    pub(super) fn standby(
        programs: &Programs,
        folder: &Path,
        (name, port): (&str, u16),
        primary: u16,
    ) -> Result<Self> {
        let data = folder.join(name);
        let mut backup = programs.command("pg_basebackup");
        backup.current_dir(folder).args(["-h", "127.0.0.1", "-p", &primary.to_string()]);
        done(backup.args(["-U", USER, "--no-sync", "-c", "fast", "-R", "-D"]).arg(&data))?;
        // The name by which the primary knows the standby.
        configure(&data, &format!("cluster_name = '{name}'\n"))?;
        Self::start(programs, &data, port)
    }

    fn start(programs: &Programs, data: &Path, port: u16) -> Result<Self> {
        let mut command = programs.command("postgres");
        command.current_dir(data).arg("-D").arg(data);
        for (name, value) in [
            ("port", port.to_string().as_str()),
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""),
        ] {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let process = Process::start(&mut command, data.with_extension("lines"))?;
        let node = Self { process, port };
        let began = Instant::now();
        while node.ask(programs, "SELECT 1").is_err() {
            if READY_MAX < began.elapsed() {
                bail!("PostgreSQL does not start: {}", node.process.last_lines());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(node)
    }

    /// The answer of `psql`.
    pub(super) fn ask(&self, programs: &Programs, sql: &str) -> Result<String> {
        let mut command = programs.command("psql");
        command.current_dir("/").args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1"]);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER]);
        done(command.args(["-d", "postgres", "-c", sql]))
    }
}

fn configure(data: &Path, lines: &str) -> Result<()> {
    let path = data.join("postgresql.conf");
    let mut file = OpenOptions::new().append(true).open(path).context("open a configuration")?;
    file.write_all(lines.as_bytes()).context("write a configuration")
}

/// Runs a command to its end, and returns its output.
fn done(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_runs_the_programs_as_another_user() {
        let passwd = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65533:n:/:/no\n";
        assert_eq!(other_user(passwd), Some((65_534, 65_533)));
        let passwd = format!("{passwd}postgres:x:101:104:P:/:/bin/bash\n");
        assert_eq!(other_user(&passwd), Some((101, 104)));
        assert_eq!(other_user("root:x:0:0:root:/:/bin/sh\n"), None);
    }
}
