//! When and with which command the rows were measured: a list for each day.

use super::figures::Row;
use super::markdown::Markdown;

/// One run of the bench, and the names of the rows that it measured.
#[derive(Debug)]
struct BenchRun<'a> {
    date: &'a str,
    command: Vec<&'a str>,
    busy: String,
    names: Vec<&'a str>,
}

/// A list of runs for each day; what their commands have in common stands above it.
pub(crate) fn section(rows: &[Row], page: &mut Markdown) {
    let mut runs = runs(rows);
    // The order within a day stays that of the rows.
    runs.sort_by_key(|run| run.date);
    for day in runs.chunk_by(|one, next| one.date == next.date) {
        let (date, common) = (day[0].date, common(day));
        page.paragraph(&format!(
            "{date}, `{}`, load average before the run in brackets:",
            day[0].command[..common].join(" ")
        ));
        let items = day.iter().map(|BenchRun { command, busy, names, .. }| {
            let options = match &command[common..] {
                [] => "no further options".to_owned(),
                options => format!("`{}`", options.join(" ")),
            };
            format!("{options} ({busy}): {}", names.join(", "))
        });
        page.list(&items.collect::<Vec<_>>());
    }
}

fn runs(rows: &[Row]) -> Vec<BenchRun<'_>> {
    let mut runs: Vec<BenchRun<'_>> = Vec::new();
    for row in rows.iter().filter(|row| !row.is_skipped()) {
        let Row { name, date, command, busy, .. } = row;
        let (command, busy) = (command.split(' ').collect::<Vec<_>>(), format!("{busy:.2}"));
        let same = |run: &&mut BenchRun<'_>| {
            run.date == date && run.command == command && run.busy == busy
        };
        match runs.iter_mut().find(same) {
            Some(run) => run.names.push(name.text()),
            None => runs.push(BenchRun { date, command, busy, names: vec![name.text()] }),
        }
    }
    runs
}

/// The number of words with which all commands begin, without an option that has another value.
fn common(runs: &[BenchRun<'_>]) -> usize {
    let [first, others @ ..] = runs else { return 0 };
    let same =
        |(at, word): &(usize, &&str)| others.iter().all(|run| run.command.get(*at) == Some(*word));
    let count = first.command.iter().enumerate().take_while(same).count();
    let is_value =
        |run: &BenchRun<'_>| run.command.get(count).is_some_and(|word| !word.starts_with("--"));
    let splits = first.command[..count].last().is_some_and(|word| word.starts_with("--"))
        && runs.iter().any(is_value);
    count - usize::from(splits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::name::Name;
    use crate::bench::report::{ClosedLoop, Figures};

    fn row(name: Name, date: &str, options: &str) -> Row {
        let command = format!("cargo xtask bench{options}");
        let figures = Figures::ClosedLoop(ClosedLoop::default());
        Row { name, date: date.into(), command, busy: 0.5, figures }
    }

    fn text(rows: &[Row]) -> String {
        let mut page = Markdown::default();
        section(rows, &mut page);
        page.into_text()
    }

    #[test]
    fn the_runs_of_a_day_stand_together_below_their_common_options() {
        let rows = [
            row(Name::Hot64, "2026-11-22", " --runs 3"),
            row(Name::Query, "2026-11-21", ""),
            row(Name::Batch, "2026-11-22", " --runs 3 --only batch"),
            row(Name::Redis, "2026-11-22", " --runs 3"),
        ];
        let expected = "\
            2026-11-21, `cargo xtask bench`, load average before the run in brackets:\n\n\
            * no further options (0.50): query\n\n\
            2026-11-22, `cargo xtask bench --runs 3`, load average before the run in brackets:\n\n\
            * no further options (0.50): hot-64, redis\n\
            * `--only batch` (0.50): batch\n";
        assert_eq!(text(&rows), expected);
    }

    #[test]
    fn an_option_is_not_torn_from_its_value() {
        let rows = [
            row(Name::Hot64, "2026-11-22", " --runs 3"),
            row(Name::Query, "2026-11-22", " --runs 5"),
        ];
        let text = text(&rows);
        assert!(text.starts_with("2026-11-22, `cargo xtask bench`, "), "{text}");
        assert!(
            text.ends_with("* `--runs 3` (0.50): hot-64\n* `--runs 5` (0.50): query\n"),
            "{text}"
        );
    }
}
