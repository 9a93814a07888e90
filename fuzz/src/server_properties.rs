//! `server.properties`: the file as Java reads it, every setting by its type and limits, and what they say together.
//!
//! Input: the file. Promise: it is a configuration, or every refusal names a setting or the line of the file that
//! is no setting at all.

use std::path::Path;

use milena_server::config::{BrokerConfig, LoadError, Place, Problem, broker_definitions, parse_properties};

/// All settings with their defaults, several times over: as texts, as values, as the parts of the broker keep them.
pub(crate) const TABLE: usize = 512 << 10;

pub(crate) fn load(bytes: &[u8]) {
    let path = Path::new("server.properties");
    match BrokerConfig::from_properties(path, bytes) {
        Ok((config, warnings)) => {
            crate::walk(&config);
            warnings
                .iter()
                .for_each(|warning| crate::walk(&warning.to_string()));
        }
        Err(LoadError { problems }) => {
            assert!(!problems.is_empty());
            for problem in &problems {
                check_refusal(bytes, problem);
            }
        }
    }
}

/// The file is no properties file, and its line is told; or the text names a setting of the file or of the table.
fn check_refusal(bytes: &[u8], problem: &Problem) {
    let text = problem.to_string();
    let lines = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).count();
    if let Some(Place::File { line, .. }) = &problem.place {
        assert!((1..=lines).contains(line), "line {line} of {lines}: {text}");
    }
    match parse_properties(bytes) {
        Ok(properties) if !bytes.contains(&0) => {
            let known = broker_definitions().any(|definition| text.contains(definition.name));
            let given = || properties.iter().any(|property| text.contains(&property.key));
            assert!(known || given(), "names no setting: {text}");
        }
        _ => assert!(problem.place.is_some(), "names no line: {text}"),
    }
}
