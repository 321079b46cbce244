//! Machines for the pages: each has a root, a network and a `/run` of its own, and none outlives
//! the chore.
//!
//! The chore runs in namespaces of its own (mounts, network, processes). A machine's root is an
//! overlay over `/` whose upper layer is on a tmpfs, so every path of the pages works as it is
//! written. Its network is a namespace of its own. For pages with three hosts, three machines have
//! 10.0.0.1, 10.0.0.2 and 10.0.0.3 on a bridge. Everything is gone with the last process of the
//! chore.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::manual::process::Process;
use crate::manual::systemd;

/// The folder of a machine with the chore's own tools.
pub(crate) const TOOLS: &str = "/opt/manual";

/// The folder of a machine with a checkout whose program is built.
pub(crate) const CHECKOUT: &str = "/src";

/// The folder of all machines, on a tmpfs that only the chore sees.
const MACHINES: &str = "/mnt";

/// The longest time that a command of the pages may take.
const COMMAND_SECONDS_MAX: u64 = 90;

/// The longest wait for an expected result.
const WAIT_MAX: Duration = Duration::from_secs(40);

/// The interval between two looks for such a result.
const LOOK: Duration = Duration::from_millis(200);

const PATH: &str = "/opt/manual:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

static OUTPUTS: AtomicUsize = AtomicUsize::new(0);

/// What a command printed, on stdout and stderr, and its exit code.
#[derive(Clone, Debug)]
pub(crate) struct Printed {
    pub(crate) code: i32,
    pub(crate) text: String,
}

/// A machine.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    name: String,
    /// The root, seen from outside.
    tree: PathBuf,
    /// The folder in which commands are typed.
    folder: String,
}

/// Prepares, once, before the first machine: a tmpfs for all machines, and a `/run` for networks.
pub(crate) fn prepare(program: &Path) -> Result<()> {
    let program = program.display();
    shell(&format!(
        "mount --make-rprivate /
         mount -t tmpfs tmpfs /run
         mount -t tmpfs -o size=80% tmpfs {MACHINES}
         mkdir {MACHINES}/outputs
         cp {program} {MACHINES}/oppidum
         ip link set lo up"
    ))
}

