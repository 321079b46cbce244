//! A progress bar with the remaining time, on stderr, if it is a terminal.

use std::time::{Duration, Instant};

use crate::output;

/// The width of the bar, in characters.
const WIDTH: usize = 24;

/// Shows progress. Silent where stderr is not a terminal.
#[derive(Debug)]
pub(super) struct ProgressLine {
    began: Instant,
    total: u64,
    shown: bool,
}

impl ProgressLine {
    /// Progress with none of `total` done.
    pub(super) fn of(total: u64) -> Self {
        Self { began: Instant::now(), total, shown: output::notes_to_a_terminal() }
    }

    /// Shows the number done, and the current item.
    pub(super) fn show(&self, what: &str, done: u64) {
        if self.shown {
            let line = line(what, done, self.total, self.began.elapsed());
            output::note_part(format_args!("\r\x1b[K{line}"));
        }
    }
}

/// Clears the line for the next output.
impl Drop for ProgressLine {
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
    // The rest is assumed to take the same time in proportion.
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
