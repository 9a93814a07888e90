//! Which topics or groups are meant: a name, a glob (`orders-*`, `{a,b}-[0-9]`), or a regular expression between slashes
//! (`/orders-\d+/`), which fits a whole name.
//!
//! Promise: a name that is not there is answered with similar ones, a pattern that fits nothing is an error, and a topic
//! of the brokers themselves is met by a pattern only where the caller says so.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use milena_server::client::{Client, ClientError, TopicMetadata, Topics};
use milena_server::protocol::ErrorCode;
use regex_lite::Regex;

use crate::cluster_args::{CommandError, no_such_topic, unknown};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) enum NamePattern {
    Name(String),
    Pattern { text: String, regex: Regex },
}

/// Whether patterns meet topics of the brokers themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Internal {
    Included,
    Excluded,
}

impl FromStr for NamePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<NamePattern, String> {
        if text.is_empty() {
            return Err("found an empty name, expected a name or a pattern".to_owned());
        }
        let inner = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        let expression = match inner {
            Some(expression) => format!("^(?:{expression})$"),
            None if text.contains(['*', '?', '[', '{']) => of_glob(text),
            None => return Ok(NamePattern::Name(text.to_owned())),
        };
        let regex = Regex::new(&expression).map_err(|error| format!("{text}: {error}"))?;
        Ok(NamePattern::Pattern {
            text: text.to_owned(),
            regex,
        })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NamePattern::Name(name) => name,
            NamePattern::Pattern { text, .. } => text,
        })
    }
}

impl NamePattern {
    pub(crate) fn fits(&self, name: &str) -> bool {
        match self {
            NamePattern::Name(own) => own == name,
            NamePattern::Pattern { regex, .. } => regex.is_match(name),
        }
    }
}

fn of_glob(glob: &str) -> String {
    let mut expression = String::from("^");
    let (mut in_class, mut in_list) = (false, false);
    for c in glob.chars() {
        match c {
            ']' if in_class => {
                in_class = false;
                expression.push(c);
            }
            '!' if expression.ends_with('[') => expression.push('^'),
            '\\' => expression.push_str(r"\\"),
            _ if in_class => expression.push(c),
            '[' => {
                in_class = true;
                expression.push(c);
            }
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            '{' => {
                in_list = true;
                expression.push_str("(?:");
            }
            '}' => {
                in_list = false;
                expression.push(')');
            }
            ',' if in_list => expression.push('|'),
            _ => expression.push_str(&regex_lite::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    expression.push('$');
    expression
}

/// The topics that are meant, described; all when there is no pattern.
pub(crate) async fn chosen(
    client: &mut Client,
    patterns: &[NamePattern],
    internal: Internal,
) -> Result<BTreeMap<String, TopicMetadata>, CommandError> {
    let names: Option<Vec<String>> = patterns
        .iter()
        .map(|pattern| match pattern {
            NamePattern::Name(name) => Some(name.clone()),
            NamePattern::Pattern { .. } => None,
        })
        .collect();
    let topics = match names.as_deref() {
        None | Some([]) => client.metadata(Topics::All).await?.topics,
        Some(names) => client.metadata(Topics::Named(names)).await?.topics,
    };
    for pattern in patterns {
        let is_there = |topic: &TopicMetadata| topic.error != ErrorCode::UnknownTopicOrPartition;
        if topics
            .values()
            .any(|topic| is_there(topic) && pattern.fits(&topic.name))
        {
            continue;
        }
        return Err(match pattern {
            NamePattern::Name(name) if names.is_some() => no_such_topic(client, name).await,
            NamePattern::Name(name) => CommandError::Failed(unknown("topic", name, topics.keys())),
            NamePattern::Pattern { text, .. } => CommandError::Failed(format!("no topic fits {text}")),
        });
    }
    let is_meant = |topic: &TopicMetadata| {
        let hidden = topic.is_internal && internal == Internal::Excluded;
        let named = |pattern: &NamePattern| match pattern {
            NamePattern::Name(_) => true,
            NamePattern::Pattern { .. } => !hidden,
        };
        let mut fitting = patterns.iter().filter(|pattern| pattern.fits(&topic.name));
        if patterns.is_empty() {
            !hidden
        } else {
            fitting.any(named)
        }
    };
    let meant = topics.into_iter().filter(|(_, topic)| is_meant(topic));
    meant
        .map(|(name, topic)| {
            ClientError::check(topic.error.code(), None, || format!("topic {name}"))?;
            Ok((name, topic))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_globs_and_regular_expressions_are_told_apart_and_fit_whole_names() {
        for (pattern, fitting, other) in [
            ("orders", "orders", "orders2"),
            ("orders-*", "orders-1", "new-orders-1"),
            ("a.?", "a.b", "axb"),
            ("{a,bc}-[0-9]", "bc-7", "b-7"),
            ("[!a]*", "b", "ab"),
            (r"/orders-\d+/", "orders-12", "orders-12a"),
            ("/a|b/", "b", "ab"),
        ] {
            let parsed: NamePattern = pattern.parse().unwrap();
            assert!(parsed.fits(fitting), "{pattern} {fitting}");
            assert!(!parsed.fits(other), "{pattern} {other}");
            assert_eq!(parsed.to_string(), pattern);
        }
        let error = "/a(/".parse::<NamePattern>().unwrap_err();
        assert!(error.starts_with("/a(/: "), "{error}");
        let error = "".parse::<NamePattern>().unwrap_err();
        assert_eq!(error, "found an empty name, expected a name or a pattern");
    }
}
