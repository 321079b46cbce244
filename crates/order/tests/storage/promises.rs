//! The log's promises: every promised record is on disk before its promise.
//!
//! A separate process uses the real log under a small library that records, in one sequence, each
//! write and each sync of the log's files, and each promise of the log: a saved vote, an
//! acknowledged append, an opened log. Syncs are slow there, so that a promise made too early
//! precedes its sync. Two such processes share a folder: the first is killed with entries that it
//! has written and not synced.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use openraft::storage::RaftLogStorage;
use order::raft::log_store::LogStore;
use order::raft::types::Vote;

use crate::kit::{append, buy_each, entry};

/// Set in the recorded process: the folder, and the role of the process.
const FOLDER: &str = "OPPIDUM_RECORDED_FOLDER";
const PART: &str = "OPPIDUM_RECORDED_PART";

/// The recorder. Into the file that `RECORD` names it writes `write FILE COUNT` when a write
/// begins, `sync FILE` when a sync has ended, and the content of each write to a file named
/// `promises`. While the file of that name with `.stall` exists, no sync ends.
const RECORDER: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static const char *name_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) return 0;
    path[length] = 0;
    size_t end = strlen(path);
    if (end >= 8 && !strcmp(path + end - 8, "promises")) return "promises";
    if (end < 4 || strcmp(path + end - 4, ".wal")) return 0;
    return strrchr(path, '/') + 1;
}
static void put(const char *line, size_t length) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    const char *record = getenv("RECORD");
    if (!record) return;
    pthread_mutex_lock(&turn);
    int file = open(record, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file >= 0 && real(file, line, length) < 0) abort();
    close(file);
    pthread_mutex_unlock(&turn);
}
static void wrote(int fd, size_t count, const void *bytes) {
    char path[512], line[700];
    const char *name = name_of(fd, path, sizeof path);
    if (!name) return;
    if (!strcmp(name, "promises")) { if (bytes) put(bytes, count); return; }
    put(line, snprintf(line, sizeof line, "write %s %zu\n", name, count));
}
static void synced(int fd) {
    char path[512], line[700];
    const char *name = name_of(fd, path, sizeof path);
    if (!name || !strcmp(name, "promises")) return;
    put(line, snprintf(line, sizeof line, "sync %s\n", name));
}
static int slowly(int fd) {
    char path[512], stall[600];
    if (!name_of(fd, path, sizeof path)) return 0;
    usleep(30000);
    snprintf(stall, sizeof stall, "%s.stall", getenv("RECORD") ? getenv("RECORD") : "");
    while (!access(stall, F_OK)) usleep(1000);
    return 0;
}
ssize_t write(int fd, const void *bytes, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    wrote(fd, count, bytes);
    return real(fd, bytes, count);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    static ssize_t (*real)(int, const struct iovec *, int);
    if (!real) real = dlsym(RTLD_NEXT, "writev");
    size_t all = 0;
    for (int part = 0; part < count; part++) all += parts[part].iov_len;
    wrote(fd, all, 0);
    return real(fd, parts, count);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    wrote(fd, count, 0);
    return real(fd, bytes, count, at);
}
int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    slowly(fd);
    int done = real(fd);
    if (!done) synced(fd);
    return done;
}
int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    slowly(fd);
    int done = real(fd);
    if (!done) synced(fd);
    return done;
}
"#;

/// One recorded event.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    /// A process starts.
    Start,
    Write(String, u64),
    Sync(String),
    /// A promise, and the least number of bytes that it covers.
    Promise(String, u64),
}

fn event(line: &str) -> Event {
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["start"] => Event::Start,
        ["write", file, bytes] => Event::Write((*file).into(), bytes.parse().unwrap()),
        ["sync", file] => Event::Sync((*file).into()),
        ["promise", what, bytes] => Event::Promise((*what).into(), bytes.parse().unwrap()),
        _ => panic!("recorded: {line}"),
    }
}

/// The promises that were made before their bytes were on disk.
fn broken(events: &[Event]) -> Vec<String> {
    let mut unsynced: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut synced, mut broken) = (0, Vec::new());
    // The files that an earlier process has written and not synced.
    let mut left: Vec<&str> = Vec::new();
    for event in events {
        match event {
            Event::Start => left = unsynced.keys().copied().collect(),
            Event::Promise(what, _) if what == "open" => {
                if !left.is_empty() {
                    broken.push(format!("open: {left:?} are counted on and not synced"));
                }
            }
            Event::Write(file, bytes) => *unsynced.entry(file).or_default() += bytes,
            Event::Sync(file) => {
                left.retain(|left| left != file);
                synced += unsynced.remove(file.as_str()).unwrap_or(0);
            }
            Event::Promise(what, bytes) => {
                if synced < *bytes || !unsynced.is_empty() {
                    broken.push(format!("{what}: {synced} bytes of {bytes}, {unsynced:?} open"));
                }
                synced = 0;
            }
        }
    }
    broken
}

