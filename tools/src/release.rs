//! Which release of Apache Kafka a broker is like, by the APIs that it serves.
//!
//! Source: `ApiKeys.java` and the message definitions of the releases.

use std::collections::HashMap;
use std::ops::RangeInclusive;

/// API key, version, and the first release that served it; the newest first.
const FIRST: [(i16, i16, &str); 16] = [
    (1, 15, "3.5"),
    (1, 13, "3.1"),
    (2, 7, "3.0"),
    (2, 6, "2.8"),
    (1, 12, "2.7"),
    (48, 0, "2.6"),
    (45, 0, "2.4"),
    (44, 0, "2.3"),
    (43, 0, "2.2"),
    (1, 10, "2.1"),
    (1, 8, "2.0"),
    (38, 0, "1.1"),
    (34, 0, "1.0"),
    (21, 0, "0.11"),
    (19, 0, "0.10.1"),
    (18, 0, "0.10.0"),
];

/// The newest release all of whose signs are there.
pub(crate) fn release_like(versions: &HashMap<i16, RangeInclusive<i16>>) -> Option<&'static str> {
    let serves = |key: i16, version: i16| versions.get(&key).is_some_and(|served| *served.end() >= version);
    let row = FIRST.iter().find(|(key, version, _)| serves(*key, *version))?;
    Some(row.2)
}

#[cfg(test)]
mod tests {
    use milena_server::protocol::ApiKey;

    use super::*;

    #[test]
    fn a_release_is_known_by_the_apis_that_were_new_in_it() {
        let ours = ApiKey::ALL.iter().map(|key| (key.id(), key.defined_versions()));
        assert_eq!(release_like(&ours.collect()), Some("2.7"));
        let old = |keys: RangeInclusive<i16>, fetch: i16| {
            let mut versions: HashMap<_, _> = keys.map(|key| (key, 0..=0)).collect();
            versions.insert(1, 0..=fetch);
            release_like(&versions)
        };
        assert_eq!(old(0..=18, 2), Some("0.10.0"));
        assert_eq!(old(0..=42, 7), Some("1.1"));
        assert_eq!(old(0..=42, 8), Some("2.0"));
        assert_eq!(old(0..=43, 10), Some("2.2"));
        assert_eq!(release_like(&HashMap::new()), None);
    }
}
