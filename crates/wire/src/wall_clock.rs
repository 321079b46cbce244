//! The wall clock, and how a moment of it is written. It may jump; leases are measured by
//! [`watch::clock`](crate::watch::clock).

#[cfg(not(feature = "simulated"))]
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Fault injection for tests: the number of milliseconds by which the wall clock is ahead.
#[cfg(not(feature = "simulated"))]
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

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
    let (now, ahead) = (now.unwrap_or_default(), AHEAD_MS.load(Ordering::Relaxed));
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
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}", seconds % 60, since_epoch.subsec_millis())
}

/// The date in UTC: `2024-04-26`.
pub(crate) fn date(since_epoch: Duration) -> String {
    let (year, month, day) = civil(since_epoch.as_secs() / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The date and the minute in UTC: `2024-04-26 22:21`.
pub fn minute(since_epoch: Duration) -> String {
    let time = time_of_day(since_epoch);
    format!("{} {}", date(since_epoch), time.get(..5).unwrap_or_default())
}

/// The date and the second in UTC: `2024-04-26 22:21:55`.
pub fn second(since_epoch: Duration) -> String {
    let time = time_of_day(since_epoch);
    format!("{} {}", date(since_epoch), time.get(..8).unwrap_or_default())
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
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
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
        assert_eq!(second(Duration::from_millis(1_714_170_115_999)), "2024-04-26 22:21:55");
    }
}
