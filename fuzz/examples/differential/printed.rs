//! A message as `{:?}` prints it, said again in the words of `Judge.java`: only the fields that the version has, those
//! in line first, a tagged one only if it says something.

use milena_server::protocol::schema::{Encoding, StructSchema, TypeSchema};

use crate::ours::{bytes, string};

/// Struct and field as Kafka's definitions name them, and the field as the schemas do that 2.7.2 still has by hand.
const BY_HAND: &[(&str, &str, &str)] = &[
    ("ProduceRequest", "timeout_ms", "timeout"),
    ("ProduceRequest", "topics", "topic_data"),
    ("TopicProduceData", "name", "topic"),
    ("TopicProduceData", "partitions", "data"),
    ("PartitionProduceData", "partition_index", "partition"),
    ("PartitionProduceData", "records", "record_set"),
    ("TopicProduceResponse", "name", "topic"),
    ("TopicProduceResponse", "partitions", "partition_responses"),
    ("PartitionProduceResponse", "partition_index", "partition"),
    (
        "PartitionProduceResponse",
        "log_append_time_ms",
        "log_append_time",
    ),
    ("OffsetForLeaderTopic", "name", "topic"),
    ("OffsetForLeaderPartition", "partition_index", "partition"),
    ("OffsetForLeaderTopicResult", "name", "topic"),
    ("OffsetForLeaderPartitionResult", "partition_index", "partition"),
];

pub(crate) fn rendered(of: &StructSchema, encoding: Encoding, printed: &str) -> String {
    let mut printed = Printed {
        text: printed,
        encoding,
    };
    let mut out = String::new();
    printed.fields(of, &mut out);
    assert_eq!(printed.text, "", "unread");
    out
}

struct Printed<'s> {
    text: &'s str,
    encoding: Encoding,
}

impl<'s> Printed<'s> {
    fn eat(&mut self, token: &str) -> bool {
        match self.text.strip_prefix(token) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) {
        assert!(self.eat(token), "expected {token:?} at {:?}", self.text);
    }

    fn word(&mut self) -> &'s str {
        let end = self
            .text
            .find([',', ' ', ')', ']', '}'])
            .unwrap_or(self.text.len());
        let (word, rest) = self.text.split_at(end);
        self.text = rest;
        word
    }

    fn value(&mut self, of: &TypeSchema, out: &mut String) {
        match of {
            TypeSchema::Nullable(of) => {
                if self.eat("None") || self.eat("Null") {
                    out.push('-');
                } else if self.eat("Some(") || self.eat("Bytes(") {
                    self.value(of, out);
                    self.expect(")");
                } else {
                    self.value(of, out);
                }
            }
            TypeSchema::Bool
            | TypeSchema::Int8
            | TypeSchema::Int16
            | TypeSchema::Int32
            | TypeSchema::Int64 => {
                out.push_str(self.word());
            }
            TypeSchema::String => {
                let text = self.literal();
                string(out, Some(&text));
            }
            TypeSchema::Bytes | TypeSchema::Records => {
                self.expect("[");
                let mut content = Vec::new();
                while !self.eat("]") {
                    content.push(self.word().parse().expect("a byte"));
                    self.eat(", ");
                }
                bytes(out, Some(&content));
            }
            TypeSchema::Array(element) => {
                self.expect("[");
                out.push('[');
                let mut is_first = true;
                while !self.eat("]") {
                    out.push_str(if is_first { "" } else { " " });
                    is_first = false;
                    self.value(element, out);
                    self.eat(", ");
                }
                out.push(']');
            }
            TypeSchema::Struct(of) => self.fields(of, out),
        }
    }

    fn fields(&mut self, of: &StructSchema, out: &mut String) {
        self.expect(of.name);
        let mut in_line = Vec::new();
        let mut tagged = Vec::new();
        if !of.fields.is_empty() {
            self.expect(" { ");
            for field in of.fields {
                self.expect(field.name);
                self.expect(": ");
                let by_hand = BY_HAND
                    .iter()
                    .find(|(name, ours, _)| *name == of.name && *ours == field.name);
                let mut text = format!("{}=", by_hand.map_or(field.name, |(.., theirs)| theirs));
                let start = text.len();
                self.value(&field.field_type, &mut text);
                self.eat(", ");
                if field.rule.in_line(self.encoding.version) {
                    in_line.push(text);
                } else if field.rule.tagged(self.encoding) && !says_nothing(&text[start..]) {
                    tagged.push((field.rule.tag, text));
                }
            }
            self.expect(" }");
        }
        tagged.sort();
        in_line.extend(tagged.into_iter().map(|(_, text)| text));
        out.push('{');
        out.push_str(&in_line.join(" "));
        out.push('}');
    }

    /// A string literal without its escapes.
    fn literal(&mut self) -> String {
        self.expect("\"");
        let mut text = String::new();
        let mut chars = self.text.chars();
        while let Some(char) = chars.next() {
            match char {
                '"' => break,
                '\\' => text.push(match chars.next().expect("an escape has a letter") {
                    't' => '\t',
                    'n' => '\n',
                    'r' => '\r',
                    '0' => '\0',
                    'u' => {
                        let digits: String = chars.by_ref().skip(1).take_while(|char| *char != '}').collect();
                        let code = u32::from_str_radix(&digits, 16).ok();
                        code.and_then(char::from_u32).expect("a character")
                    }
                    other => other,
                }),
                other => text.push(other),
            }
        }
        self.text = chars.as_str();
        text
    }
}

/// As `saysNothing` in `Judge.java`.
fn says_nothing(text: &str) -> bool {
    let fields = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    match fields {
        Some(fields) => fields
            .split(' ')
            .all(|field| ["=-1", "=0", "=-", "=[]"].iter().any(|end| field.ends_with(end))),
        None => ["-", "-1", "0", "[]"].contains(&text),
    }
}
