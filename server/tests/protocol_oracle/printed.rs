//! Values of both codecs, compared by what `{:?}` prints of them, field by field and by name.
//!
//! What the judge cannot say: Kafka has renamed fields and structs since 2.7.2 (`RENAMED`), and its newer definitions allow
//! null in a few places where 2.7.2 does not. A field that is absent is compared as "nothing", be it null or empty.

use milena_server::protocol::schema::{StructSchema, TypeSchema};

/// Struct and field as 2.7.2 calls them, and the field as the judge does.
const RENAMED: &[(&str, &str, &str)] = &[
    ("ProduceRequest", "topics", "topic_data"),
    ("TopicProduceData", "partitions", "partition_data"),
    ("PartitionProduceData", "partition_index", "index"),
    ("TopicProduceResponse", "partitions", "partition_responses"),
    ("PartitionProduceResponse", "partition_index", "index"),
    ("FetchableTopicResponse", "partition_responses", "partitions"),
    ("FetchablePartitionResponse", "partition", "partition_index"),
    ("FetchablePartitionResponse", "record_set", "records"),
    (
        "OffsetCommitRequest",
        "generation_id",
        "generation_id_or_member_epoch",
    ),
    ("LeaderAndIsrPartitionState", "zk_version", "partition_epoch"),
    ("TopicPartitions", "partition_id", "partitions"),
    ("AlterIsrTopic", "name", "topic_name"),
    ("AlterIsrPartition", "current_isr_version", "partition_epoch"),
    ("AlterIsrTopicResult", "name", "topic_name"),
    (
        "AlterIsrPartitionResult",
        "current_isr_version",
        "partition_epoch",
    ),
    ("OffsetForLeaderTopic", "name", "topic"),
    ("OffsetForLeaderPartition", "partition_index", "partition"),
    ("OffsetForLeaderTopicResult", "name", "topic"),
    ("OffsetForLeaderPartitionResult", "partition_index", "partition"),
    ("DescribableLogDirTopic", "partition_index", "partitions"),
];

/// A printed value, so far as it can be compared.
#[derive(PartialEq, Debug)]
pub(super) enum Printed {
    /// Null, or empty.
    Nothing,
    Atom(String),
    List(Vec<Printed>),
    Struct(Vec<(String, Printed)>),
}

/// Reads what `{:?}` of derived implementations prints.
struct Parser<'s> {
    text: &'s str,
}

impl<'s> Parser<'s> {
    fn eat(&mut self, token: &str) -> bool {
        match self.text.strip_prefix(token) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    /// The inside of a string literal that has been opened, escapes as they are.
    fn literal(&mut self) -> &'s str {
        let mut escaped = false;
        let end = self.text.find(|c| {
            let end = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            end
        });
        let (inside, rest) = self.text.split_at(end.expect("a string literal ends"));
        self.text = &rest[1..];
        inside
    }

    fn value(&mut self) -> Printed {
        if self.eat("b\"") {
            let bytes = unescape(self.literal());
            return list(bytes.iter().map(|byte| Printed::Atom(byte.to_string())).collect());
        }
        if self.eat("\"") {
            let text = self.literal();
            return if text.is_empty() {
                Printed::Nothing
            } else {
                Printed::Atom(text.to_owned())
            };
        }
        if self.eat("[") {
            let mut elements = Vec::new();
            while !self.eat("]") {
                elements.push(self.value());
                self.eat(", ");
            }
            return list(elements);
        }
        if self.eat("{}") {
            return Printed::Nothing;
        }
        let end = self
            .text
            .find([',', ' ', ')', ']', '}', '('])
            .unwrap_or(self.text.len());
        let (word, rest) = self.text.split_at(end);
        self.text = rest;
        if self.eat("(") {
            // `Some`, or a newtype.
            let inner = self.value();
            assert!(self.eat(")"), "more than one value in {word}");
            return inner;
        }
        if self.eat(" { ") {
            let mut fields = Vec::new();
            while !self.eat(" }") {
                let colon = self.text.find(": ").expect("a field has a name");
                let name = self.text[..colon].to_owned();
                self.text = &self.text[colon + 2..];
                fields.push((name, self.value()));
                self.eat(", ");
            }
            return Printed::Struct(fields);
        }
        match word {
            "None" | "Null" => Printed::Nothing,
            _ => Printed::Atom(word.to_owned()),
        }
    }
}

fn list(elements: Vec<Printed>) -> Printed {
    if elements.is_empty() {
        Printed::Nothing
    } else {
        Printed::List(elements)
    }
}

/// The bytes of a byte string literal as the crate `bytes` prints it.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chars = text.bytes();
    while let Some(byte) = chars.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match chars.next().expect("an escape has a letter") {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'0' => 0,
            b'x' => {
                let digits = [chars.next(), chars.next()].map(|digit| digit.expect("two digits") as char);
                u8::from_str_radix(&String::from_iter(digits), 16).expect("hexadecimal digits")
            }
            other => other,
        });
    }
    bytes
}

pub(super) fn parse(text: &str) -> Printed {
    let mut parser = Parser { text };
    let value = parser.value();
    assert_eq!(parser.text, "", "unread");
    value
}

/// Compares a value of ours, whose type is known, with the judge's, field by field.
pub(super) fn compare(of: &StructSchema, ours: &Printed, theirs: &Printed, path: &str) {
    let (Printed::Struct(mine), Printed::Struct(others)) = (ours, theirs) else {
        assert_eq!(ours, theirs, "{path}");
        return;
    };
    for field in of.fields {
        let path = format!("{path}.{}", field.name);
        let renamed = RENAMED
            .iter()
            .find(|(name, old, _)| *name == of.name && *old == field.name);
        let their_name = renamed.map_or(field.name, |(_, _, new)| new);
        let find = |fields: &'_ [(String, Printed)], name: &str| fields.iter().position(|(n, _)| n == name);
        let mine = &mine[find(mine, field.name).expect("our own field")].1;
        let Some(position) = find(others, their_name) else {
            panic!("{path}: the judge has no {their_name}")
        };
        compare_values(&field.field_type, mine, &others[position].1, &path);
    }
}

fn compare_values(of: &TypeSchema, ours: &Printed, theirs: &Printed, path: &str) {
    match (of, ours, theirs) {
        (TypeSchema::Nullable(of), _, _) => compare_values(of, ours, theirs, path),
        (TypeSchema::Struct(of), _, _) => compare(of, ours, theirs, path),
        (TypeSchema::Array(element), Printed::List(mine), Printed::List(others)) => {
            assert_eq!(mine.len(), others.len(), "{path}");
            for (mine, other) in mine.iter().zip(others) {
                compare_values(element, mine, other, path);
            }
        }
        _ => assert_eq!(ours, theirs, "{path}"),
    }
}
