//! Requests of every API and version that is served, as a connection reads them.
//!
//! Input: a frame. What lies behind the header is read as the request that the header names. Promise: what was read
//! is written and read again the same.

use milena_server::protocol::{ApiKey, Reader, RequestHeader};

use crate::wire::{self, Side};

pub(crate) fn read(frame: &[u8]) {
    if let Some((key, version, body)) = body(frame) {
        wire::read(key, version, body, Side::Request);
    }
}

pub(crate) fn read_again(frame: &[u8]) {
    if let Some((key, version, body)) = body(frame) {
        wire::read_again(key, version, body, Side::Request);
    }
}

fn body(frame: &[u8]) -> Option<(ApiKey, i16, &[u8])> {
    let mut reader = Reader::new(frame);
    let header = RequestHeader::decode(&mut reader).ok()?;
    let body = &frame[reader.position()..];
    (!header.is_unsupported_api_versions()).then_some((header.api_key, header.api_version, body))
}
