//! A progress bar with the remaining time, on stderr, if it is a terminal.

use std::fmt::Write;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// Shows progress. Silent where stderr is not a terminal; the line is cleared at the end.
#[derive(Debug)]
pub(super) struct ProgressLine(ProgressBar);

impl ProgressLine {
    /// Progress with none of `total` done.
    pub(super) fn of(total: u64) -> Self {
        let style = ProgressStyle::with_template("[{bar:24}] {percent:>3} %  {left}  {msg}");
        let style = style.expect("the template is sound").progress_chars("#-");
        Self(ProgressBar::new(total).with_style(style.with_key("left", left)))
    }

    /// Shows the number done, and the current item.
    pub(super) fn show(&self, what: &str, done: u64) {
        self.0.set_position(done);
        self.0.set_message(what.to_owned());
    }
}

/// The remaining time. The rest is assumed to take the same time in proportion: the crate's own
/// estimate follows the last seconds, in which a store may have been opened.
fn left(state: &ProgressState, out: &mut dyn Write) {
    let rest = state.len().unwrap_or(0).saturating_sub(state.pos());
    let left = (u128::from(rest) * state.elapsed().as_millis()).checked_div(state.pos().into());
    // The crate ignores the result, too.
    let _ = match left {
        None => write!(out, "…"),
        Some(left) => write!(out, "{} s left", left.div_ceil(1_000)),
    };
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_quarter_is_done_and_three_quarters_of_the_time_are_left() {
        for (done, expected) in [(25, "12 s left"), (0, "…"), (100, "0 s left"), (120, "0 s left")]
        {
            let bar = ProgressBar::hidden().with_elapsed(Duration::from_millis(3_800));
            bar.set_length(100);
            bar.set_position(done);
            let mut out = String::new();
            bar.update(|state| left(state, &mut out));
            assert_eq!(out, expected, "{done}");
        }
    }
}
