//! Line queue: writes lines to stderr or stdout without ever blocking the caller.
//!
//! A line goes into a bounded buffer, and one thread writes it. Lines are lost, and the process
//! continues, when the reader is gone or the disk is full, and when the buffer is full because a
//! reader does not read (a full pipe, a stopped terminal). The number of lost lines is written as
//! soon as a line can be written again.
//!
//! A queue and its thread last as long as the process.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The most bytes that wait to be written: about one second of a busy access log.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// The most bytes of one write, unless a single line is longer. The system does not interleave a
/// write of at most this size with writes of other processes on the same pipe (`PIPE_BUF`).
const PIECE_BYTES_MAX: usize = 4_096;

/// A queue of lines for one writer. Clones share the queue.
#[derive(Clone, Debug)]
pub struct LineQueue {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The line about lost lines is a JSON object, like the others.
    json: AtomicBool,
    state: Mutex<State>,
    /// Notified when a line is pushed and when the thread has written the lines that it took.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    lost: u64,
    writing: bool,
}

impl LineQueue {
    /// Starts a queue and its thread, which writes to `to`.
    pub fn start(to: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        // If the thread cannot be spawned, the queue fills up and counts lines as lost.
        let _ = std::thread::Builder::new().name("lines".into()).spawn(move || write(&own, to));
        Self { shared }
    }

    /// Writes the line about lost lines as a JSON object from now on.
    pub fn use_json(&self) {
        self.shared.json.store(true, Ordering::Relaxed);
    }

    /// Queues a line, or counts it as lost when the buffer is full.
    pub fn push(&self, line: &str) {
        let mut state = self.shared.state.lock();
        if WAITING_BYTES_MAX < state.waiting.len() + line.len() + 1 {
            state.lost += 1;
            return;
        }
        state.waiting.extend_from_slice(line.as_bytes());
        state.waiting.push(b'\n');
        if !state.writing {
            self.shared.changed.notify_all();
        }
    }

    /// Waits until every queued line is written or lost. False: that takes longer than `within`.
    pub fn flush(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        let mut state = self.shared.state.lock();
        while state.writing || !state.waiting.is_empty() {
            if self.shared.changed.wait_until(&mut state, until).timed_out() {
                return false;
            }
        }
        true
    }
}

/// The queue to stderr, started at its first use.
pub fn stderr() -> &'static LineQueue {
    static QUEUE: OnceLock<LineQueue> = OnceLock::new();
    QUEUE.get_or_init(|| LineQueue::start(io::stderr()))
}

/// The queue to stdout, started at its first use.
pub fn stdout() -> &'static LineQueue {
    static QUEUE: OnceLock<LineQueue> = OnceLock::new();
    QUEUE.get_or_init(|| LineQueue::start(io::stdout()))
}

fn write(shared: &Shared, mut to: impl Write) {
    let mut taken = Vec::new();
    let mut lost = 0;
    loop {
        {
            let mut state = shared.state.lock();
            state.writing = false;
            shared.changed.notify_all();
            while state.waiting.is_empty() {
                shared.changed.wait(&mut state);
            }
            std::mem::swap(&mut state.waiting, &mut taken);
            state.writing = true;
            lost += std::mem::take(&mut state.lost);
        }
        for piece in pieces(&taken) {
            let written = to.write_all(piece).and_then(|()| to.flush());
            if written.is_err() {
                lost += lines(piece);
            } else if 0 < lost && writeln!(to, "{}", lost_line(shared, lost)).is_ok() {
                lost = 0;
            }
        }
        taken.clear();
    }
}

fn lost_line(shared: &Shared, lost: u64) -> String {
    let text = format!("{lost} lines could not be written");
    if shared.json.load(Ordering::Relaxed) {
        serde_json::json!({ "level": "warn", "message": text }).to_string()
    } else {
        text
    }
}

/// Splits queued bytes into pieces of whole lines, each of at most [`PIECE_BYTES_MAX`] bytes.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let most = rest.len().min(PIECE_BYTES_MAX);
        let last = rest[..most].iter().rposition(|byte| *byte == b'\n');
        // A line longer than the limit is a piece of its own.
        let last = last.or_else(|| rest.iter().position(|byte| *byte == b'\n'));
        let (piece, after) = rest.split_at(last.map_or(rest.len(), |last| last + 1));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

fn lines(bytes: &[u8]) -> u64 {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    u64::try_from(lines.count()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// A writer under the test's control: each write waits for the next word, and fails with it if
    /// the word is an `Err`.
    struct Reader {
        words: Receiver<io::Result<()>>,
        written: Arc<Mutex<String>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Without a sender of words, every write succeeds.
            self.words.recv().unwrap_or(Ok(()))?;
            self.written.lock().push_str(std::str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn queue() -> (LineQueue, SyncSender<io::Result<()>>, Arc<Mutex<String>>) {
        let (sender, words) = sync_channel(16);
        let written = Arc::<Mutex<String>>::default();
        (LineQueue::start(Reader { words, written: written.clone() }), sender, written)
    }

    #[test]
    fn lines_are_written_in_their_order() {
        let (queue, words, written) = queue();
        drop(words);
        for line in ["one", "two", "three"] {
            queue.push(line);
        }
        assert!(queue.flush(LONG));
        assert_eq!(*written.lock(), "one\ntwo\nthree\n");
    }

    /// Guards against a reader that does not read: it may cost lines but no time.
    #[test]
    fn a_reader_that_does_not_read_loses_lines_and_blocks_no_push() {
        let (queue, words, written) = queue();
        let line = "x".repeat(1_023);
        queue.push(&line);
        let mut pushed = 1_u64;
        while queue.shared.state.lock().lost < 10 {
            queue.push(&line);
            pushed += 1;
        }
        assert!(!queue.flush(Duration::ZERO), "the reader has read nothing");
        drop(words);
        assert!(queue.flush(LONG));
        queue.push("again");
        assert!(queue.flush(LONG));
        let text = written.lock().clone();
        let kept = lines(text.as_bytes());
        assert!(text.contains("10 lines could not be written\n"), "{kept}");
        assert!(text.ends_with("again\n"));
        assert_eq!(kept, pushed - 10 + 2);
    }

    /// Guards against a reader that is gone and against a full disk.
    #[test]
    fn lost_lines_are_counted_and_the_count_is_written_later() {
        let (queue, words, written) = queue();
        for (line, word) in [("one", Ok(())), ("two", Err(io::ErrorKind::StorageFull))] {
            words.send(word.map_err(io::Error::from)).unwrap();
            queue.push(line);
            assert!(queue.flush(LONG));
        }
        drop(words);
        queue.push("three");
        assert!(queue.flush(LONG));
        assert_eq!(*written.lock(), "one\nthree\n1 lines could not be written\n");
        queue.use_json();
        let line = lost_line(&queue.shared, 2);
        assert_eq!(line, r#"{"level":"warn","message":"2 lines could not be written"}"#);
    }

    #[test]
    fn a_piece_has_whole_lines_and_fits_into_one_write() {
        let line = |length: usize| "y".repeat(length - 1) + "\n";
        let text = [line(3_000), line(1_000), line(500), line(9_000), line(1)].concat();
        let lengths: Vec<_> = pieces(text.as_bytes()).map(<[u8]>::len).collect();
        assert_eq!(lengths, [4_000, 500, 9_000, 1]);
        assert_eq!(pieces(b"").count(), 0);
    }
}