#[test]
fn the_checker_finds_a_promise_before_its_sync() {
    let lines = |text: &str| text.lines().map(event).collect::<Vec<_>>();
    assert!(broken(&lines("write a 9\nsync a\npromise vote 5")).is_empty());
    assert!(broken(&lines("write a 9\nstart\nsync a\nwrite b 1\npromise open 0")).is_empty());
    for early in [
        "write a 9\npromise vote 5\nsync a",
        "promise vote 5\nwrite a 9\nsync a",
        "write a 9\nsync a\nwrite b 9\npromise append 5",
        "write a 4\nsync a\npromise append 5",
        "write a 9\nstart\nwrite b 1\npromise open 0",
    ] {
        assert_eq!(broken(&lines(early)).len(), 1, "{early}");
    }
}

/// Builds the recorder. `None`, with a message, if the machine has no compiler.
fn recorder(folder: &Path) -> Option<std::path::PathBuf> {
    let (source, library) = (folder.join("recorder.c"), folder.join("recorder.so"));
    fs::write(&source, RECORDER).unwrap();
    let mut compiling = Command::new("cc");
    compiling.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source);
    match compiling.args(["-ldl", "-lpthread"]).output() {
        Ok(done) if done.status.success() => Some(library),
        other => {
            eprintln!("SKIPPED, and shown by no other test: cc does not compile: {other:?}");
            None
        }
    }
}

/// Writes promises to the recorder.
struct Promises(fs::File);

impl Promises {
    fn of(folder: &Path) -> Self {
        let file = fs::File::options().create(true).append(true).open(folder.join("promises"));
        Self(file.unwrap())
    }

    fn make(&mut self, what: &str, bytes: u64) {
        self.0.write_all(format!("promise {what} {bytes}\n").as_bytes()).unwrap();
    }
}

/// An entry with this many orders.
fn orders(index: u64, count: u64) -> order::raft::types::Entry {
    entry(index, buy_each((0..count).map(move |order| format!("key-{index}-{order}"))))
}

/// The recorded process.
async fn play(folder: &Path, part: &str) {
    let mut promises = Promises::of(folder);
    promises.0.write_all(b"start\n").unwrap();
    if part == "first" {
        let mut log = LogStore::open(&folder.join("log"), None).unwrap();
        let mut index = 0;
        for term in 1..4 {
            log.save_vote(&Vote::new(term, 1)).await.unwrap();
            promises.make("vote", 1);
            for count in [1, 5, 2] {
                let entries = (index..index + count).map(|index| orders(index, 20)).collect();
                append(&mut log, entries).await;
                promises.make("append", count * 200);
                index += count;
            }
        }
        // The entry is written and not synced; then the process is killed.
        let record = folder.join("record");
        fs::write(folder.join("record.stall"), "").unwrap();
        let before = fs::read_to_string(&record).unwrap().len();
        log.append([orders(index, 20)], openraft::storage::IOFlushed::noop()).await.unwrap();
        let is_written = || fs::read_to_string(&record).unwrap()[before..].contains("write ");
        while !is_written() {
            tokio::task::yield_now().await;
        }
        std::process::abort();
    }
    let mut log = LogStore::open(&folder.join("log"), None).unwrap();
    promises.make("open", 0);
    log.save_vote(&Vote::new(9, 1)).await.unwrap();
    promises.make("vote", 1);
}

#[test]
fn every_promise_of_the_log_follows_its_sync() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let (Ok(folder), Ok(part)) = (std::env::var(FOLDER), std::env::var(PART)) {
        return runtime.block_on(play(Path::new(&folder), &part));
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = recorder(folder.path()) else { return };
    let record = folder.path().join("record");
    for part in ["first", "second"] {
        let mut playing = Command::new(std::env::current_exe().unwrap());
        playing.args(["--exact", "promises::every_promise_of_the_log_follows_its_sync"]);
        playing.env("LD_PRELOAD", &library).env("RECORD", &record);
        playing.env(FOLDER, folder.path()).env(PART, part);
        let played = playing.output().unwrap();
        drop(fs::remove_file(folder.path().join("record.stall")));
        assert_eq!(played.status.success(), part == "second", "{played:?}");
    }
    let record = fs::read_to_string(record).unwrap();
    let events: Vec<Event> = record.lines().map(event).collect();
    let promises = events.iter().filter(|event| matches!(event, Event::Promise(..))).count();
    assert_eq!(promises, 3 + 9 + 2, "{record}");
    let left = events.split(|event| *event == Event::Start).nth(1).unwrap();
    let last = left.iter().rposition(|event| matches!(event, Event::Promise(..))).unwrap();
    assert!(left[last..].iter().any(|event| matches!(event, Event::Write(..))), "{record}");
    assert!(!left[last..].iter().any(|event| matches!(event, Event::Sync(..))), "{record}");
    assert_eq!(broken(&events), Vec::<String>::new(), "{record}");
}
