//! Files that a user names and that are read whole: plans, lists, payloads. A limit keeps devices without an end out.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// # Errors
/// Names the file, and the limit where there is more than it allows.
pub(crate) fn read(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit_bytes + 1).read_to_end(&mut bytes));
    let read = read.and_then(|size| match size as u64 > limit_bytes {
        true => Err(io::Error::other(format!("found more than {limit_bytes} bytes"))),
        false => Ok(()),
    });
    read.map(|()| bytes)
        .map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_is_refused_by_name() {
        let error = read(Path::new("/dev/zero"), 1000).unwrap_err();
        assert_eq!(error, "/dev/zero: found more than 1000 bytes");
        assert_eq!(read(Path::new("/dev/null"), 1000), Ok(Vec::new()));
        assert!(
            read(Path::new("/nothing/here"), 1000)
                .unwrap_err()
                .starts_with("/nothing/here: ")
        );
    }
}
