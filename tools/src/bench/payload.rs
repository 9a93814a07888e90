//! What stands in the records: letters by chance, made-up events in JSON, or the lines of a file; keys out of a given
//! number of them.
//!
//! A seed makes the same records again. As in Kafka's `ProducerPerformance`, a value is of capital letters, and a file is
//! cut at its newlines.

use std::path::Path;
use std::sync::Arc;

use crate::small_file;

/// The lines are kept in memory.
const PAYLOAD_SIZE_MAX_BYTES: u64 = 1 << 30;

/// Numbers by chance, the same for the same seed (xorshift64*).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

/// What a scenario says of its records.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) values: Values,
    /// How many different keys there are, and the bytes of each; none: null keys.
    pub(crate) keys: Option<(u64, usize)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Values {
    Letters {
        size: usize,
    },
    /// Events that a codec makes about as much smaller as those of real shops.
    Json {
        size: usize,
    },
    /// In this order, again and again.
    Lines(Arc<Vec<Vec<u8>>>),
}

impl Values {
    /// The lines of a file.
    ///
    /// # Errors
    /// Says why there are none.
    pub(crate) fn of_file(path: &Path) -> Result<Values, String> {
        let text = small_file::read(path, PAYLOAD_SIZE_MAX_BYTES)?;
        let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let lines: Vec<Vec<u8>> = lines.map(<[u8]>::to_vec).collect();
        if lines.is_empty() {
            return Err(format!(
                "{}: found no line, expected one value a line",
                path.display()
            ));
        }
        Ok(Values::Lines(Arc::new(lines)))
    }

    /// Bytes of a value, on average.
    pub(crate) fn mean_size(&self) -> f64 {
        match self {
            Values::Letters { size } | Values::Json { size } => *size as f64,
            Values::Lines(lines) => {
                let bytes: usize = lines.iter().map(Vec::len).sum();
                bytes as f64 / lines.len() as f64
            }
        }
    }

    pub(crate) fn largest_size(&self) -> usize {
        match self {
            Values::Letters { size } | Values::Json { size } => *size,
            Values::Lines(lines) => lines.iter().map(Vec::len).max().unwrap_or(0),
        }
    }
}

/// Makes one record after the other.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    recipe: Recipe,
    chance: Chance,
    line: usize,
}

impl Payload {
    pub(crate) fn new(recipe: Recipe, seed: u64) -> Payload {
        let mut chance = Chance::new(seed + 1);
        let line = chance.next() as usize;
        Payload { recipe, chance, line }
    }

    pub(crate) fn value(&mut self) -> Vec<u8> {
        match &self.recipe.values {
            Values::Letters { size } => {
                let letter = |_| b'A' + self.chance.below(26) as u8;
                (0..*size).map(letter).collect()
            }
            Values::Json { size } => event(&mut self.chance, *size),
            Values::Lines(lines) => {
                self.line = (self.line + 1) % lines.len();
                lines[self.line].clone()
            }
        }
    }

    pub(crate) fn key(&mut self) -> Option<Vec<u8>> {
        let (count, size) = self.recipe.keys?;
        let number = self.chance.below(count).to_string();
        let mut key = vec![b'0'; size.saturating_sub(number.len())];
        key.extend_from_slice(number.as_bytes());
        Some(key)
    }
}

const WORDS: [&str; 18] = [
    "order",
    "payment",
    "shipped",
    "pending",
    "checkout",
    "mobile",
    "desktop",
    "europe",
    "customer",
    "retry",
    "gateway",
    "timeout",
    "success",
    "invoice",
    "warehouse",
    "priority",
    "standard",
    "express",
];

/// An event of exactly so many bytes; what is too small for one is cut off.
fn event(chance: &mut Chance, size: usize) -> Vec<u8> {
    let word = |chance: &mut Chance| WORDS[chance.below(WORDS.len() as u64) as usize];
    let mut text = format!(
        "{{\"id\":\"{:016x}{:016x}\",\"ts\":{},\"user\":{},\"type\":\"{}\",\"region\":\"{}\",\"items\":[",
        chance.next(),
        chance.next(),
        1_700_000_000_000 + chance.below(1 << 30),
        chance.below(10_000_000),
        word(chance),
        word(chance)
    );
    let mut comma = "";
    while text.len() + 70 < size {
        text += &format!(
            "{comma}{{\"sku\":\"SKU-{:06}\",\"qty\":{},\"note\":\"{}\"}}",
            chance.below(1_000_000),
            chance.below(9),
            word(chance)
        );
        comma = ",";
    }
    text += "],\"p\":\"";
    while text.len() + 2 < size {
        text.push('x');
    }
    text += "\"}";
    text.truncate(size);
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_records_and_another_seed_others() {
        let recipe = Recipe {
            values: Values::Letters { size: 32 },
            keys: Some((10, 8)),
        };
        let made = |seed| {
            let mut payload = Payload::new(recipe.clone(), seed);
            (payload.value(), payload.key(), payload.value())
        };
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
        let (value, key, _) = made(3);
        assert!(value.len() == 32 && value.iter().all(u8::is_ascii_uppercase));
        assert_eq!(key.unwrap().len(), 8);
    }

    #[test]
    fn events_are_json_of_the_size_that_was_asked_for() {
        let mut chance = Chance::new(3);
        for size in [256, 1024, 5000] {
            let event = event(&mut chance, size);
            assert_eq!(event.len(), size);
            let value: serde_json::Value = serde_json::from_slice(&event).unwrap();
            assert!(value["items"].as_array().unwrap().len() > size / 150);
        }
        assert_eq!(event(&mut chance, 20).len(), 20);
    }

    #[test]
    fn keys_are_of_the_number_that_was_asked_for() {
        let recipe = Recipe {
            values: Values::Letters { size: 1 },
            keys: Some((5, 2)),
        };
        let mut payload = Payload::new(recipe, 0);
        let keys: std::collections::BTreeSet<_> = (0..200).map(|_| payload.key().unwrap()).collect();
        assert_eq!(keys.len(), 5);
        assert!(keys.contains(&b"04"[..]));
    }

    #[test]
    fn lines_follow_one_another_and_begin_again() {
        let recipe = Recipe {
            values: Values::Lines(Arc::new(vec![b"a".to_vec(), b"bcd".to_vec()])),
            keys: None,
        };
        assert_eq!(recipe.values.mean_size(), 2.0);
        let mut payload = Payload::new(recipe, 0);
        let (first, second) = (payload.value(), payload.value());
        assert_ne!(first, second);
        assert_eq!(payload.value(), first);
        assert_eq!(payload.key(), None);
    }

    #[test]
    fn a_file_without_values_is_refused_by_name() {
        let error = Values::of_file(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.starts_with("/nowhere/at/all: "), "{error}");
    }
}