/// Runs a script outside of all machines.
fn shell(script: &str) -> Result<()> {
    let output = Command::new("sh").args(["-e", "-c", script]).output().context("start sh")?;
    match output.status.success() {
        true => Ok(()),
        false => bail!("{script}\nfailed: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// One machine, alone in its network.
pub(crate) fn one(checkout: &Path, name: &str) -> Result<Host> {
    let host = Host::new(name);
    host.build(checkout)?;
    Ok(host)
}

/// Three machines on one network: 10.0.0.1, 10.0.0.2, 10.0.0.3.
pub(crate) fn three(checkout: &Path, name: &str) -> Result<[Host; 3]> {
    let hosts = [1, 2, 3].map(|place| Host::new(&format!("{name}{place}")));
    shell(&format!("ip link add {name} type bridge; ip link set {name} up"))?;
    for (host, place) in hosts.iter().zip(1..) {
        host.build(checkout)?;
        let (inside, cable) = (&host.name, format!("{name}-{place}"));
        shell(&format!(
            "ip link add {cable} type veth peer name eth0 netns {inside}
             ip link set {cable} master {name} up
             ip -n {inside} address add 10.0.0.{place}/24 dev eth0
             ip -n {inside} link set eth0 up"
        ))?;
    }
    Ok(hosts)
}

impl Host {
    fn new(name: &str) -> Self {
        let tree = Path::new(MACHINES).join(name).join("tree");
        Self { name: name.to_owned(), tree, folder: "/srv".to_owned() }
    }

    fn build(&self, checkout: &Path) -> Result<()> {
        let tree = self.tree.display();
        let base = self.tree.with_file_name("");
        let (base, name, checkout) = (base.display(), &self.name, checkout.display());
        let xtask = std::env::current_exe().context("find this program")?;
        shell(&format!(
            "mkdir -p {base}/upper {base}/scratch {tree}
             mount -t overlay overlay \\
                 -o lowerdir=/,upperdir={base}/upper,workdir={base}/scratch {tree}
             mount -t proc proc {tree}/proc
             mount --rbind /dev {tree}/dev
             for own in run tmp; do mount -t tmpfs tmpfs {tree}/$own; done
             ip netns add {name}
             ip -n {name} link set lo up
             rm -rf {tree}/etc/oppidum {tree}/var/lib/oppidum {tree}/usr/local/bin/oppidum
             rm -rf {tree}/etc/systemd/system/oppidum*
             mkdir -p {tree}{TOOLS} {tree}{CHECKOUT}/target/fast {tree}/srv
             cp -r {checkout}/deploy {checkout}/shops {tree}{CHECKOUT}
             for file in {tree}{CHECKOUT}/target/fast/oppidum {tree}{TOOLS}/xtask; do
                 touch $file
             done
             mount --bind {MACHINES}/oppidum {tree}{CHECKOUT}/target/fast/oppidum
             mount --bind {xtask} {tree}{TOOLS}/xtask
             if grep -q '^oppidum:' {tree}/etc/passwd; then chroot {tree} userdel oppidum; fi",
            xtask = xtask.display()
        ))?;
        // Without this, curl would add a progress meter to the answer, unlike on a terminal.
        fs::write(self.path("/.curlrc"), "silent\nshow-error\n").context("settle curl")?;
        for (name, script) in systemd::shims() {
            fs::write(self.path(&format!("{TOOLS}/{name}")), script).context("write a shim")?;
            shell(&format!("chmod 755 {tree}{TOOLS}/{name}"))?;
        }
        Ok(())
    }

    /// Puts the program where the pages expect it, without the procedure that installs it.
    pub(crate) fn with_program(self) -> Result<Self> {
        let program = self.path("/usr/local/bin/oppidum");
        let program = program.display();
        shell(&format!("touch {program}; mount --bind {MACHINES}/oppidum {program}"))?;
        Ok(self)
    }

    /// The same machine, with commands typed in another folder.
    pub(crate) fn at(&self, folder: &str) -> Self {
        Self { folder: folder.to_owned(), ..self.clone() }
    }

    /// A path of the machine, seen from outside.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.tree.join(inside.trim_start_matches('/'))
    }

    /// Mounts a small disk at this path.
    pub(crate) fn mount_disk(&self, inside: &str, megabytes: u32) -> Result<()> {
        let path = self.path(inside);
        let path = path.display();
        shell(&format!("mkdir -p {path}; mount -t tmpfs -o size={megabytes}m tmpfs {path}"))
    }

    /// Unplugs the network cable, or plugs it in.
    pub(crate) fn set_link(&self, state: &str) -> Result<()> {
        shell(&format!("ip -n {} link set eth0 {state}", self.name))
    }

    /// A command that runs on this machine; all its output goes to one file.
    fn command(&self, script: &str, limit: &str) -> Result<(Command, PathBuf)> {
        let number = OUTPUTS.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(MACHINES).join(format!("outputs/{number}"));
        let output = File::create(&path).context("make a file for an output")?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("chroot").arg(&self.tree);
        command.args(["env", "-i", "HOME=/", "LANG=C.UTF-8"]).arg(format!("PATH={PATH}"));
        let goes = format!("cd {} && exec {limit} sh -e -c \"$1\"", self.folder);
        command.args(["sh", "-c", &goes, "sh", script]);
        command.stdout(output.try_clone()?).stderr(output).process_group(0);
        Ok((command, path))
    }

    /// Types a script, and `stdin` after it, and waits for the end.
    pub(crate) fn type_in(&self, script: &str, stdin: &str) -> Result<Printed> {
        use std::io::Write as _;
        let limit = format!("timeout {COMMAND_SECONDS_MAX}");
        let (mut command, path) = self.command(script, &limit)?;
        let mut child = command.stdin(Stdio::piped()).spawn().context("start nsenter")?;
        if let Some(mut pipe) = child.stdin.take() {
            // A script may end without reading all its input.
            let _ = pipe.write_all(stdin.as_bytes());
        }
        let code = child.wait()?.code().unwrap_or(-1);
        let bytes = fs::read(&path).context("read an output")?;
        Ok(Printed { code, text: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// Runs a script that may fail.
    pub(crate) fn run(&self, script: &str) -> Result<Printed> {
        self.type_in(script, "")
    }

    /// Runs a script that must not fail.
    pub(crate) fn ok(&self, script: &str) -> Result<String> {
        let Printed { code, text } = self.run(script)?;
        match code {
            0 => Ok(text),
            _ => bail!("exit code {code} on {}:\n{script}\nwhich printed\n{text}", self.name),
        }
    }

    /// Starts a script that runs until it is stopped; `name` is its name on the pages.
    pub(crate) fn start(&self, name: &str, script: &str) -> Result<Process> {
        let (mut command, output) = self.command(script, "")?;
        let child = command.stdin(Stdio::null()).spawn().context("start nsenter")?;
        Ok(Process::new(name, child, output))
    }

    /// Runs a script again and again until its output is as it should be.
    pub(crate) fn until(
        &self,
        what: &str,
        script: &str,
        is_so: impl Fn(&Printed) -> bool,
    ) -> Result<String> {
        let mut last = String::new();
        eventually(|| {
            let printed = self.run(script)?;
            last.clone_from(&printed.text);
            Ok(is_so(&printed).then_some(printed.text))
        })
        .with_context(|| {
            let units = self.run("tail -n 4 /run/units/*.journal 2>&1 || true");
            let units = units.map(|printed| printed.text).unwrap_or_default();
            format!("{what}; `{script}` printed at last\n{last}\nunits: {units}")
        })
    }

    /// The process of this machine with these words in its command line.
    pub(crate) fn pid(&self, words: &str) -> Result<u32> {
        let network = fs::metadata(format!("/run/netns/{}", self.name))?;
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
                continue;
            };
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let same = |net: fs::Metadata| {
                use std::os::unix::fs::MetadataExt as _;
                net.ino() == network.ino() && net.dev() == network.dev()
            };
            let here = fs::metadata(path.join("ns/net")).is_ok_and(same);
            let is_program = line.split(' ').next().is_some_and(|word| word.ends_with("oppidum"));
            if here && is_program && line.contains(words) {
                return Ok(pid);
            }
        }
        bail!("no process on {} has `{words}` in its command line", self.name)
    }

    /// Ends every process of this machine.
    pub(crate) fn end_all(&self) {
        // A process may have ended meanwhile, which is no failure.
        let _ = shell(&format!("ip netns pids {} | xargs --no-run-if-empty kill -KILL", self.name));
    }

    /// Sends a signal to the process with these words in its command line.
    pub(crate) fn kill(&self, signal: &str, words: &str) -> Result<()> {
        shell(&format!("kill -{signal} {}", self.pid(words)?))
    }
}

/// Calls `look` until there is a result; fails after [`WAIT_MAX`].
pub(crate) fn eventually<T>(mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let limit = Instant::now() + WAIT_MAX;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if limit < Instant::now() {
            bail!("waited for {WAIT_MAX:?} in vain");
        }
        std::thread::sleep(LOOK);
    }
}
