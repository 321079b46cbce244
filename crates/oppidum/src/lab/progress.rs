//! A bar with the time that is left, on stderr, for as long as somebody looks on.

use std::time::{Duration, Instant};

use crate::output;

/// How wide the bar is, in characters.
const WIDTH: usize = 24;

/// Shows how far something is. Silent where stderr is not a terminal.
#[derive(Debug)]
pub(super) struct Progress {
    began: Instant,
    total: u64,
    shown: bool,
}

impl Progress {
    /// Nothing of `total` is done.
    pub(super) fn of(total: u64) -> Self {
        Self { began: Instant::now(), total, shown: output::notes_to_a_terminal() }
    }

    /// So much is done, and this is under way.
    pub(super) fn show(&self, what: &str, done: u64) {
        if self.shown {
            let line = line(what, done, self.total, self.began.elapsed());
            output::note_part(format_args!("\r\x1b[K{line}"));
        }
    }
}

/// Clears the line for what is said next.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            output::note_part(format_args!("\r\x1b[K"));
        }
    }
}

fn line(what: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let done = done.min(total);
    let permille = usize::try_from(done * 1_000 / total.max(1)).unwrap_or(0);
    let full = WIDTH * permille / 1_000;
    let bar = format!("{}{}", "#".repeat(full), "-".repeat(WIDTH - full));
    // What is left takes as long as what is done did, in proportion.
    let left = match done {
        0 => "…".to_owned(),
        done => {
            let left = u128::from(total - done) * elapsed.as_millis() / u128::from(done);
            format!("{} s left", left.div_ceil(1_000))
        }
    };
    format!("[{bar}] {:>3} %  {left}  {what}", permille / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_done_and_three_quarters_of_the_time_are_left() {
        let shown = line("cache on, p 0.2", 25, 100, Duration::from_secs(4));
        assert_eq!(shown, "[######------------------]  25 %  12 s left  cache on, p 0.2");
        let begun = line("opening", 0, 100, Duration::from_secs(1));
        assert!(begun.contains("  0 %  …"), "{begun}");
        let over = line("done", 120, 100, Duration::from_secs(1));
        assert!(over.contains("100 %  0 s left"), "{over}");
        assert!(!over.contains('-'), "{over}");
    }
}
