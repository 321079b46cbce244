//! A row: what was done, what was measured side by side, and the targets.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// One measurement, beside its comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The name for `--only`.
    pub(crate) name: String,
    /// The subject, in a few words.
    pub(crate) title: String,
    /// What was done, in a sentence or two.
    pub(crate) how: String,
    /// Why the row was not measured. `None`: it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) skipped: Option<String>,
    /// True if the columns cannot be compared: no ratios are shown.
    #[serde(default)]
    pub(crate) apart: bool,
    /// The names of the columns.
    pub(crate) columns: Vec<String>,
    pub(crate) lines: Vec<Line>,
    /// Other observations, a sentence each.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
    pub(crate) aims: Vec<Aim>,
    /// The day, the command, and how busy the machine was with other things before the run.
    pub(crate) date: String,
    pub(crate) command: String,
    pub(crate) busy: f64,
}

/// One measure, for all columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// What is measured, with its unit.
    pub(crate) what: String,
    /// One value for each column.
    pub(crate) values: Vec<f64>,
}

/// One target, and the measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Aim {
    pub(crate) what: String,
    pub(crate) wanted: String,
    pub(crate) found: String,
    pub(crate) met: bool,
}

impl Aim {
    /// `found` should be at most `limit`.
    pub(crate) fn at_most(what: &str, limit: f64, unit: &str, found: f64) -> Self {
        Self::new(what, ("≤", limit, found <= limit), unit, found)
    }

    /// `found` should be at least `limit`.
    pub(crate) fn at_least(what: &str, limit: f64, unit: &str, found: f64) -> Self {
        Self::new(what, ("≥", limit, limit <= found), unit, found)
    }

    fn new(what: &str, (sign, limit, met): (&str, f64, bool), unit: &str, found: f64) -> Self {
        let written = |value| format!("{}{unit}", figure(value));
        let (wanted, found) = (format!("{sign} {}", written(limit)), written(found));
        Self { what: what.into(), wanted, found, met }
    }
}

impl Row {
    pub(crate) fn new(title: &str, how: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { title: title.into(), how: how.into(), columns, ..Self::default() }
    }

    /// A row that was not measured, with the reason.
    pub(crate) fn skipped(title: &str, why: &str) -> Self {
        Self { title: title.into(), skipped: Some(why.into()), ..Self::default() }
    }

    pub(crate) fn line(&mut self, what: &str, values: &[f64]) {
        self.lines.push(Line { what: what.into(), values: values.into() });
    }

    /// The row as Markdown.
    pub(crate) fn table(&self) -> String {
        let Self { title, how, name, .. } = self;
        let mut text = format!("### {title}\n\n");
        if let Some(why) = &self.skipped {
            // Writing into a string cannot fail, here and below.
            let _ = writeln!(text, "Not measured: {why}");
            return text;
        }
        let _ = writeln!(text, "`--only {name}`: {how}\n");
        let ratio = self.columns.len() == 2 && !self.apart;
        let _ = write!(text, "| |");
        for column in &self.columns {
            let _ = write!(text, " {column} |");
        }
        let _ = writeln!(text, "{}", if ratio { " ratio |" } else { "" });
        let count = self.columns.len() + usize::from(ratio);
        let _ = writeln!(text, "|---|{}", "---:|".repeat(count));
        for Line { what, values } in &self.lines {
            let _ = write!(text, "| {what} |");
            for value in values {
                let _ = write!(text, " {} |", figure(*value));
            }
            if let (true, [left, right]) = (ratio, values.as_slice()) {
                let _ = write!(text, " {:.2} |", super::super::ratio(*left, *right));
            }
            text.push('\n');
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "* {note}");
        }
        text
    }

    /// The targets as Markdown, for the terminal: the page has them in a table.
    pub(crate) fn verdicts(&self) -> String {
        let mut text = String::new();
        for Aim { what, wanted, found, met } in &self.aims {
            let met = if *met { "met" } else { "not met" };
            // Writing into a string cannot fail.
            let _ =
                writeln!(text, "* {what}: {wanted} is the target, {found} was measured: {met}.");
        }
        text
    }
}

/// Formats a number with about three significant digits.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        size if 1_000.0 <= size => thousands(value),
        size if 100.0 <= size => format!("{value:.0}"),
        size if 10.0 <= size => format!("{value:.1}"),
        size if 1.0 <= size => shortest(format!("{value:.2}")),
        _ => shortest(format!("{value:.3}")),
    }
}

/// Removes trailing zeros.
fn shortest(text: String) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Formats `12345.6` as `12,346`.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if 0 < place && (digits.len() - place).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_digits_that_matter() {
        let table = [
            (0.0, "0"),
            (0.0184, "0.018"),
            (0.25, "0.25"),
            (2.5, "2.5"),
            (25.04, "25.0"),
            (254.4, "254"),
            (2_544.4, "2,544"),
            (1_234_567.0, "1,234,567"),
            (-1_000.0, "-1,000"),
            (-123_456.0, "-123,456"),
        ];
        for (value, expected) in table {
            assert_eq!(figure(value), expected);
        }
    }

    #[test]
    fn a_row_is_a_table_with_ratios_and_targets() {
        let mut row = Row::new("Orders", "All buy.", &["a store", "a handler"]);
        row.name = "hot-64".into();
        row.line("orders per second", &[1_000.0, 2_000.0]);
        row.notes.push("The sun shone.".into());
        row.aims.push(Aim::at_most("CPU per order", 25.0, " µs", 30.5));
        row.aims.push(Aim::at_least("orders per second", 500.0, "", 1_000.0));
        let expected = "### Orders\n\n`--only hot-64`: All buy.\n\n\
            | | a store | a handler | ratio |\n|---|---:|---:|---:|\n\
            | orders per second | 1,000 | 2,000 | 0.50 |\n\n\
            * The sun shone.\n";
        assert_eq!(row.table(), expected);
        let expected = "* CPU per order: ≤ 25.0 µs is the target, 30.5 µs was measured: not met.\n\
            * orders per second: ≥ 500 is the target, 1,000 was measured: met.\n";
        assert_eq!(row.verdicts(), expected);
    }

    #[test]
    fn three_columns_have_no_ratio_and_a_skipped_row_says_why() {
        let mut row = Row::new("Products", "Spread.", &["1", "10", "10,000"]);
        row.line("orders per second", &[1.0, 2.0, 3.0]);
        assert!(row.table().contains("| | 1 | 10 | 10,000 |\n|---|---:|---:|---:|\n"));
        let mut row = Row { apart: true, ..Row::new("Overload", "Much.", &["done", "shed"]) };
        row.line("per second", &[1.0, 2.0]);
        assert!(
            row.table().ends_with("| | done | shed |\n|---|---:|---:|\n| per second | 1 | 2 |\n")
        );
        let skipped = Row::skipped("Batches", "there is no such endpoint.");
        assert_eq!(skipped.table(), "### Batches\n\nNot measured: there is no such endpoint.\n");
    }
}
