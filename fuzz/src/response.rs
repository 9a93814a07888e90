//! Answers of every API and version that is served, as the tests and the adoption of another broker's data read
//! them.
//!
//! Input: API (by its place among those served), version, body.

use milena_server::protocol::{SERVED, supported_versions};

use crate::{INPUT_SIZE_MAX, take, wire};

pub fn run(data: &[u8]) {
    let mut data = &data[..data.len().min(INPUT_SIZE_MAX)];
    let api_key = SERVED[usize::from(take(&mut data)) % SERVED.len()];
    let Some(versions) = supported_versions(api_key) else {
        return;
    };
    let count = versions.end() - versions.start() + 1;
    let version = versions.start() + i16::from(take(&mut data)) % count;
    wire::round_trip(api_key, version, data, wire::Side::Response);
}
