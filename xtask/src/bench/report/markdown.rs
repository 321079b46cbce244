//! Markdown: blocks with an empty line between them, lines that are wrapped, and figures.

use crate::bench::float;

/// The most columns of a line of text; a line of a table is not wrapped.
const COLUMNS_MAX: usize = 120;

/// A text that grows block by block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Markdown {
    text: String,
}

/// A line of a table: its name, and its cells.
pub(crate) type TableLine = (&'static str, Vec<f64>);

impl Markdown {
    pub(crate) fn heading(&mut self, level: usize, text: &str) {
        self.block(&format!("{} {text}\n", "#".repeat(level)));
    }

    pub(crate) fn paragraph(&mut self, text: &str) {
        self.block(&wrap("", text));
    }

    /// A list; nothing if it has no items.
    pub(crate) fn list(&mut self, items: &[String]) {
        let items: String = items.iter().map(|item| wrap("* ", item)).collect();
        if !items.is_empty() {
            self.block(&items);
        }
    }

    /// A table of figures. The first name of the head is that of the lines' names.
    pub(crate) fn table(&mut self, head: &[&str], lines: &[TableLine]) {
        let mut table = line(head.iter().map(|name| (*name).to_owned()));
        table += "|---|";
        table += &"---:|".repeat(head.len().saturating_sub(1));
        table.push('\n');
        for (name, values) in lines {
            let values = values.iter().map(|value| figure(*value));
            table += &line(std::iter::once((*name).to_owned()).chain(values));
        }
        self.block(&table);
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }

    fn block(&mut self, lines: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text += lines;
    }
}

/// A line of a table.
fn line(cells: impl Iterator<Item = String>) -> String {
    let cell = |text: String| if text.is_empty() { " |".to_owned() } else { format!(" {text} |") };
    format!("|{}\n", cells.map(cell).collect::<String>())
}

/// Breaks a text into lines after `mark`; all lines but the first are indented by its width.
fn wrap(mark: &str, text: &str) -> String {
    let indent = " ".repeat(mark.chars().count());
    let (mut lines, mut line, mut is_empty) = (String::new(), mark.to_owned(), true);
    for word in text.split_whitespace() {
        let width = line.chars().count() + 1 + word.chars().count();
        if !is_empty && COLUMNS_MAX < width {
            lines += &line;
            lines.push('\n');
            line.clone_from(&indent);
        } else if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    format!("{lines}{line}\n")
}

/// Several figures as one, if all are the same: `4.4 each`, or `2.5 and 2.4`.
pub(crate) fn each(texts: &[String]) -> String {
    match texts {
        [first, others @ ..] if !others.is_empty() && others.iter().all(|it| it == first) => {
            format!("{first} each")
        }
        _ => texts.join(" and "),
    }
}

/// Formats a number with about three significant digits.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        size if 1_000.0 <= size => whole(value),
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

/// Formats a count: `12345` as `12,345`.
pub(crate) fn count(value: u64) -> String {
    whole(float(value))
}

/// Formats `12345.6` as `12,346`.
pub(crate) fn whole(value: f64) -> String {
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
        assert_eq!(count(15), "15");
        let each =
            |texts: &[&str]| each(&texts.iter().copied().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(each(&["4.4", "4.4"]), "4.4 each");
        assert_eq!(each(&["2.5", "2.4"]), "2.5 and 2.4");
        assert_eq!(each(&["2.5"]), "2.5");
    }

    #[test]
    fn blocks_are_separated_and_text_is_wrapped_but_tables_are_not() {
        let mut page = Markdown::default();
        page.heading(2, "Orders");
        page.list(&[]);
        let word = "ä".repeat(59);
        page.paragraph(&format!("{word} {word}\nand more"));
        page.list(&[format!("{word} {word}"), "short".into()]);
        page.table(&["", "one"], &[("a", vec![1_000.0]), ("b", vec![0.5])]);
        let expected = format!(
            "## Orders\n\n{word} {word}\nand more\n\n* {word}\n  {word}\n* short\n\n\
             | | one |\n|---|---:|\n| a | 1,000 |\n| b | 0.5 |\n"
        );
        assert_eq!(page.into_text(), expected);
    }
}
