//! The score sheet: every check with its sentence, its points and its result.
//!
//! A check that every store of this kind must pass has points. A check of a choice of this
//! project's store is *information*: the sheet shows it, and it costs nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

/// Whether a store must pass the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequirementLevel {
    /// The API requires it.
    Must,
    /// A choice of this project's store.
    Info,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// Its stable name, for machines.
    pub(crate) id: String,
    /// The sentence that says what is checked.
    pub(crate) description: String,
    /// Its points.
    pub(crate) points: u32,
    /// Whether it counts for the score.
    pub(crate) level: RequirementLevel,
}

impl Check {
    /// A check that every store must pass.
    pub(crate) fn new(id: &str, points: u32, description: &str) -> Self {
        Self {
            id: id.to_owned(),
            description: description.to_owned(),
            points,
            level: RequirementLevel::Must,
        }
    }

    /// A check of a choice of this project's store.
    pub(crate) fn info(id: &str, description: &str) -> Self {
        Self { level: RequirementLevel::Info, ..Self::new(id, 0, description) }
    }
}

/// The result of a check, with the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CheckResult {
    Passed(String),
    Failed(String),
    /// It could not be made, or the store does not claim the feature.
    Skipped(String),
}

impl CheckResult {
    /// Passed with `Ok`, failed with `Err`.
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

    fn word(&self, level: RequirementLevel) -> &'static str {
        match (self, level) {
            (Self::Passed(_), _) => "passed",
            (Self::Failed(_), RequirementLevel::Must) => "failed",
            (Self::Failed(_), RequirementLevel::Info) => "differs",
            (Self::Skipped(_), _) => "skipped",
        }
    }
}

/// Related checks under one title.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) checks: Vec<Check>,
}

/// All checks of a dialect, in the order in which the sheet shows them.
#[derive(Clone, Debug)]
pub(crate) struct CheckList {
    sections: Vec<Section>,
    marks: BTreeMap<String, CheckResult>,
}

/// The score of a section or a sheet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Score {
    /// Points earned.
    pub(crate) points: u32,
    /// Points that could be earned, without those of skipped checks.
    pub(crate) of: u32,
    /// Points of skipped checks.
    pub(crate) skipped: u32,
    /// The number of failed checks.
    pub(crate) failures: usize,
}

impl CheckList {
    pub(crate) fn new(sections: Vec<Section>) -> Self {
        Self { sections, marks: BTreeMap::new() }
    }

    fn checks(&self) -> impl Iterator<Item = &Check> {
        self.sections.iter().flat_map(|section| &section.checks)
    }

    /// Records the result of a check.
    pub(crate) fn mark(&mut self, id: &str, mark: CheckResult) {
        debug_assert!(self.checks().any(|check| check.id == id), "there is no check {id}");
        self.marks.insert(id.to_owned(), mark);
    }

    /// The result of a check; a check without a result counts as skipped.
    fn found(&self, check: &Check) -> CheckResult {
        let mark = self.marks.get(&check.id).cloned();
        mark.unwrap_or_else(|| CheckResult::Skipped("it was not come to".into()))
    }

    /// The score of all checks.
    pub(crate) fn score(&self) -> Score {
        self.sum(self.checks())
    }

    fn sum<'a>(&self, checks: impl Iterator<Item = &'a Check>) -> Score {
        let mut score = Score::default();
        for check in checks.filter(|check| check.level == RequirementLevel::Must) {
            match self.found(check) {
                CheckResult::Passed(_) => score.points += check.points,
                CheckResult::Failed(_) => score.failures += 1,
                CheckResult::Skipped(_) => {
                    score.skipped += check.points;
                    continue;
                }
            }
            score.of += check.points;
        }
        score
    }

    /// The sheet as text: a line for each check, with the evidence below each check not passed.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let width = self.checks().map(|check| check.id.len()).max().unwrap_or(0);
        for Section { title, checks } in &self.sections {
            let Score { points, of, .. } = self.sum(checks.iter());
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(out, "{title}: {points} of {of}");
            for check in checks {
                let mark = self.found(check);
                let Check { id, description, points, level } = check;
                let (word, earned) = match (&mark, level) {
                    (CheckResult::Failed(_), RequirementLevel::Must) => {
                        ("FAILED", format!(" 0/{points:<2}"))
                    }
                    (mark, RequirementLevel::Info) => (mark.word(*level), "info ".to_owned()),
                    (CheckResult::Passed(_), _) => ("passed", format!("{points:>2}/{points:<2}")),
                    (CheckResult::Skipped(_), _) => ("skipped", format!(" -/{points:<2}")),
                };
                let _ = writeln!(out, "  {word:<7} {earned} {id:<width$}  {description}");
                if !matches!(mark, CheckResult::Passed(_)) {
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

    /// The sheet as JSON.
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
                "says": check.description,
                "points": check.points,
                "level": if check.level == RequirementLevel::Must { "must" } else { "info" },
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
        let mut sheet = CheckList::new(vec![Section { title: "all", checks }]);
        sheet.mark("e", CheckResult::of(Err("another way".into())));
        sheet.mark("a", CheckResult::of(Ok("seen".into())));
        sheet.mark("b", CheckResult::of(Err("not so".into())));
        sheet.mark("c", CheckResult::Skipped("no".into()));
        let score = sheet.score();
        assert_eq!(score, Score { points: 4, of: 7, skipped: 3, failures: 1 });
        let table = sheet.table();
        assert!(table.contains("score: 4 of 7; 1 check failed; 3 points were skipped"), "{table}");
        assert!(table.contains("> not so") && !table.contains("> seen"), "{table}");
        assert!(table.starts_with("all: 4 of 7\n"), "{table}");
        let json = sheet.json("http://here", "toy");
        assert_eq!(json["checks"][1]["evidence"], "not so");
        assert_eq!(json["checks"][3]["result"], "skipped", "it has no result");
        assert_eq!(json["checks"][4]["result"], "differs", "and costs nothing");
        assert!(table.contains("> another way"), "{table}");
    }
}
