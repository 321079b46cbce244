//! The score sheet: every check with its sentence and its points, and what came of it.
//!
//! What every store of this kind must do has points. What ours has chosen, and another may choose
//! otherwise, is *information*: it is shown and costs nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

/// Whether a store must do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// The API asks for it.
    Must,
    /// A choice of our own store.
    Info,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// Its name for machines, which stays.
    pub(crate) id: String,
    /// What is checked.
    pub(crate) says: String,
    /// What it is worth.
    pub(crate) points: u32,
    /// Whether it counts.
    pub(crate) level: Level,
}

impl Check {
    /// What every store must do.
    pub(crate) fn new(id: &str, points: u32, says: &str) -> Self {
        Self { id: id.to_owned(), says: says.to_owned(), points, level: Level::Must }
    }

    /// What ours does, and another may do otherwise.
    pub(crate) fn info(id: &str, says: &str) -> Self {
        Self { level: Level::Info, ..Self::new(id, 0, says) }
    }
}

/// What came of a check, with the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Passed(String),
    Failed(String),
    /// It could not be asked, or the store does not claim it.
    Skipped(String),
}

impl Mark {
    /// Passed with the one, failed with the other.
    pub(crate) fn of(found: Result<String, String>) -> Self {
        match found {
            Ok(seen) => Self::Passed(seen),
            Err(why) => Self::Failed(why),
        }
    }

    fn evidence(&self) -> &str {
        match self {
            Self::Passed(seen) => seen,
            Self::Failed(why) | Self::Skipped(why) => why,
        }
    }

    fn word(&self, level: Level) -> &'static str {
        match (self, level) {
            (Self::Passed(_), _) => "passed",
            (Self::Failed(_), Level::Must) => "failed",
            (Self::Failed(_), Level::Info) => "differs",
            (Self::Skipped(_), _) => "skipped",
        }
    }
}

/// Checks that belong together.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) checks: Vec<Check>,
}

/// All checks of a dialect, in the order in which they are shown.
#[derive(Clone, Debug)]
pub(crate) struct Sheet {
    sections: Vec<Section>,
    marks: BTreeMap<String, Mark>,
}

/// Points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Score {
    /// Earned.
    pub(crate) points: u32,
    /// Of so many, those of skipped checks left out.
    pub(crate) of: u32,
    /// Of skipped checks.
    pub(crate) skipped: u32,
    /// How many checks failed.
    pub(crate) failures: usize,
}

impl Sheet {
    pub(crate) fn new(sections: Vec<Section>) -> Self {
        Self { sections, marks: BTreeMap::new() }
    }

    fn checks(&self) -> impl Iterator<Item = &Check> {
        self.sections.iter().flat_map(|section| &section.checks)
    }

    /// Writes a mark down.
    pub(crate) fn mark(&mut self, id: &str, mark: Mark) {
        debug_assert!(self.checks().any(|check| check.id == id), "there is no check {id}");
        self.marks.insert(id.to_owned(), mark);
    }

    /// What came of a check. One that nobody came to is skipped.
    fn found(&self, check: &Check) -> Mark {
        let mark = self.marks.get(&check.id).cloned();
        mark.unwrap_or_else(|| Mark::Skipped("it was not come to".into()))
    }

    /// The whole score.
    pub(crate) fn score(&self) -> Score {
        self.sum(self.checks())
    }

    fn sum<'a>(&self, checks: impl Iterator<Item = &'a Check>) -> Score {
        let mut score = Score::default();
        for check in checks.filter(|check| check.level == Level::Must) {
            match self.found(check) {
                Mark::Passed(_) => score.points += check.points,
                Mark::Failed(_) => score.failures += 1,
                Mark::Skipped(_) => {
                    score.skipped += check.points;
                    continue;
                }
            }
            score.of += check.points;
        }
        score
    }

    /// For people: a line for each check, and the evidence below what was not passed.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let width = self.checks().map(|check| check.id.len()).max().unwrap_or(0);
        for Section { title, checks } in &self.sections {
            let Score { points, of, .. } = self.sum(checks.iter());
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(out, "{title}: {points} of {of}");
            for check in checks {
                let mark = self.found(check);
                let Check { id, says, points, level } = check;
                let (word, earned) = match (&mark, level) {
                    (Mark::Failed(_), Level::Must) => ("FAILED", format!(" 0/{points:<2}")),
                    (mark, Level::Info) => (mark.word(*level), "info ".to_owned()),
                    (Mark::Passed(_), _) => ("passed", format!("{points:>2}/{points:<2}")),
                    (Mark::Skipped(_), _) => ("skipped", format!(" -/{points:<2}")),
                };
                let _ = writeln!(out, "  {word:<7} {earned} {id:<width$}  {says}");
                if !matches!(mark, Mark::Passed(_)) {
                    let _ = writeln!(out, "{:15}> {}", "", mark.evidence());
                }
            }
            out.push('\n');
        }
        let Score { points, of, skipped, failures } = self.score();
        let failed = match failures {
            0 => "nothing failed".to_owned(),
            1 => "1 check failed".to_owned(),
            _ => format!("{failures} checks failed"),
        };
        let skipped = match skipped {
            0 => String::new(),
            1 => "; 1 point was skipped and does not count".to_owned(),
            _ => format!("; {skipped} points were skipped and do not count"),
        };
        let _ = writeln!(out, "score: {points} of {of}; {failed}{skipped}");
        out
    }

    /// For machines.
    pub(crate) fn json(&self, url: &str, dialect: &str) -> Value {
        let sectioned = self
            .sections
            .iter()
            .flat_map(|section| section.checks.iter().map(|check| (section.title, check)));
        let checks = sectioned.map(|(section, check)| {
            let mark = self.found(check);
            json!({
                "section": section,
                "id": check.id,
                "says": check.says,
                "points": check.points,
                "level": if check.level == Level::Must { "must" } else { "info" },
                "result": mark.word(check.level),
                "evidence": mark.evidence(),
            })
        });
        let Score { points, of, skipped, failures } = self.score();
        json!({
            "url": url,
            "dialect": dialect,
            "score": points,
            "of": of,
            "skipped": skipped,
            "failures": failures,
            "checks": checks.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_check_costs_nothing_and_a_failed_one_its_points() {
        let checks = [("a", 4), ("b", 3), ("c", 2), ("d", 1)];
        let mut checks: Vec<_> =
            checks.map(|(id, points)| Check::new(id, points, "it is so")).into();
        checks.push(Check::info("e", "ours does so"));
        let mut sheet = Sheet::new(vec![Section { title: "all", checks }]);
        sheet.mark("e", Mark::of(Err("another way".into())));
        sheet.mark("a", Mark::of(Ok("seen".into())));
        sheet.mark("b", Mark::of(Err("not so".into())));
        sheet.mark("c", Mark::Skipped("no".into()));
        let score = sheet.score();
        assert_eq!(score, Score { points: 4, of: 7, skipped: 3, failures: 1 });
        let table = sheet.table();
        assert!(table.contains("score: 4 of 7; 1 check failed; 3 points were skipped"), "{table}");
        assert!(table.contains("> not so") && !table.contains("> seen"), "{table}");
        assert!(table.starts_with("all: 4 of 7\n"), "{table}");
        let json = sheet.json("http://here", "toy");
        assert_eq!(json["checks"][1]["evidence"], "not so");
        assert_eq!(json["checks"][3]["result"], "skipped", "nobody came to it");
        assert_eq!(json["checks"][4]["result"], "differs", "and costs nothing");
        assert!(table.contains("> another way"), "{table}");
    }
}
