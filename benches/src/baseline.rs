//! The instructions that each step took when the baseline was made, and what was the same then: counts compare only
//! where compiler, libraries and processor do.
//!
//! Promise: a step that takes more than 2 % more is found, unless the conditions differ; then the difference is told and
//! nothing is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// How much more is a regression, in percent. What one build counts twice differs by less than a hundredth of that.
const TOLERANCE_PERCENT: f64 = 2.0;

/// What is kept in `baseline.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// What the counts depend on, besides our code, by name.
    pub conditions: BTreeMap<String, String>,
    /// Instructions for one unit of each step.
    pub instructions: BTreeMap<String, f64>,
}

/// What became of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Within,
    Regression,
    Improvement,
    /// The baseline does not have it.
    New,
    /// Only the baseline has it.
    Gone,
}

/// One step's line.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub step: String,
    pub before: Option<f64>,
    pub now: Option<f64>,
    pub change: Change,
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// A sentence for each condition that differs.
    pub differing: Vec<String>,
    pub rows: Vec<Row>,
}

impl Baseline {
    /// Sets what was found now beside this.
    pub fn compare(&self, now: &Baseline) -> Verdict {
        let names: BTreeSet<&String> = self.conditions.keys().chain(now.conditions.keys()).collect();
        let differing = names.into_iter().filter_map(|name| {
            let (before, now) = (self.conditions.get(name), now.conditions.get(name));
            let text = |value: Option<&String>| value.map_or("unknown".to_owned(), Clone::clone);
            (before != now).then(|| {
                format!(
                    "{name}: the baseline is for {}, this is {}",
                    text(before),
                    text(now)
                )
            })
        });
        let steps: BTreeSet<&String> = self.instructions.keys().chain(now.instructions.keys()).collect();
        let rows = steps.into_iter().map(|step| {
            let (before, now) = (self.instructions.get(step), now.instructions.get(step));
            Row {
                step: step.clone(),
                before: before.copied(),
                now: now.copied(),
                change: match (before, now) {
                    (None, _) => Change::New,
                    (_, None) => Change::Gone,
                    (Some(before), Some(now)) => change(*before, *now),
                },
            }
        });
        Verdict {
            differing: differing.collect(),
            rows: rows.collect(),
        }
    }
}

fn percent(before: f64, now: f64) -> f64 {
    (now - before) / before * 100.0
}

fn change(before: f64, now: f64) -> Change {
    match percent(before, now) {
        more if more > TOLERANCE_PERCENT => Change::Regression,
        less if less < -TOLERANCE_PERCENT => Change::Improvement,
        _ => Change::Within,
    }
}

impl Verdict {
    fn has(&self, change: Change) -> bool {
        self.rows.iter().any(|row| row.change == change)
    }

    /// Whether the check fails: steps regressed, or are not those of the baseline.
    pub fn fails(&self) -> bool {
        self.differing.is_empty()
            && [Change::Regression, Change::New, Change::Gone]
                .map(|change| self.has(change))
                .contains(&true)
    }

    /// Whether the baseline lags behind what was gained.
    pub fn is_better(&self) -> bool {
        self.differing.is_empty() && self.has(Change::Improvement)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
        write!(
            f,
            "{:<28}{:>14}{:>14}",
            self.step,
            number(self.before),
            number(self.now)
        )?;
        if let (Some(before), Some(now)) = (self.before, self.now) {
            write!(f, "{:>+9.2} %", percent(before, now))?;
        }
        match self.change {
            Change::Within => Ok(()),
            Change::Regression => f.write_str("  REGRESSION"),
            Change::Improvement => f.write_str("  better"),
            Change::New => f.write_str("  not in the baseline"),
            Change::Gone => f.write_str("  no such step"),
        }
    }
}

