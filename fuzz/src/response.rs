//! Answers of every API and version that is served, as the tools, the tests and the adoption of another broker's data
//! read them.
//!
//! Input: API (by its place among those served), version, body. Promise: what was read is written and read again
//! the same.

use milena_server::protocol::{ApiKey, SERVED, supported_versions};

use crate::take;
use crate::wire::{self, Side};

pub(crate) fn read(data: &[u8]) {
    if let Some((key, version, body)) = body(data) {
        wire::read(key, version, body, Side::Response);
    }
}

pub(crate) fn read_again(data: &[u8]) {
    if let Some((key, version, body)) = body(data) {
        wire::read_again(key, version, body, Side::Response);
    }
}

fn body(mut data: &[u8]) -> Option<(ApiKey, i16, &[u8])> {
    let key = SERVED[usize::from(take(&mut data)) % SERVED.len()];
    let versions = supported_versions(key)?;
    let count = versions.end() - versions.start() + 1;
    let version = versions.start() + i16::from(take(&mut data)) % count;
    Some((key, version, data))
}
