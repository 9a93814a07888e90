//! Zigzag varints of records (v2) and their unsigned base, as protocol buffers define them.
//!
//! Reading accepts what Kafka's `ByteUtils` accepts: up to 5 bytes for 32 bits and 10 for 64, over-long forms
//! included, excess high bits dropped. Reading never goes past the slice; writing appends to a `Vec`.

/// Reads an unsigned 32-bit varint at `*position` and moves past it. `None` if the slice ends or a sixth byte
/// would follow.
#[inline(always)]
pub(crate) fn read_unsigned_varint(bytes: &[u8], position: &mut usize) -> Option<u32> {
    let first = *bytes.get(*position)?;
    if first < 0x80 {
        *position += 1;
        return Some(u32::from(first));
    }
    // Most sizes of records and values: without a call.
    if let Some(&second) = bytes.get(*position + 1)
        && second < 0x80
    {
        *position += 2;
        return Some(u32::from(first & 0x7f) | u32::from(second) << 7);
    }
    read_u32_tail(bytes, position, first)
}

#[cold]
fn read_u32_tail(bytes: &[u8], position: &mut usize, first: u8) -> Option<u32> {
    let mut value = u32::from(first & 0x7f);
    for index in 1..5 {
        let byte = *bytes.get(*position + index)?;
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *position += index + 1;
            return Some(value);
        }
    }
    None
}

/// Reads an unsigned 64-bit varint at `*position` and moves past it. `None` if the slice ends or an eleventh
/// byte would follow.
#[inline(always)]
pub(crate) fn read_unsigned_varlong(bytes: &[u8], position: &mut usize) -> Option<u64> {
    let first = *bytes.get(*position)?;
    if first < 0x80 {
        *position += 1;
        return Some(u64::from(first));
    }
    // Most sizes of records and values: without a call.
    if let Some(&second) = bytes.get(*position + 1)
        && second < 0x80
    {
        *position += 2;
        return Some(u64::from(first & 0x7f) | u64::from(second) << 7);
    }
    read_u64_tail(bytes, position, first)
}

#[cold]
fn read_u64_tail(bytes: &[u8], position: &mut usize, first: u8) -> Option<u64> {
    let mut value = u64::from(first & 0x7f);
    for index in 1..10 {
        let byte = *bytes.get(*position + index)?;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *position += index + 1;
            return Some(value);
        }
    }
    None
}

/// Reads a zigzag 32-bit varint.
#[inline(always)]
pub(crate) fn read_varint(bytes: &[u8], position: &mut usize) -> Option<i32> {
    let raw = read_unsigned_varint(bytes, position)?;
    Some((raw >> 1) as i32 ^ -((raw & 1) as i32))
}

/// Reads a zigzag 64-bit varint.
#[inline(always)]
pub(crate) fn read_varlong(bytes: &[u8], position: &mut usize) -> Option<i64> {
    let raw = read_unsigned_varlong(bytes, position)?;
    Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

/// Appends `value` as an unsigned 64-bit varint; 32-bit values take the same bytes.
pub(crate) fn write_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `value` as a zigzag 32-bit varint.
pub(crate) fn write_varint(out: &mut Vec<u8>, value: i32) {
    write_unsigned(out, u64::from(((value << 1) ^ (value >> 31)) as u32));
}

/// Appends `value` as a zigzag 64-bit varint.
pub(crate) fn write_varlong(out: &mut Vec<u8>, value: i64) {
    write_unsigned(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Bytes that [`write_varint`] appends: 1 to 5.
pub(crate) const fn size_of_varint(value: i32) -> usize {
    size_of_unsigned(((value << 1) ^ (value >> 31)) as u32 as u64)
}

/// Bytes that [`write_varlong`] appends: 1 to 10.
pub(crate) const fn size_of_varlong(value: i64) -> usize {
    size_of_unsigned(((value << 1) ^ (value >> 63)) as u64)
}

const fn size_of_unsigned(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_writing_and_reading_and_the_size_is_what_was_written() {
        let values = [
            0,
            1,
            -1,
            63,
            64,
            -64,
            -65,
            8191,
            8192,
            -8193,
            i64::from(i32::MAX),
            i64::from(i32::MIN),
            i64::MAX,
            i64::MIN,
        ];
        for value in values {
            let mut out = Vec::new();
            write_varlong(&mut out, value);
            assert_eq!(out.len(), size_of_varlong(value), "{value}");
            let mut position = 0;
            assert_eq!(read_varlong(&out, &mut position), Some(value));
            assert_eq!(position, out.len());
            if let Ok(value) = i32::try_from(value) {
                let mut out = Vec::new();
                write_varint(&mut out, value);
                assert_eq!(out.len(), size_of_varint(value), "{value}");
                let mut position = 0;
                assert_eq!(read_varint(&out, &mut position), Some(value));
                assert_eq!(position, out.len());
            }
        }
    }

    #[test]
    fn a_varint_that_does_not_end_in_time_or_in_the_slice_is_refused() {
        for bytes in [
            &[][..],
            &[0x80],
            &[0xff, 0xff, 0xff, 0xff],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0],
        ] {
            assert_eq!(read_varint(bytes, &mut 0), None, "{bytes:?}");
        }
        assert_eq!(read_varlong(&[0x80; 11], &mut 0), None);
        assert_eq!(read_varlong(&[0x80; 9], &mut 0), None);
    }

    #[test]
    fn an_over_long_form_is_read_as_kafka_reads_it() {
        assert_eq!(read_varint(&[0x82, 0x80, 0x80, 0x80, 0x70], &mut 0), Some(1));
    }
}
