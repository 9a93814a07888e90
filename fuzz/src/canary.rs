//! A reader with two planted bugs, such as the others must not have. It proves that the tools see them: the
//! fuzzer and the replaying test must report it.

/// Reads `size u32 | bytes` and believes the size.
pub fn run(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk::<4>() else {
        return;
    };
    let size = u32::from_be_bytes(*head) as usize;
    // planted: memory by a length that the input states
    let mut copy: Vec<u8> = Vec::with_capacity(size.min(1 << 30));
    std::hint::black_box(&mut copy);
    if size == 0 || rest.is_empty() {
        return;
    }
    // planted: a place that need not be there
    copy.push(rest[size - 1]);
    std::hint::black_box(&copy);
}
