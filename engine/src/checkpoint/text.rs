//! The layout that Kafka's checkpoints share: a version line, a count line, and as many entry lines.
//!
//! Accepts what `CheckpointFile.read` accepts: lines end in `\n`, `\r\n` or `\r`, the last may lack its
//! end; a file without a first or second line is an empty checkpoint; fields of an entry are separated by
//! runs of white space; later lines of a partition win. Everything else is an error with its line.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::error::IoError;
use crate::io::Io;

/// The only version of these files.
const VERSION: i32 = 0;

/// Bytes of a line that an error shows.
const SHOWN_MAX: usize = 120;

/// Why a checkpoint cannot be used. Kafka's broker goes on with an empty one for recovery points and log
/// starts, and takes the directory offline for the high watermarks; that is the caller's to decide.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Io(#[from] IoError),
    /// A line is not what it must be.
    #[error("{}: line {line}: '{found}', expected {expected}", path.display())]
    Malformed {
        path: PathBuf,
        /// From 1.
        line: usize,
        expected: &'static str,
        /// The line, cut after some 120 bytes.
        found: String,
    },
    /// A version that nobody has written yet.
    #[error("{}: line 1: version {found}, expected 0", path.display())]
    Version { path: PathBuf, found: i32 },
    /// The file was cut short, or has grown.
    #[error("{}: line 2 announces {expected} entries, found {found}", path.display())]
    Count {
        path: PathBuf,
        expected: i32,
        found: usize,
    },
}

/// Text of a checkpoint with these entry lines, each without its end.
pub(super) fn render(lines: impl ExactSizeIterator<Item = impl std::fmt::Display>) -> String {
    let mut text = String::with_capacity(16 + 32 * lines.len());
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{VERSION}");
    let _ = writeln!(text, "{}", lines.len());
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Reads the checkpoint at `path` and gives the fields of every entry line to `entry`, which answers `None`
/// for a malformed one. A missing file has no entries.
pub(super) fn read<T>(
    io: &dyn Io,
    path: &Path,
    expected: &'static str,
    entry: impl FnMut(&[&str]) -> Option<T>,
) -> Result<Vec<T>, CheckpointError> {
    match super::read_file(io, path)? {
        Some(content) => parse(path, &content, expected, entry),
        None => Ok(Vec::new()),
    }
}

fn parse<T>(
    path: &Path,
    content: &[u8],
    expected: &'static str,
    mut entry: impl FnMut(&[&str]) -> Option<T>,
) -> Result<Vec<T>, CheckpointError> {
    let malformed = |line: usize, expected: &'static str, found: &[u8]| CheckpointError::Malformed {
        path: path.to_path_buf(),
        line,
        expected,
        found: String::from_utf8_lossy(&found[..found.len().min(SHOWN_MAX)]).into_owned(),
    };
    let number = |line: usize, expected: &'static str, bytes: &[u8]| {
        std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.parse::<i32>().ok())
            .ok_or_else(|| malformed(line, expected, bytes))
    };

    let mut lines = lines(content).enumerate();
    let Some((_, first)) = lines.next() else {
        return Ok(Vec::new());
    };
    let version = number(1, "the version number 0", first)?;
    if version != VERSION {
        return Err(CheckpointError::Version {
            path: path.to_path_buf(),
            found: version,
        });
    }
    let Some((_, second)) = lines.next() else {
        return Ok(Vec::new());
    };
    let count = number(2, "the number of entries", second)?;

    let mut entries = Vec::new();
    for (index, line) in lines {
        let read = std::str::from_utf8(line)
            .ok()
            .and_then(|text| entry(&fields(text)));
        match read {
            Some(read) => entries.push(read),
            None => return Err(malformed(index + 1, expected, line)),
        }
    }
    if usize::try_from(count) != Ok(entries.len()) {
        return Err(CheckpointError::Count {
            path: path.to_path_buf(),
            expected: count,
            found: entries.len(),
        });
    }
    Ok(entries)
}

/// The lines of a text as `java.io.BufferedReader` cuts them.
pub(super) fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = content;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            return Some(std::mem::take(&mut rest));
        };
        let (line, after) = rest.split_at(end);
        rest = if after.starts_with(b"\r\n") {
            &after[2..]
        } else {
            &after[1..]
        };
        Some(line)
    })
}

/// As Java's `split("\\s+")`: white space at the front makes an empty first field, at the end none.
fn fields(line: &str) -> Vec<&str> {
    let is_space = |char: char| matches!(char, ' ' | '\t' | '\n' | '\x0B' | '\x0C' | '\r');
    let mut fields = Vec::with_capacity(3);
    if line.starts_with(is_space) {
        fields.push("");
    }
    fields.extend(line.split(is_space).filter(|field| !field.is_empty()));
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: &str, expected: Result<&[&str], &str>) {
        let found = parse(
            Path::new("/d/f"),
            content.as_bytes(),
            "three fields",
            |fields| match fields {
                [a, b, c] => Some(format!("{a},{b},{c}")),
                _ => None,
            },
        );
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{content:?}"),
            (Err(found), Err(expected)) => assert_eq!(found.to_string(), expected, "{content:?}"),
            (found, expected) => panic!("{content:?}: found {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn what_kafka_accepts_is_accepted_and_the_rest_is_named_with_its_line() {
        check("", Ok(&[]));
        check("0", Ok(&[]));
        check("0\n0\n", Ok(&[]));
        check("0\n2\na 0 1\nb 1 2\n", Ok(&["a,0,1", "b,1,2"]));
        check("0\r\n1\r\na\t 0  1  ", Ok(&["a,0,1"]));
        check("1\n0\n", Err("/d/f: line 1: version 1, expected 0"));
        check(
            "zero\n0\n",
            Err("/d/f: line 1: 'zero', expected the version number 0"),
        );
        check(
            "0\n\na 0 1\n",
            Err("/d/f: line 2: '', expected the number of entries"),
        );
        check(
            "0\n99999999999\n",
            Err("/d/f: line 2: '99999999999', expected the number of entries"),
        );
        check(
            "0\n2\na 0 1\nb 1\n",
            Err("/d/f: line 4: 'b 1', expected three fields"),
        );
        check(
            "0\n1\n a 0 1\n",
            Err("/d/f: line 3: ' a 0 1', expected three fields"),
        );
        check("0\n1\na 0 1\n\n", Err("/d/f: line 4: '', expected three fields"));
        check("0\n3\na 0 1\n", Err("/d/f: line 2 announces 3 entries, found 1"));
        check("0\n-1\n", Err("/d/f: line 2 announces -1 entries, found 0"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_an_error_and_not_a_panic() {
        let found = parse(Path::new("f"), b"0\n1\n\xff\xfe 0 1\n", "three fields", |_| {
            Some(())
        });
        assert!(matches!(found, Err(CheckpointError::Malformed { line: 3, .. })));
    }
}
