//! Sampled stacks, as `perf script` prints them, and the shares of their samples.

use std::collections::BTreeMap;

/// Equal stacks, with the number of samples of each. Frames are ordered from the root to the leaf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stacks {
    pub(super) counts: BTreeMap<Vec<String>, u64>,
}

impl Stacks {
    /// Parses the output of `perf script -F comm,ip,sym`: a line for the thread, its frames from
    /// the leaf on, each with an address and a name, and an empty line.
    pub(super) fn parse(script: &str) -> Self {
        let mut stacks = Self::default();
        let mut frames: Vec<String> = Vec::new();
        let mut thread = None;
        for line in script.lines().chain([""]) {
            if line.trim().is_empty() {
                if let Some(thread) = thread.take() {
                    frames.push(thread);
                    frames.reverse();
                    *stacks.counts.entry(std::mem::take(&mut frames)).or_default() += 1;
                }
            } else if line.starts_with(char::is_whitespace) {
                let name = line.trim_start().split_once(' ').map_or("", |(_, name)| name.trim());
                frames.push(tidy(name));
            } else {
                thread = Some(line.trim().to_owned());
            }
        }
        stacks
    }

    pub(super) fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The shares of the samples, the greatest first: by system call in the kernel, by crate
    /// elsewhere.
    pub(super) fn shares(&self) -> Vec<(String, u64)> {
        let mut shares: BTreeMap<String, u64> = BTreeMap::new();
        for (frames, count) in &self.counts {
            *shares.entry(place(frames)).or_default() += count;
        }
        let mut shares: Vec<_> = shares.into_iter().collect();
        shares.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        shares
    }
}

/// A function's name without the compiler's additions: hashes, and marks of its own encoding.
fn tidy(name: &str) -> String {
    let name = name.split("+0x").next().unwrap_or(name);
    let mut name = match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            path.to_owned()
        }
        _ => name.to_owned(),
    };
    for (mark, text) in [("{{closure}}", "{closure}"), ("..", "::"), ("$LT$", "<"), ("$GT$", ">")] {
        name = name.replace(mark, text);
    }
    if name.is_empty() { "[unknown]".into() } else { name }
}

/// How the kernel is entered, which does not tell which call was made.
const DOORS: [&str; 4] =
    ["entry_SYSCALL_64_after_hwframe", "do_syscall_64", "x64_sys_call", "invoke_syscall"];

/// The prefixes of system calls in the kernel.
const PREFIXES: [&str; 6] = ["__x64_sys_", "__arm64_sys_", "__se_sys_", "ksys_", "__sys_", "do_"];

/// The kernel's call, the crate or the library that a sample is attributed to.
fn place(frames: &[String]) -> String {
    let is_door = |frame: &String| DOORS.contains(&frame.as_str());
    if let Some(door) = frames.iter().rposition(is_door) {
        let call = frames.get(door + 1).map_or("", String::as_str);
        if call.is_empty() || call.starts_with("exit_to_user") || call.starts_with("syscall_") {
            return "kernel: on the way in or out".into();
        }
        let strip = |name: &'static str| call.strip_prefix(name);
        return format!("kernel: {}", PREFIXES.into_iter().find_map(strip).unwrap_or(call));
    }
    if frames.iter().any(|frame| frame.starts_with("asm_") || frame.ends_with("_interrupt")) {
        return "kernel: interrupts".into();
    }
    for frame in frames.iter().rev() {
        if let Some(name) = library(frame) {
            return name.into();
        }
        if let Some(name) = origin(frame) {
            return name;
        }
    }
    "not known".into()
}

/// The functions of the C library that every crate uses.
fn library(frame: &str) -> Option<&'static str> {
    const ALLOCATOR: [&str; 9] = [
        "malloc",
        "cfree",
        "free",
        "realloc",
        "calloc",
        "_int_malloc",
        "_int_free",
        "unlink_chunk",
        "malloc_consolidate",
    ];
    if ALLOCATOR.iter().any(|name| frame == *name || frame.starts_with(&format!("{name}."))) {
        return Some("allocator");
    }
    let copies = ["memcpy", "memmove", "memset", "memcmp", "bcmp"];
    if copies.iter().any(|name| frame.contains(name)) {
        return Some("copying and comparing bytes");
    }
    (frame.contains("clock_gettime") || frame.contains("vdso")).then_some("asking for the time")
}

/// The crate of a function. `None`: Rust's own library, which works for its caller.
fn origin(frame: &str) -> Option<String> {
    const OWN: [&str; 4] = ["core", "alloc", "std", "__rust"];
    let words = frame.split(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
    // `<hyper::proto::Conn as core::future::Future>::poll` is hyper's; a bare word is no path.
    let path = frame.contains("::");
    let mut crates =
        words.filter(|word| !word.is_empty() && !["as", "mut", "dyn", "impl"].contains(word));
    let first = crates.next().filter(|_| path)?;
    (!OWN.contains(&first)).then(|| first.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
tokio-rt-worker 
\tffffffff81 tcp_sendmsg
\tffffffff82 __x64_sys_sendto
\tffffffff83 do_syscall_64
\tffffffff84 entry_SYSCALL_64_after_hwframe
\t    7f0001 __send
\t    550001 <tokio::net::TcpStream as tokio::io::AsyncWrite>::poll_write::h0123456789abcdef

tokio-rt-worker 
\t    7f0002 _int_malloc
\t    550002 alloc::vec::Vec<T>::reserve
\t    550003 serde_json::to_vec

tokio-rt-worker 
\t    550002 core::ptr::drop_in_place<ledger::Outcome>
\t    550004 order::batcher::Batcher::take+0x10

tokio-rt-worker 
\tffffffff85 __schedule
\tffffffff86 exit_to_user_mode_loop
\tffffffff83 do_syscall_64
\t    550001 mio::poll

tokio-rt-worker 
\tffffffff81 tcp_sendmsg
\tffffffff87 do_writev
\tffffffff83 do_syscall_64
\t    550001 mio::poll

";

    #[test]
    fn a_stack_reads_from_the_thread_to_the_leaf() {
        let stacks = Stacks::parse(SCRIPT);
        assert_eq!(stacks.total(), 5);
        let all: Vec<_> = stacks.counts.keys().map(|frames| frames.join(";")).collect();
        let first = "tokio-rt-worker;<tokio::net::TcpStream as tokio::io::AsyncWrite>::poll_write;\
                     __send;entry_SYSCALL_64_after_hwframe;do_syscall_64;__x64_sys_sendto;\
                     tcp_sendmsg";
        assert!(all.iter().any(|stack| stack == first), "{all:?}");
    }

    #[test]
    fn every_sample_is_attributed() {
        let shares = Stacks::parse(SCRIPT).shares();
        let names: Vec<_> = shares.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        let expected = [
            ("allocator", 1),
            ("kernel: on the way in or out", 1),
            ("kernel: sendto", 1),
            ("kernel: writev", 1),
            ("order", 1),
        ];
        assert_eq!(names, expected);
    }
}
