//! Kafka's releases as the values of `inter.broker.protocol.version` and `message.format.version` name them.
//!
//! The order is that of `ApiVersion.scala`: 31 versions from 0.8.0 to 2.7-IV2.

use std::fmt;

use milena_engine::config::Magic;

/// One version of the protocol between brokers; later is larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion(u8);

/// (short name, sub-version; empty before 0.10.0)
const VERSIONS: [(&str, &str); 31] = [
    ("0.8.0", ""),
    ("0.8.1", ""),
    ("0.8.2", ""),
    ("0.9.0", ""),
    ("0.10.0", "IV0"),
    ("0.10.0", "IV1"),
    ("0.10.1", "IV0"),
    ("0.10.1", "IV1"),
    ("0.10.1", "IV2"),
    ("0.10.2", "IV0"),
    ("0.11.0", "IV0"),
    ("0.11.0", "IV1"),
    ("0.11.0", "IV2"),
    ("1.0", "IV0"),
    ("1.1", "IV0"),
    ("2.0", "IV0"),
    ("2.0", "IV1"),
    ("2.1", "IV0"),
    ("2.1", "IV1"),
    ("2.1", "IV2"),
    ("2.2", "IV0"),
    ("2.2", "IV1"),
    ("2.3", "IV0"),
    ("2.3", "IV1"),
    ("2.4", "IV0"),
    ("2.4", "IV1"),
    ("2.5", "IV0"),
    ("2.6", "IV0"),
    ("2.7", "IV0"),
    ("2.7", "IV1"),
    ("2.7", "IV2"),
];

impl ApiVersion {
    /// 2.7-IV2
    pub const LATEST: ApiVersion = ApiVersion(VERSIONS.len() as u8 - 1);
    /// The first with record timestamps (format v1).
    pub const V0_10_0_IV0: ApiVersion = ApiVersion(4);
    /// The first whose brokers register with the names of their listeners.
    pub const V0_10_0_IV1: ApiVersion = ApiVersion(5);
    /// The first with idempotence and headers (format v2).
    pub const V0_11_0_IV0: ApiVersion = ApiVersion(10);
    /// The first whose followers ask where a leader epoch ends.
    pub const V0_11_0_IV2: ApiVersion = ApiVersion(12);
    /// The first with versioned features.
    pub const V2_7_IV0: ApiVersion = ApiVersion(28);

    /// From a full name (`2.7-IV2`) or a release (`2.7`, `2.7.2`, `0.10.2.1`), which means its last
    /// sub-version. Only the first two segments count, three of a name that begins with `0.`.
    pub fn parse(text: &str) -> Option<ApiVersion> {
        let count = if text.starts_with("0.") { 3 } else { 2 };
        let key = text.split('.').take(count).collect::<Vec<_>>().join(".");
        let found = VERSIONS.iter().rposition(|(short, sub)| {
            key == *short
                || key
                    .strip_prefix(short)
                    .and_then(|rest| rest.strip_prefix('-'))
                    .is_some_and(|rest| rest == *sub && !sub.is_empty())
        });
        found.map(|index| ApiVersion(index as u8))
    }

    /// `2.7` of `2.7-IV2`
    pub fn short_version(self) -> &'static str {
        VERSIONS[self.0 as usize].0
    }

    /// The newest record format that this version knows.
    pub fn magic(self) -> Magic {
        if self >= ApiVersion::V0_11_0_IV0 {
            Magic::V2
        } else if self >= ApiVersion::V0_10_0_IV0 {
            Magic::V1
        } else {
            Magic::V0
        }
    }

    /// The oldest version that knows this record format.
    pub fn min_supported_for(magic: Magic) -> ApiVersion {
        match magic {
            Magic::V0 => ApiVersion(0),
            Magic::V1 => ApiVersion::V0_10_0_IV0,
            Magic::V2 => ApiVersion::V0_11_0_IV0,
        }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match VERSIONS[self.0 as usize] {
            (short, "") => f.write_str(short),
            (short, sub) => write!(f, "{short}-{sub}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_and_full_names_are_found_and_others_are_not() {
        let cases = [
            ("2.7", Some("2.7-IV2")),
            ("2.7.2", Some("2.7-IV2")),
            ("2.7-IV0", Some("2.7-IV0")),
            ("0.10.0", Some("0.10.0-IV1")),
            ("0.10.2.1", Some("0.10.2-IV0")),
            ("0.9.0", Some("0.9.0")),
            ("0.9.0.1", Some("0.9.0")),
            ("1.0", Some("1.0-IV0")),
            ("2", None),
            ("0.9", None),
            ("0.9.0-", None),
            ("2.8", None),
            ("2.7-IV9", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(
                ApiVersion::parse(text)
                    .map(|version| version.to_string())
                    .as_deref(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn record_formats_begin_with_0_10_and_0_11() {
        let magic = |text| ApiVersion::parse(text).unwrap().magic();
        assert_eq!(
            [
                magic("0.9.0"),
                magic("0.10.0"),
                magic("0.10.2"),
                magic("0.11.0"),
                magic("2.7")
            ],
            [Magic::V0, Magic::V1, Magic::V1, Magic::V2, Magic::V2]
        );
    }
}
