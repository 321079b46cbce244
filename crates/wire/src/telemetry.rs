//! Telemetry: writes the log of a process to stderr, as lines for people.
//!
//! A line is the time of day (UTC), the level if it is not `info`, a sentence and its fields. Lines
//! never block the caller: they go through a bounded queue to one writing thread, and the queue
//! counts lost lines and reports their number later. Lines with the target [`ACCESS`] are written
//! unchanged, because they have a format of their own.

use std::fmt::Write as _;
#[cfg(not(feature = "simulated"))]
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Registry};

use crate::lines::{self, LineQueue};

/// The target of access log lines.
pub const ACCESS: &str = "access";

/// Fault injection for tests: the number of milliseconds by which the wall clock is ahead.
#[cfg(not(feature = "simulated"))]
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

/// The levels of the libraries underneath, unless the filter names others.
const QUIET: &str = "openraft=off,raft_log=warn,chunked_wal=warn,h2=warn,hyper=warn,tonic=warn";

/// Why a filter is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected error, warn, info, debug, trace, off, or directives such as info,order=debug: {0}"
)]
pub struct FilterError(String);

/// Starts to write lines to stderr. `filter` holds directives of `tracing`, such as `info` or
/// `info,order=debug`. Call it once, at the start of the process.
///
/// # Errors
///
/// When [`check_filter`] rejects the filter.
pub fn start(filter: &str) -> Result<(), FilterError> {
    check_filter(filter)?;
    let filter = EnvFilter::builder()
        .parse(format!("{QUIET},{filter}"))
        .map_err(|error| FilterError(error.to_string()))?;
    let layer = LineFormat { lines: lines::stderr().clone() };
    let subscriber = Registry::default().with(filter).with(layer);
    // In tests one program runs the telemetry of several processes; the first subscriber stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// Rejects filters that `tracing` accepts by mistake. It takes a misspelt level for the name of a
/// module, and the process would log nothing.
///
/// # Errors
///
/// When a directive has no known level.
pub fn check_filter(filter: &str) -> Result<(), FilterError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |text: &str| LEVELS.contains(&text.to_ascii_lowercase().as_str());
    for directive in filter.split(',').map(str::trim) {
        let (known, level) = match directive.rsplit_once('=') {
            Some((target, level)) => (!target.is_empty(), level),
            None => (true, directive),
        };
        if !known || !is_level(level) {
            return Err(FilterError(format!("{directive:?} is none of these")));
        }
    }
    Ok(())
}

/// Formats `tracing` events as lines.
struct LineFormat {
    lines: LineQueue,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LineFormat {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = String::with_capacity(128);
        if event.metadata().target() != ACCESS {
            let _ = write!(line, "{} ", time_of_day(since_epoch()));
            match *event.metadata().level() {
                Level::ERROR => line.push_str("ERROR "),
                Level::WARN => line.push_str("WARNING "),
                Level::DEBUG => line.push_str("debug "),
                Level::TRACE => line.push_str("trace "),
                Level::INFO => {}
            }
        }
        let begins = line.len();
        event.record(&mut MessageText(&mut line));
        if let Some(shown) = without_controls(&line, begins) {
            line = shown;
        }
        self.lines.push(&line);
    }
}

/// Escapes the control characters of a line; None: it has none. Untrusted text is escaped where it
/// is logged; this covers texts of libraries and of the system.
fn without_controls(line: &str, begins: usize) -> Option<String> {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~');
    if line.as_bytes().iter().skip(begins).all(is_plain) || !line.contains(char::is_control) {
        return None;
    }
    let mut shown = String::with_capacity(line.len() + 16);
    for letter in line.chars() {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    Some(shown)
}

/// Writes the message of an event, then its fields as `name=value`.
struct MessageText<'a>(&'a mut String);

impl Visit for MessageText<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

/// The time since the Unix epoch, by the wall clock. It may jump.
pub fn since_epoch() -> Duration {
    #[cfg(feature = "simulated")]
    return crate::simulated::wall();
    #[cfg(not(feature = "simulated"))]
    real_wall()
}

#[cfg(not(feature = "simulated"))]
fn real_wall() -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let ahead = AHEAD_MS.load(Ordering::Relaxed);
    let by = Duration::from_millis(ahead.unsigned_abs());
    if ahead < 0 { now.saturating_sub(by) } else { now.saturating_add(by) }
}

/// Fault injection for tests: sets the wall clock of this process ahead by `millis`.
#[cfg(not(feature = "simulated"))]
pub fn set_clock_ahead(millis: i64) {
    AHEAD_MS.store(millis, Ordering::Relaxed);
}

/// Does nothing in the simulator, whose machines have clocks of their own.
#[cfg(feature = "simulated")]
pub fn set_clock_ahead(_millis: i64) {}

/// The time of day in UTC: `22:21:55.123`.
pub fn time_of_day(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs() % 86_400;
    let hours = seconds / 3_600;
    let minutes = seconds / 60 % 60;
    format!("{hours:02}:{minutes:02}:{:02}.{:03}", seconds % 60, since_epoch.subsec_millis())
}

/// The time in UTC in the format of access logs: `26/Apr/2024 22:21:55`.
pub fn access_time(since_epoch: Duration) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day) = civil(since_epoch.as_secs() / 86_400);
    let name = MONTHS.get(month - 1).copied().unwrap_or("???");
    let time = time_of_day(since_epoch);
    let time = time.split('.').next().unwrap_or_default();
    format!("{day:02}/{name}/{year} {time}")
}

/// The year, month and day of a number of days since the epoch. After H. Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms": years begin in March, so the leap day comes last.
fn civil(days: u64) -> (u64, usize, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let leaps = day_of_era / 1_460 + day_of_era / 146_096;
    let year_of_era = (day_of_era + day_of_era / 36_524 - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, usize::try_from(month).unwrap_or(1), day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line break forges a line, and a terminal executes the text after an escape character.
    #[test]
    fn no_line_holds_a_control_character() {
        assert_eq!(without_controls("12:00 a plain line", 6), None);
        assert_eq!(without_controls("12:00 a café…", 6), None);
        let forged = without_controls("12:00 a\nb\u{1b}[2J\u{9b}1m", 6);
        assert_eq!(forged.as_deref(), Some("12:00 a\\nb\\u{1b}[2J\\u{9b}1m"));
    }

    /// Guards against a setting that is accepted and has no effect.
    #[test]
    fn a_misspelt_level_is_rejected() {
        for filter in ["info", "WARN", "info,order=debug", "warn, order::takeover=info", "off"] {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["inof", "", "info,", "info,order=loud", "=info", "order", "3"] {
            let error = check_filter(filter).unwrap_err().to_string();
            assert!(error.contains("info"), "{filter}: {error}");
        }
    }

    #[test]
    fn dates_are_right() {
        let table = [
            (0, "01/Jan/1970 00:00:00"),
            (951_782_400, "29/Feb/2000 00:00:00"),
            (1_714_170_115, "26/Apr/2024 22:21:55"),
            (1_798_761_599, "31/Dec/2026 23:59:59"),
        ];
        for (seconds, text) in table {
            assert_eq!(access_time(Duration::from_secs(seconds)), text);
        }
    }
}
