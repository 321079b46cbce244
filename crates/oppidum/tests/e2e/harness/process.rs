//! One process of the real binary: its log lines, its signals, its exit.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use super::{SOON, until};

/// The binary under test.
fn binary() -> Command {
    program(Path::new(env!("CARGO_BIN_EXE_oppidum")))
}

fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    // The machine's own settings do not reach the process.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("OPPIDUM_") || name == "ORDER_SERVICE_ID" {
            command.env_remove(name);
        }
    }
    command
}

/// The result of a command that has ended by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    run_in(folder.path(), &[], arguments)
}

/// Runs a command to its end, in a folder, with environment variables.
pub(crate) fn run_in(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut command = binary();
    command.current_dir(folder).envs(variables.iter().copied()).args(arguments);
    ended(command.stdin(Stdio::null()))
}

/// Runs a command to its end, with its stdout redirected.
pub(crate) fn run_to(stdout: impl Into<Stdio>, arguments: &[&str]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    ended(binary().current_dir(folder.path()).args(arguments).stdin(Stdio::null()).stdout(stdout))
}

/// Runs a command to its end, with lines typed into it.
pub(crate) fn run_with_input(arguments: &[&str], input: &str) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let mut typed = tempfile::tempfile_in(folder.path()).unwrap();
    typed.write_all(input.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut typed).unwrap();
    ended(binary().current_dir(folder.path()).args(arguments).stdin(typed))
}

fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A process that runs until it is stopped. Killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    folder: PathBuf,
    printed_before: usize,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a process; its lines go to `FOLDER/NAME.out` and `FOLDER/NAME.err`.
    pub(crate) fn start(name: &str, folder: &Path, arguments: &[String]) -> Self {
        Self::start_with(name, folder, &[], arguments)
    }

    /// The same, with environment variables.
    pub(crate) fn start_with(
        name: &str,
        folder: &Path,
        variables: &[(&str, &str)],
        arguments: &[String],
    ) -> Self {
        let mut command = binary();
        command.envs(variables.iter().copied()).args(arguments);
        Self::spawn(name, folder, command)
    }

    /// The same, with a limit of open files.
    pub(crate) fn start_limited(
        name: &str,
        folder: &Path,
        files: u64,
        arguments: &[String],
    ) -> Self {
        let program = binary();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]);
        command.arg(program.get_program()).args(arguments);
        Self::spawn(name, folder, command)
    }

    fn spawn(name: &str, folder: &Path, mut command: Command) -> Self {
        let lines = |end: &str| {
            let path = folder.join(format!("{name}.{end}"));
            std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap()
        };
        let (out, err) = (lines("out"), lines("err"));
        let printed_before = usize::try_from(out.metadata().unwrap().len()).unwrap();
        command.current_dir(folder);
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
        Self { name: name.into(), child, folder: folder.to_owned(), printed_before, ended: None }
    }

    /// The same, from another binary and with another stderr.
    pub(crate) fn start_as(
        path: &Path,
        folder: &Path,
        err: impl Into<Stdio>,
        variables: &[(&str, &str)],
        arguments: &[String],
    ) -> Self {
        let name = "up".to_owned();
        let out = std::fs::File::create(folder.join("up.out")).unwrap();
        let mut command = program(path);
        command.current_dir(folder).envs(variables.iter().copied()).args(arguments);
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
        Self { name, child, folder: folder.to_owned(), printed_before: 0, ended: None }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The number of bytes that earlier processes of this name had written to stdout.
    pub(crate) fn printed_before(&self) -> usize {
        self.printed_before
    }

    /// Everything written to stdout so far, by all processes of this name.
    pub(crate) fn stdout(&self) -> String {
        self.read("out")
    }

    /// Everything written to stderr so far, by all processes of this name.
    pub(crate) fn stderr(&self) -> String {
        self.read("err")
    }

    fn read(&self, end: &str) -> String {
        let path = self.folder.join(format!("{}.{end}", self.name));
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        if self.ended.is_none() {
            // The process may have ended by itself just now.
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    /// Sends SIGTERM, or any other signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        signal_to(self.pid(), signal);
    }

    /// True when the process has ended, by itself or by a signal.
    pub(crate) fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended.is_some()
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        if self.ended.is_none() {
            let child = &mut self.child;
            let what = format!("{} ends", self.name);
            self.ended = Some(until(&what, || child.try_wait().unwrap()));
        }
        self.ended.and_then(|status| status.code())
    }

    /// Waits until the process has written a line that contains `words` to stderr, after the first
    /// `skip` bytes.
    pub(crate) fn says_after(&self, skip: usize, words: &str) {
        until(&format!("{} says {words:?}", self.name), || {
            self.stderr().get(skip..)?.contains(words).then_some(())
        });
    }

    /// Waits until the process has written a line that contains `words` to stderr.
    pub(crate) fn says(&self, words: &str) {
        self.says_after(0, words);
    }
}

/// Sends a signal to a process.
pub(crate) fn signal_to(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// True while a process of this id runs.
pub(crate) fn runs(pid: u32) -> bool {
    // A zombie counts as gone.
    !matches!(state(pid), None | Some(('Z' | 'X', _)))
}

/// True while a process is frozen.
pub(crate) fn is_frozen(pid: u32) -> bool {
    matches!(state(pid), Some(('T', _)))
}

/// The child processes of this one.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|child| state(*child).is_some_and(|(_, parent)| parent == pid)).collect()
}

/// A process' state, as one letter, and its parent.
fn state(pid: u32) -> Option<(char, u32)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = status.rsplit(')').next()?.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

impl Drop for Process {
    fn drop(&mut self) {
        let began = Instant::now();
        self.kill();
        assert!(began.elapsed() < SOON || std::thread::panicking(), "{} lingers", self.name);
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}{}", self.name, self.stdout(), self.stderr());
        }
    }
}
