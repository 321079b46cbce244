//! The order counter: one line that is redrawn at a terminal, else one line per second.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::load::workload::LoadProgress;
use crate::output::{self, ms};

/// How often the line is redrawn.
const TICK: Duration = Duration::from_millis(100);

/// Shows the count for the duration `span`.
pub(super) async fn count(tally: &LoadProgress, span: Duration) {
    let live = output::answers_a_terminal();
    let began = Instant::now();
    let mut told = Instant::now();
    let mut longest = Duration::ZERO;
    loop {
        tokio::time::sleep(TICK.min(span.saturating_sub(began.elapsed()))).await;
        longest = longest.max(tally.longest());
        let ended = span <= began.elapsed();
        let line = line(tally, longest);
        if live {
            let end = if ended { "\n" } else { "" };
            output::answer_part(format_args!("\r\x1b[K{line}{end}"));
        } else if ended || Duration::from_secs(1) <= told.elapsed() {
            answer!("{line}");
            told = Instant::now();
            longest = Duration::ZERO;
        }
        if ended {
            return;
        }
    }
}

fn line(tally: &LoadProgress, longest: Duration) -> String {
    let orders = tally.orders.load(Ordering::Relaxed);
    let failed = match tally.failed.load(Ordering::Relaxed) {
        0 => String::new(),
        failed => format!(", {failed} FAILED"),
    };
    format!("  {:>7} orders, the longest wait {}{failed}", grouped(orders), ms(longest))
}

/// A number with separators between the thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place != 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated_by_commas() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
