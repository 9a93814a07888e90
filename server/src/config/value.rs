//! One value of a setting: from text and back, as `ConfigDef.parseType` and `ConfigDef.convertToString` do
//! it.
//!
//! Values are trimmed, lists are cut at commas with the blanks around them, booleans are `true` or `false` in
//! any case. [`Value::canonical`] prints what Kafka prints, so that DescribeConfigs answers the same text.

use super::ConfigError;

/// Kafka's types of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    Boolean,
    String,
    Int,
    Short,
    Long,
    Double,
    List,
    Class,
    Password,
}

impl ValueType {
    /// Kafka's name of the type, as in its messages.
    pub const fn name(self) -> &'static str {
        match self {
            ValueType::Boolean => "BOOLEAN",
            ValueType::String => "STRING",
            ValueType::Int => "INT",
            ValueType::Short => "SHORT",
            ValueType::Long => "LONG",
            ValueType::Double => "DOUBLE",
            ValueType::List => "LIST",
            ValueType::Class => "CLASS",
            ValueType::Password => "PASSWORD",
        }
    }

    /// For people.
    pub(super) const fn described(self) -> &'static str {
        match self {
            ValueType::Boolean => "true or false",
            ValueType::String => "a text",
            ValueType::Int => "a 32-bit integer",
            ValueType::Short => "a 16-bit integer",
            ValueType::Long => "a 64-bit integer",
            ValueType::Double => "a number",
            ValueType::List => "a list separated by commas",
            ValueType::Class => "a class name",
            ValueType::Password => "a password",
        }
    }
}

/// A parsed value. Integers of every width are one variant: their width was checked.
#[derive(Clone, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    Integer(i64),
    Double(f64),
    /// Strings and class names.
    Text(String),
    List(Vec<String>),
    Password(String),
}

/// Passwords are not shown.
impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Value {
    /// The value of `text` as `value_type`.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with Kafka's words: `Invalid value abc for configuration x: Not a number of
    /// type LONG`.
    pub fn parse(name: &str, text: &str, value_type: ValueType) -> Result<Value, ConfigError> {
        let trimmed = java_trim(text);
        let not_a_number = || {
            ConfigError::value(
                name,
                text.to_owned(),
                format!("Not a number of type {}", value_type.name()),
            )
        };
        let integer = |least: i64, most: i64| match trimmed.parse::<i64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(Value::Integer(number)),
            _ => Err(not_a_number()),
        };
        match value_type {
            ValueType::Boolean if trimmed.eq_ignore_ascii_case("true") => Ok(Value::Boolean(true)),
            ValueType::Boolean if trimmed.eq_ignore_ascii_case("false") => Ok(Value::Boolean(false)),
            ValueType::Boolean => Err(ConfigError::value(
                name,
                text.to_owned(),
                "Expected value to be either true or false".to_owned(),
            )),
            ValueType::String | ValueType::Class => Ok(Value::Text(trimmed.to_owned())),
            ValueType::Password => Ok(Value::Password(trimmed.to_owned())),
            ValueType::Short => integer(i16::MIN.into(), i16::MAX.into()),
            ValueType::Int => integer(i32::MIN.into(), i32::MAX.into()),
            ValueType::Long => integer(i64::MIN, i64::MAX),
            ValueType::Double => parse_java_double(trimmed)
                .map(Value::Double)
                .ok_or_else(not_a_number),
            ValueType::List if trimmed.is_empty() => Ok(Value::List(Vec::new())),
            ValueType::List => Ok(Value::List(
                trimmed.split(',').map(|item| item.trim().to_owned()).collect(),
            )),
        }
    }

    /// What DescribeConfigs answers; `None` for null. Passwords are in it: check the definition's
    /// sensitivity.
    pub fn canonical(&self) -> Option<String> {
        match self {
            Value::Null => None,
            Value::Boolean(value) => Some(value.to_string()),
            Value::Integer(value) => Some(value.to_string()),
            Value::Double(value) => Some(java_double_text(*value)),
            Value::Text(value) | Value::Password(value) => Some(value.clone()),
            Value::List(items) => Some(items.join(",")),
        }
    }

    /// The value as Kafka prints it in messages: lists in brackets, passwords hidden.
    pub(super) fn shown(&self) -> String {
        match self {
            Value::Null => "null".to_owned(),
            Value::List(items) => format!("[{}]", items.join(", ")),
            Value::Password(_) => "[hidden]".to_owned(),
            other => other.canonical().unwrap_or_default(),
        }
    }

    /// For limits; not a number for what is none.
    pub(super) fn as_f64(&self) -> f64 {
        match self {
            Value::Integer(value) => *value as f64,
            Value::Double(value) => *value,
            _ => f64::NAN,
        }
    }
}

