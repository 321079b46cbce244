//! A second in UTC as text, as operators type it. Texts of one form compare as their times do, so
//! no calendar is needed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use wire::wall_clock;

/// A second: `2026-11-28 14:30:00`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UtcSecond(String);

impl UtcSecond {
    /// The second of a time since the epoch.
    pub(crate) fn of(since_epoch: Duration) -> Self {
        Self(wall_clock::second(since_epoch))
    }

    /// The same in the name of a file: `2026-11-28T14-30-00Z`.
    pub(crate) fn file_name(&self) -> String {
        format!("{}Z", self.0.replace(' ', "T").replace(':', "-"))
    }
}

impl fmt::Display for UtcSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} UTC", self.0)
    }
}

impl FromStr for UtcSecond {
    type Err = String;

    /// Parses `2026-11-28T14:30:00Z`.
    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "0000-00-00T00:00:00Z";
        let fits = |(letter, form): (u8, u8)| match form {
            b'0' => letter.is_ascii_digit(),
            _ => letter == form,
        };
        let number = |from: usize| text.get(from..from + 2).and_then(|two| two.parse().ok());
        let within = |from, range: std::ops::RangeInclusive<u8>| {
            number(from).is_some_and(|number| range.contains(&number))
        };
        let is_form = text.len() == FORM.len() && text.bytes().zip(FORM.bytes()).all(fits);
        let is_date = is_form && within(5, 1..=12) && within(8, 1..=31);
        if is_date && within(11, 0..=23) && within(14, 0..=59) && within(17, 0..=59) {
            return Ok(Self(text.replace('T', " ").replace('Z', "")));
        }
        Err(format!("a time is written as 2026-11-28T14:30:00Z, in UTC, not {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_compare_as_their_texts() {
        let second = |seconds| UtcSecond::of(Duration::from_secs(seconds));
        let typed: UtcSecond = "2024-04-26T22:21:55Z".parse().unwrap();
        assert_eq!(typed, second(1_714_170_115));
        assert!(second(1_714_170_114) < typed && typed < second(1_714_170_116));
        assert!(second(0) < typed && typed < second(4_102_444_800));
        assert_eq!(typed.file_name(), "2024-04-26T22-21-55Z");
        assert_eq!(typed.to_string(), "2024-04-26 22:21:55 UTC");
    }

    #[test]
    fn a_time_in_another_form_is_rejected() {
        for odd in [
            "",
            "2024-04-26",
            "2024-04-26 22:21:55",
            "2024-04-26T22:21:55",
            "2024-04-26T22:21:55+02:00",
            "2024-13-26T22:21:55Z",
            "2024-04-32T22:21:55Z",
            "2024-04-26T24:21:55Z",
            "2024-04-26T22:60:55Z",
            "2024-04-26T22:21:6éZ",
        ] {
            let why = odd.parse::<UtcSecond>().unwrap_err();
            assert!(why.contains("2026-11-28T14:30:00Z"), "{odd}: {why}");
        }
    }
}
