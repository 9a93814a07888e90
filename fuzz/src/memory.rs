//! How much memory a step may take: counted by the allocator of this crate, so that every program and test of it
//! asserts the same bounds.
//!
//! What C code takes is not seen: of the codecs that is zstd alone, whose decoder is told to refuse windows above
//! 128 MiB. Buffers that a thread keeps for its next batch count where they are taken first.

use peak_alloc::PeakAlloc;

#[global_allocator]
static COUNTED: PeakAlloc = PeakAlloc;

/// A bound: so many bytes for each byte of the input, and some whatever the input is.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    per_byte: usize,
    /// For each byte that the records of the input have when they are decompressed.
    per_expanded_byte: usize,
    beside: usize,
}

/// What a listening socket decodes: arrays stay where they are, and no count or length sizes an allocation.
pub const LAZY: Memory = Memory {
    per_byte: 4,
    per_expanded_byte: 0,
    beside: 64 << 10,
};

/// All else: what is read is kept in structures of its own.
pub const OWNED: Memory = Memory { per_byte: 64, ..LAZY };

impl Memory {
    /// And a buffer of this size, whose name stands where this is called.
    pub const fn and(self, bytes: usize) -> Memory {
        let beside = self.beside + bytes;
        Memory { beside, ..self }
    }

    /// And a buffer that grows with the input.
    pub const fn and_per_byte(self, bytes: usize) -> Memory {
        let per_byte = self.per_byte + bytes;
        Memory { per_byte, ..self }
    }

    /// And what is written anew from decompressed records.
    pub const fn and_per_expanded_byte(self, bytes: usize) -> Memory {
        let per_expanded_byte = self.per_expanded_byte + bytes;
        Memory {
            per_expanded_byte,
            ..self
        }
    }

    fn allowed(&self, input: &Input) -> usize {
        self.per_byte * input.bytes.len() + self.per_expanded_byte * input.expanded + self.beside
    }

    /// Runs a step and asserts its bound. The peak is the process's: nothing else may run meanwhile.
    pub(crate) fn bound(&self, name: &str, input: &Input, step: fn(&[u8])) {
        let before = COUNTED.current_usage();
        COUNTED.reset_peak_usage();
        step(&input.bytes);
        let taken = COUNTED.peak_usage().saturating_sub(before);
        let allowed = self.allowed(input);
        assert!(
            taken <= allowed,
            "{name}: {taken} bytes of memory for {} of input, allowed are {allowed}",
            input.bytes.len()
        );
    }
}

/// What the steps of a target are given.
#[derive(Clone, Debug)]
pub struct Input {
    pub bytes: Vec<u8>,
    /// Bytes of its records when they are decompressed; 0 where no step writes them anew.
    pub expanded: usize,
}

impl Input {
    pub(crate) fn plain(data: &[u8]) -> Input {
        Input {
            bytes: data.to_vec(),
            expanded: 0,
        }
    }
}
