//! Requests of every API and version that is served, as a connection reads them.
//!
//! Input: a frame. What lies behind the header is read as the request that the header names; what was read is
//! written and read again.

use milena_server::protocol::{Reader, RequestHeader};

use crate::{INPUT_SIZE_MAX, wire};

pub fn run(data: &[u8]) {
    let data = &data[..data.len().min(INPUT_SIZE_MAX)];
    let mut reader = Reader::new(data);
    let Ok(header) = RequestHeader::decode(&mut reader) else {
        return;
    };
    if header.is_unsupported_api_versions() {
        return;
    }
    let body = &data[reader.position()..];
    wire::round_trip(header.api_key, header.api_version, body, wire::Side::Request);
}
