//! Values made up from a seed, as bytes, by walking the declarations (`schema`).
//!
//! Also used by the differential test in `fuzz/examples/differential`. A third encoder, very plain, that knows nothing of the codec on trial: an error that both share would go unnoticed.

use milena_server::protocol::schema::{Encoding, FieldSchema, StructSchema, TypeSchema};

/// SplitMix64.
#[derive(Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Makes up values of a declared type and writes them down, knowing nothing of the codec.
struct Generator {
    random: Random,
    encoding: Encoding,
    /// Whether every struct gets a tagged field that nobody knows.
    unknown_tags: bool,
    out: Vec<u8>,
}

impl Generator {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn length(&mut self, length: i64, width: usize) {
        if self.encoding.flexible {
            self.varint((length + 1) as u64);
        } else {
            self.out.extend_from_slice(&length.to_be_bytes()[8 - width..]);
        }
    }

    /// A length that now and then needs a varint of two bytes.
    fn size(&mut self, empty: bool) -> usize {
        let size = match self.random.below(8) {
            0 => 0,
            1 => 100 + self.random.below(200),
            _ => 1 + self.random.below(12),
        };
        if empty {
            size as usize
        } else {
            size.max(1) as usize
        }
    }

    fn integer(&mut self, width: usize, trivial: bool) {
        let value = match self.random.below(6) {
            0 if trivial => 0,
            1 if trivial => -1,
            2 => i64::MAX >> (64 - 8 * width),
            3 => i64::MIN >> (64 - 8 * width),
            // Not 0 or −1, which are the defaults of tagged fields.
            _ => self.random.next() as i64 & !4 | 2,
        };
        self.out.extend_from_slice(&value.to_be_bytes()[8 - width..]);
    }

    /// `trivial`: whether the value may be one that looks like a default.
    fn value(&mut self, of: &TypeSchema, null: bool, trivial: bool) {
        match of {
            TypeSchema::Bool => {
                let value = self.random.below(2) as u8;
                self.out.push(value);
            }
            TypeSchema::Int8 => self.integer(1, trivial),
            TypeSchema::Int16 => self.integer(2, trivial),
            TypeSchema::Int32 => self.integer(4, trivial),
            TypeSchema::Int64 => self.integer(8, trivial),
            TypeSchema::String => {
                let count = self.size(trivial);
                let alphabet = ['a', 'Z', '0', '.', '-', '_', 'é', '世', '"', '\\'];
                let text: String = (0..count)
                    .map(|_| alphabet[self.random.below(alphabet.len() as u64) as usize])
                    .collect();
                self.length(text.len() as i64, 2);
                self.out.extend_from_slice(text.as_bytes());
            }
            TypeSchema::Bytes | TypeSchema::Records => {
                let count = self.size(trivial);
                self.length(count as i64, 4);
                for _ in 0..count {
                    let byte = self.random.next() as u8;
                    self.out.push(byte);
                }
            }
            TypeSchema::Array(element) => {
                let count = if trivial {
                    self.random.below(4)
                } else {
                    1 + self.random.below(3)
                };
                self.length(count as i64, 4);
                for _ in 0..count {
                    self.value(element, false, trivial);
                }
            }
            TypeSchema::Nullable(of) => {
                if null && trivial && self.random.below(3) == 0 {
                    let width = if matches!(of, TypeSchema::String) { 2 } else { 4 };
                    self.length(-1, width);
                } else {
                    self.value(of, null, trivial);
                }
            }
            TypeSchema::Struct(of) => self.fields(of, trivial),
        }
    }

    fn field(&mut self, field: &FieldSchema, trivial: bool) {
        let null = field.rule.nullable.contains(self.encoding.version);
        self.value(&field.field_type, null, trivial);
    }

    fn fields(&mut self, of: &StructSchema, trivial: bool) {
        let present = |f: &&FieldSchema| f.rule.versions.contains(self.encoding.version);
        let (tagged, in_line): (Vec<_>, Vec<_>) = of
            .fields
            .iter()
            .filter(present)
            .partition(|f| f.rule.tag.is_some());
        for field in in_line {
            self.field(field, trivial);
        }
        if !self.encoding.flexible {
            assert!(
                tagged.is_empty(),
                "{} has tagged fields in a version that has none",
                of.name
            );
            return;
        }
        let chosen: Vec<_> = tagged.into_iter().filter(|_| self.random.below(2) == 0).collect();
        self.varint(chosen.len() as u64 + u64::from(self.unknown_tags));
        for field in chosen {
            let tag = field.rule.tag.expect("it was chosen among those with a tag");
            self.varint(u64::from(tag));
            let outer = std::mem::take(&mut self.out);
            self.field(field, false);
            let value = std::mem::replace(&mut self.out, outer);
            self.varint(value.len() as u64);
            self.out.extend_from_slice(&value);
        }
        if self.unknown_tags {
            self.varint(40_000);
            self.varint(3);
            self.out.extend_from_slice(&[0xff, 0, 0x80]);
        }
    }
}

/// A value of the struct in this encoding, with a tagged field that nobody knows in each struct if asked for.
pub(super) fn generate(of: &StructSchema, encoding: Encoding, seed: u64, unknown_tags: bool) -> Vec<u8> {
    let mut generator = Generator {
        random: Random(seed),
        encoding,
        unknown_tags,
        out: Vec::new(),
    };
    generator.fields(of, true);
    generator.out
}
