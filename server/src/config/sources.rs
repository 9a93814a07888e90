//! Where each value comes from: the layers of a broker's settings, and which of them wins.
//!
//! A value of `/config/brokers/{id}` wins over one of `/config/brokers/<default>`, that over what the broker
//! was started with (`--override`, environment, file, in this order), that over the default. Layers keep the
//! texts as they were given; a text that no layer has is never invented.

use std::collections::{BTreeMap, HashMap};

use super::ConfigError;
use super::definition::{Definition, broker_definition, broker_definitions, broker_synonyms};
use super::load::Place;
use super::value::Value;

/// A text and where it was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stated {
    pub(super) text: String,
    pub(super) place: Place,
}

/// All layers of one broker.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    /// What the broker was started with, unknown keys included.
    pub(super) fixed: BTreeMap<String, Stated>,
    /// Defaults of ours where they differ from Kafka's, each for a reason told where it is put in.
    pub(super) own_defaults: BTreeMap<&'static str, String>,
    pub(super) cluster_default: BTreeMap<String, String>,
    pub(super) per_broker: BTreeMap<String, String>,
}

impl Sources {
    /// The winning text of a setting, unless it is the default.
    pub(super) fn stated(&self, name: &str) -> Option<&str> {
        self.per_broker
            .get(name)
            .or_else(|| self.cluster_default.get(name))
            .map(String::as_str)
            .or_else(|| self.fixed.get(name).map(|stated| stated.text.as_str()))
    }

    /// Every key that any layer but the defaults has; several times if several have it.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let dynamic = self.cluster_default.keys().chain(self.per_broker.keys());
        self.fixed.keys().chain(dynamic).map(String::as_str)
    }

    pub(super) fn is_stated(&self, name: &str) -> bool {
        self.stated(name).is_some()
    }

    /// The default of a setting, as text.
    pub(super) fn default_text(&self, name: &str) -> Option<&str> {
        match self.own_defaults.get(name) {
            Some(text) => Some(text),
            None => broker_definition(name).and_then(|definition| definition.default),
        }
    }

    /// Where a setting was given, for messages.
    pub(super) fn place(&self, name: &str) -> Option<&Place> {
        self.fixed.get(name).map(|stated| &stated.place)
    }

    /// Parses every known setting. Wrong values are handed to `wrong` and replaced by the default, so that
    /// all are found at once; the values are only to be used if there was none.
    pub(super) fn values(&self, mut wrong: impl FnMut(&'static Definition, ConfigError)) -> Values {
        let parsed = broker_definitions().map(|definition| {
            let value = match self
                .stated(definition.name)
                .or_else(|| self.default_text(definition.name))
            {
                None => Value::Null,
                Some(text) => definition.parse(text).unwrap_or_else(|error| {
                    wrong(definition, error);
                    definition.default_value()
                }),
            };
            (definition.name, value)
        });
        Values(parsed.collect())
    }
}

/// Every known broker setting, parsed. Asking for a name or a type that the table has not is a mistake of
/// this program.
#[derive(Clone, Debug)]
pub(super) struct Values(HashMap<&'static str, Value>);

impl Values {
    pub(super) fn get(&self, name: &str) -> &Value {
        self.0
            .get(name)
            .expect("only names of the table are asked for, as the tests of every reader show")
    }

    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Value::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// An integer that has a default, and so is never null.
    pub(super) fn i64(&self, name: &str) -> i64 {
        self.integer(name).expect("an integer with a default")
    }

    pub(super) fn i32(&self, name: &str) -> i32 {
        i32::try_from(self.i64(name)).expect("its type is INT or SHORT")
    }

    /// An integer whose limits exclude negative values.
    pub(super) fn u32(&self, name: &str) -> u32 {
        u32::try_from(self.i64(name)).expect("its limits exclude negative values")
    }

    pub(super) fn boolean(&self, name: &str) -> bool {
        matches!(self.get(name), Value::Boolean(true))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Value::Text(text) | Value::Password(text) => Some(text),
            _ => None,
        }
    }

    /// Empty where nothing is set.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        match self.get(name) {
            Value::List(values) => values.clone(),
            _ => Vec::new(),
        }
    }

    /// The first synonym that is set decides, in milliseconds: `log.retention.ms`, `.minutes`, `.hours`.
    pub(super) fn milliseconds(&self, name: &'static str) -> i64 {
        for synonym in broker_synonyms(name) {
            let unit = if synonym.ends_with(".hours") {
                3_600_000
            } else if synonym.ends_with(".minutes") {
                60_000
            } else {
                1
            };
            if let Some(value) = self.integer(synonym) {
                return value.saturating_mul(unit);
            }
        }
        unreachable!("the last synonym of {name} has a default")
    }
}
