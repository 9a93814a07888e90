//! Mutations from a seed, for the replaying test: the same seed makes the same bytes.

/// A small generator with a good enough spread (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 to `limit`, exclusive; `limit` is at least 1.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % limit
    }
}

/// Numbers at which readers go wrong, big-endian; shorter ones are their ends.
const EDGES: [[u8; 8]; 8] = [
    [0; 8],
    [0xff; 8],
    [0, 0, 0, 0, 0, 0, 0, 1],
    [0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff],
    [0x80, 0, 0, 0, 0x80, 0, 0, 0],
    [0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f],
    [0, 0, 0, 0, 0, 0, 0, 0x80],
];

/// One to eight changes of `bytes`: bits, bytes, numbers, pieces removed, doubled or taken from `other`.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..1 + random.below(8) {
        if bytes.is_empty() {
            bytes.push(random.below(256) as u8);
            continue;
        }
        let at = random.below(bytes.len());
        let piece = at..bytes.len().min(at + 1 + random.below(32));
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.below(256) as u8,
            2 | 3 => {
                let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
                let edge = EDGES[random.below(EDGES.len())];
                bytes[at..at + width].copy_from_slice(&edge[8 - width..]);
            }
            4 => drop(bytes.drain(piece)),
            5 => {
                let copy = bytes[piece].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            6 if !other.is_empty() => {
                let from = random.below(other.len());
                let size = (1 + random.below(64)).min(other.len() - from);
                let end = bytes.len().min(at + size);
                bytes.splice(at..end, other[from..from + size].iter().copied());
            }
            _ => bytes.truncate(at),
        }
    }
}
