//! The operations of IncrementalAlterConfigs: set, delete, and for lists append and subtract.
//!
//! Pure: old settings and operations give new settings, which are still to be checked as a whole. Behaviour of
//! `AdminManager.prepareIncrementalConfigs`, in its words.

use std::collections::BTreeMap;

use super::ConfigError;
use super::definition::{Definition, topic_definition};
use super::value::ValueType;

/// What IncrementalAlterConfigs does to one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlterOperationType {
    Set,
    Delete,
    Append,
    Subtract,
}

impl AlterOperationType {
    /// From the wire: 0 to 3.
    pub const fn from_id(id: i8) -> Option<AlterOperationType> {
        match id {
            0 => Some(AlterOperationType::Set),
            1 => Some(AlterOperationType::Delete),
            2 => Some(AlterOperationType::Append),
            3 => Some(AlterOperationType::Subtract),
            _ => None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            AlterOperationType::Set => "SET",
            AlterOperationType::Delete => "DELETE",
            AlterOperationType::Append => "APPEND",
            AlterOperationType::Subtract => "SUBTRACT",
        }
    }
}

/// One change of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterOperation {
    pub name: String,
    pub operation: AlterOperationType,
    pub value: Option<String>,
}

/// The settings that result from `current` by `operations`.
///
/// `definition` finds a setting by name: [`super::broker_definition`], or a topic's.
///
/// # Errors
/// [`ConfigError::InvalidRequest`], and [`ConfigError::UnknownTopicConfig`] for appending to a setting that
/// nobody knows.
pub fn apply_operations(
    current: &BTreeMap<String, String>,
    operations: &[AlterOperation],
    definition: impl Fn(&str) -> Option<&'static Definition>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let invalid = |message: String| Err(ConfigError::InvalidRequest { message });
    let mut duplicates: Vec<&str> = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        let again = operations[..index]
            .iter()
            .any(|earlier| earlier.name == operation.name);
        if again && !duplicates.contains(&operation.name.as_str()) {
            duplicates.push(&operation.name);
        }
    }
    if !duplicates.is_empty() {
        return invalid(format!(
            "Error due to duplicate config keys : {}",
            duplicates.join(",")
        ));
    }
    let without_value = operations
        .iter()
        .filter(|change| change.value.is_none() && change.operation != AlterOperationType::Delete);
    let without_value: Vec<_> = without_value
        .map(|change| format!("{}:{}", change.operation.name(), change.name))
        .collect();
    if !without_value.is_empty() {
        return invalid(format!(
            "Null value not supported for : {}",
            without_value.join(",")
        ));
    }
    let mut settings = current.clone();
    for change in operations {
        let value = change.value.as_deref().unwrap_or_default();
        let verb = match change.operation {
            AlterOperationType::Set => {
                settings.insert(change.name.clone(), value.to_owned());
                continue;
            }
            AlterOperationType::Delete => {
                settings.remove(&change.name);
                continue;
            }
            AlterOperationType::Append => "append",
            AlterOperationType::Subtract => "subtract",
        };
        let Some(known) = definition(&change.name) else {
            return Err(ConfigError::UnknownTopicConfig {
                name: change.name.clone(),
            });
        };
        if known.value_type != ValueType::List {
            return invalid(format!(
                "Config value {verb} is not allowed for config key: {}",
                change.name
            ));
        }
        let old = settings
            .get(&change.name)
            .map(String::as_str)
            .or(known.default)
            .unwrap_or_default();
        let mut items: Vec<&str> = old.split(',').filter(|item| !item.is_empty()).collect();
        for item in value.split(',') {
            if change.operation == AlterOperationType::Append {
                items.push(item);
            } else if let Some(index) = items.iter().position(|old| *old == item) {
                items.remove(index);
            }
        }
        let joined = items.join(",");
        settings.insert(change.name.clone(), joined);
    }
    Ok(settings)
}

/// [`apply_operations`]'s way to find a topic setting.
pub fn topic_setting(name: &str) -> Option<&'static Definition> {
    topic_definition(name).map(|topic| &topic.definition)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
        BTreeMap::from(pairs.map(|(name, text)| (name.to_owned(), text.to_owned())))
    }

    fn change(name: &str, operation: AlterOperationType, value: Option<&str>) -> AlterOperation {
        AlterOperation {
            name: name.into(),
            operation,
            value: value.map(str::to_owned),
        }
    }

    #[test]
    fn lists_grow_and_shrink_and_other_settings_are_set_and_removed() {
        use AlterOperationType::{Append, Delete, Set, Subtract};
        let current = settings([
            ("retention.ms", "1"),
            ("follower.replication.throttled.replicas", "0:1,1:1"),
        ]);
        let operations = [
            change("retention.ms", Delete, None),
            change("segment.ms", Set, Some("9")),
            change("cleanup.policy", Append, Some("compact")),
            change("leader.replication.throttled.replicas", Append, Some("0:1,1:2")),
            change(
                "follower.replication.throttled.replicas",
                Subtract,
                Some("0:1,7:7"),
            ),
        ];
        assert_eq!(
            apply_operations(&current, &operations, topic_setting).unwrap(),
            settings([
                ("segment.ms", "9"),
                ("cleanup.policy", "delete,compact"),
                ("leader.replication.throttled.replicas", "0:1,1:2"),
                ("follower.replication.throttled.replicas", "1:1"),
            ])
        );
    }

    #[test]
    fn operations_that_cannot_be_are_refused_in_kafkas_words() {
        use AlterOperationType::{Append, Delete, Set, Subtract};
        let cases: &[(&[AlterOperation], &str)] = &[
            (
                &[change("a", Set, Some("1")), change("a", Delete, None)],
                "Error due to duplicate config keys : a",
            ),
            (
                &[change("a", Set, None), change("b", Delete, None)],
                "Null value not supported for : SET:a",
            ),
            (
                &[change("retention.ms", Append, Some("1"))],
                "Config value append is not allowed for config key: retention.ms",
            ),
            (
                &[change("retention.ms", Subtract, Some("1"))],
                "Config value subtract is not allowed for config key: retention.ms",
            ),
            (&[change("x", Append, Some("1"))], "Unknown topic config name: x"),
        ];
        for (operations, expected) in cases {
            let error = apply_operations(&BTreeMap::new(), operations, topic_setting).unwrap_err();
            assert_eq!(error.to_string(), *expected);
        }
    }
}