/// `String.trim`: everything up to and including the space, at both ends.
fn java_trim(text: &str) -> &str {
    text.trim_matches(|char| char <= ' ')
}

/// `Double.parseDouble`, without its hexadecimal form.
fn parse_java_double(text: &str) -> Option<f64> {
    match text.trim_start_matches(['+', '-']) {
        "NaN" => return Some(f64::NAN),
        "Infinity" if text.starts_with('-') => return Some(f64::NEG_INFINITY),
        "Infinity" => return Some(f64::INFINITY),
        _ => {}
    }
    let digits = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    if !digits.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// `Double.toString`: `0.5`, `1.0`, `1.0E10`, `1.7976931348623157E308`.
fn java_double_text(value: f64) -> String {
    let magnitude = value.abs();
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 {
            "Infinity".to_owned()
        } else {
            "-Infinity".to_owned()
        }
    } else if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        format!("{value:?}")
    } else {
        let text = format!("{value:E}");
        match text.split_once('E') {
            Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0E{exponent}"),
            _ => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_printed_as_kafka_does() {
        let cases = [
            (ValueType::Boolean, " TRUE ", "true"),
            (ValueType::Int, "+5", "5"),
            (ValueType::Int, " -2147483648\t", "-2147483648"),
            (ValueType::Long, "9223372036854775807", "9223372036854775807"),
            (ValueType::Double, "1", "1.0"),
            (ValueType::Double, "0.50", "0.5"),
            (ValueType::Double, ".5f", "0.5"),
            (ValueType::Double, "1e10", "1.0E10"),
            (ValueType::Double, "0.0001", "1.0E-4"),
            (
                ValueType::Double,
                "1.7976931348623157E308",
                "1.7976931348623157E308",
            ),
            (ValueType::Double, "9999999", "9999999.0"),
            (ValueType::Double, "10000000", "1.0E7"),
            (ValueType::List, " a , b,c ", "a,b,c"),
            (ValueType::List, "a,,b,", "a,,b,"),
            (ValueType::List, "  ", ""),
            (ValueType::String, "  x y ", "x y"),
        ];
        for (value_type, text, expected) in cases {
            let value = Value::parse("k", text, value_type).unwrap();
            assert_eq!(value.canonical().as_deref(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_value_of_the_type_is_refused_in_kafkas_words() {
        let cases = [
            (
                ValueType::Long,
                "abc",
                "Invalid value abc for configuration retention.ms: Not a number of type LONG",
            ),
            (
                ValueType::Long,
                "",
                "Invalid value  for configuration retention.ms: Not a number of type LONG",
            ),
            (
                ValueType::Int,
                "2147483648",
                "Invalid value 2147483648 for configuration retention.ms: Not a number of type INT",
            ),
            (
                ValueType::Short,
                "40000",
                "Invalid value 40000 for configuration retention.ms: Not a number of type SHORT",
            ),
            (
                ValueType::Double,
                "inf",
                "Invalid value inf for configuration retention.ms: Not a number of type DOUBLE",
            ),
            (
                ValueType::Double,
                "1,5",
                "Invalid value 1,5 for configuration retention.ms: Not a number of type DOUBLE",
            ),
            (
                ValueType::Boolean,
                "yes",
                "Invalid value yes for configuration retention.ms: Expected value to be either true or false",
            ),
        ];
        for (value_type, text, expected) in cases {
            assert_eq!(
                Value::parse("retention.ms", text, value_type)
                    .unwrap_err()
                    .to_string(),
                expected
            );
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let value = Value::parse("k", "secret", ValueType::Password).unwrap();
        assert_eq!(format!("{value:?}"), "[hidden]");
    }
}
