//! The scenarios that come with Milena, and how scenarios are named on the command line.

use std::path::Path;

use super::scenario::Scenario;

/// Name and text of each file.
const FILES: &[(&str, &str)] = &[
    (
        "standard.toml",
        include_str!("../../bench-scenarios/standard.toml"),
    ),
    ("suite.toml", include_str!("../../bench-scenarios/suite.toml")),
];

/// All that come with Milena, in order.
///
/// # Errors
/// None, unless a file of ours is wrong.
pub(crate) fn all() -> Result<Vec<Scenario>, String> {
    let mut scenarios = Vec::new();
    for (name, text) in FILES {
        scenarios.extend(Scenario::parse_file(text, Path::new(name))?);
    }
    Ok(scenarios)
}

/// The text of the file that has a scenario.
///
/// # Errors
/// There is none of this name.
pub(crate) fn file_with(scenario: &str) -> Result<&'static str, String> {
    for (name, text) in FILES {
        let scenarios = Scenario::parse_file(text, Path::new(name))?;
        if scenarios.iter().any(|other| other.name == scenario) {
            return Ok(text);
        }
    }
    Err(unknown(scenario, &all()?))
}

fn unknown(name: &str, known: &[Scenario]) -> String {
    let names: Vec<&str> = known.iter().map(|scenario| scenario.name.as_str()).collect();
    format!(
        "there is no scenario {name:?}; there are {}, and TOML files",
        names.join(", ")
    )
}

/// The scenarios that words of the command line mean: files where they look like paths, else names. `only` chooses among
/// those of the files.
///
/// # Errors
/// Says which word means nothing, or what is wrong with a file.
pub(crate) fn named(words: &[String], only: &[String]) -> Result<Vec<Scenario>, String> {
    let shipped = all()?;
    let mut chosen: Vec<Scenario> = Vec::new();
    for word in words {
        if word.ends_with(".toml") || word.contains('/') {
            let text = std::fs::read_to_string(word).map_err(|error| format!("{word}: {error}"))?;
            let mut scenarios = Scenario::parse_file(&text, Path::new(word))?;
            scenarios.retain(|scenario| only.is_empty() || only.contains(&scenario.name));
            chosen.extend(scenarios);
            continue;
        }
        match shipped.iter().find(|scenario| scenario.name == *word) {
            Some(scenario) => chosen.push(scenario.clone()),
            None => return Err(unknown(word, &shipped)),
        }
    }
    match only
        .iter()
        .find(|name| !chosen.iter().any(|scenario| scenario.name == **name))
    {
        Some(name) => Err(format!("--only: the files have no scenario {name:?}")),
        None => Ok(chosen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_shipped_is_right_and_has_a_name_of_its_own() {
        let scenarios = all().unwrap();
        let mut names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(scenarios.iter().all(|scenario| !scenario.about.is_empty()));
        assert!(file_with("S2r").unwrap().contains("name = \"S2r\""));
    }

    #[test]
    fn a_word_that_means_nothing_is_answered_with_what_there_is() {
        let error = named(&["S99".to_owned()], &[]).unwrap_err();
        assert!(
            error.contains("no scenario \"S99\"") && error.contains("S2r"),
            "{error}"
        );
        let error = named(&["/nowhere.toml".to_owned()], &[]).unwrap_err();
        assert!(error.starts_with("/nowhere.toml: "), "{error}");
        let error = named(&["S2r".to_owned()], &["x".to_owned()]).unwrap_err();
        assert!(error.contains("no scenario \"x\""), "{error}");
        assert_eq!(named(&["S2r".to_owned()], &[]).unwrap().len(), 1);
    }
}
