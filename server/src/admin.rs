//! Administration: what clients ask to be changed in the cluster, checked and written to the tree.
//!
//! Nothing here changes a log or a partition: whoever watches the tree (the controller, [`dynamic`]) does what was written.
//! It knows no wire types; handlers translate. Source class: `AdminManager`, `AdminZkClient`.

pub mod assignment;
pub mod configs;
pub mod dynamic;
pub mod error;
#[cfg(test)]
mod test_bench;
pub mod topic_name;
pub mod topics;

/// A topic name has at most this many characters: with a partition's number and a suffix it is the name of a directory.
pub const MAX_TOPIC_NAME_LENGTH: usize = 249;

/// Whether a topic may have this name; the error is Kafka's text for INVALID_TOPIC_EXCEPTION.
pub fn check_topic_name(topic: &str) -> Result<(), String> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if topic.is_empty() {
        Err("Topic name is illegal, it can't be empty".to_owned())
    } else if topic == "." || topic == ".." {
        Err("Topic name cannot be \".\" or \"..\"".to_owned())
    } else if topic.encode_utf16().count() > MAX_TOPIC_NAME_LENGTH {
        Err(format!(
            "Topic name is illegal, it can't be longer than {MAX_TOPIC_NAME_LENGTH} characters, topic name: {topic}"
        ))
    } else if !topic.bytes().all(is_legal) {
        Err(format!(
            "Topic name \"{topic}\" is illegal, it contains a character other than ASCII alphanumerics, '.', '_' and '-'"
        ))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_name_is_made_of_letters_digits_dots_dashes_and_underscores_and_fits_a_directory() {
        for good in ["a", "A-b_c.9", "...", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(check_topic_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
            assert!(check_topic_name(bad).is_err(), "{bad}");
        }
    }
}