/// A short name of the third-party code that the engine and the server are built of, by versions and checksums. What the
/// tools alone use does not count.
pub fn packages_fingerprint(lock_file: &str) -> String {
    let packages: Vec<Package<'_>> = lock_file
        .split("[[package]]")
        .skip(1)
        .map(Package::parse)
        .collect();
    let mut reached = BTreeSet::new();
    let mut open = vec!["milena-engine", "milena-server"];
    while let Some(wanted) = open.pop() {
        for package in packages.iter().filter(|package| package.is(wanted)) {
            if reached.insert((package.name, package.version, package.checksum)) {
                open.extend(&package.dependencies);
            }
        }
    }
    format!("{:08x}", crc32c::crc32c(format!("{reached:?}").as_bytes()))
}

/// What is needed of one entry of a lock file.
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    checksum: &'a str,
    /// `name`, or `name version` where there are several.
    dependencies: Vec<&'a str>,
}

impl<'a> Package<'a> {
    fn parse(entry: &'a str) -> Package<'a> {
        let field = |name: &str| {
            let value = entry
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
            value.unwrap_or_default().trim_matches('"')
        };
        let listed = entry
            .lines()
            .filter_map(|line| line.strip_prefix(" \"")?.strip_suffix("\","));
        Package {
            name: field("name"),
            version: field("version"),
            checksum: field("checksum"),
            dependencies: listed.collect(),
        }
    }

    fn is(&self, wanted: &str) -> bool {
        let mut words = wanted.split(' ');
        words.next() == Some(self.name) && words.next().is_none_or(|version| version == self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(compiler: &str, steps: &[(&str, f64)]) -> Baseline {
        Baseline {
            conditions: BTreeMap::from([("compiler".to_owned(), compiler.to_owned())]),
            instructions: steps
                .iter()
                .map(|(step, count)| ((*step).to_owned(), *count))
                .collect(),
        }
    }

    #[test]
    fn two_percent_more_fail_and_two_percent_less_are_told() {
        let before = baseline("1", &[("a", 1000.0)]);
        let against = |count| before.compare(&baseline("1", &[("a", count)]));
        assert!(against(1021.0).fails());
        assert!(
            against(1021.0).rows[0]
                .to_string()
                .ends_with("+2.10 %  REGRESSION")
        );
        assert!(!against(1019.0).fails());
        assert!(!against(981.0).is_better());
        assert!(against(979.0).is_better() && !against(979.0).fails());
    }

    #[test]
    fn another_compiler_is_named_and_nothing_is_judged() {
        let verdict = baseline("1", &[("a", 10.0)]).compare(&baseline("2", &[("a", 20.0)]));
        assert_eq!(verdict.differing, ["compiler: the baseline is for 1, this is 2"]);
        assert!(!verdict.fails());
        assert_eq!(verdict.rows[0].change, Change::Regression);
    }

    #[test]
    fn steps_must_be_those_of_the_baseline() {
        let (one, two) = (
            baseline("1", &[("a", 1.0)]),
            baseline("1", &[("a", 1.0), ("b", 1.0)]),
        );
        assert!(one.compare(&two).fails());
        assert!(two.compare(&one).fails());
        assert!(!two.compare(&two).fails());
    }

    #[test]
    fn the_fingerprint_sees_what_the_engine_is_built_of_and_nothing_else() {
        let lock = |codec: &str, plot: &str| {
            format!(
                "version = 4\n\n[[package]]\nname = \"milena-engine\"\nversion = \"0.1.0\"\ndependencies = [\n \"snap\",\n]\n\n\
                 [[package]]\nname = \"milena\"\nversion = \"0.1.0\"\ndependencies = [\n \"milena-engine\",\n \"plot\",\n]\n\n\
                 [[package]]\nname = \"snap\"\nversion = \"{codec}\"\nchecksum = \"ab\"\n\n\
                 [[package]]\nname = \"plot\"\nversion = \"{plot}\"\nchecksum = \"cd\"\n"
            )
        };
        let one = packages_fingerprint(&lock("1.0.0", "1.0.0"));
        assert_eq!(one, packages_fingerprint(&lock("1.0.0", "2.0.0")));
        assert_ne!(one, packages_fingerprint(&lock("1.0.1", "1.0.0")));
    }
}
