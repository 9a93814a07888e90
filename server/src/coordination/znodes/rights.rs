//! Who may do what with a node in ZooKeeper: the lists that a broker gives the nodes that it creates.
//!
//! With `zookeeper.set.acl` only who created a node may change it, and what is secret only he may read; `/consumers` stays open,
//! because old consumers write below it. Source: `ZkData.defaultAcls`.

use super::CONSUMERS;

/// What is secret: passwords, and tokens.
const SENSITIVE: [&str; 3] = ["/config/users", "/config/brokers", "/delegation_token/tokens"];

const READ: i32 = 1;
/// Read, write, create, delete, administer.
const ALL: i32 = 31;

/// An entry of a node's access control list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acl {
    /// The sum of 1 (read), 2 (write), 4 (create), 8 (delete), 16 (administer).
    pub permissions: i32,
    pub scheme: &'static str,
    pub id: &'static str,
}

const ANYONE: Acl = Acl {
    permissions: ALL,
    scheme: "world",
    id: "anyone",
};
/// Whoever the session is authenticated as.
const CREATOR: Acl = Acl {
    permissions: ALL,
    scheme: "auth",
    id: "",
};
const READERS: Acl = Acl {
    permissions: READ,
    ..ANYONE
};

/// The list of a new node at `path`, which has no chroot; `is_secure` says what `zookeeper.set.acl` does.
pub fn rights(path: &str, is_secure: bool) -> &'static [Acl] {
    if !is_secure || path == CONSUMERS {
        &[ANYONE]
    } else if SENSITIVE.iter().any(|prefix| path.starts_with(prefix)) {
        &[CREATOR]
    } else {
        &[CREATOR, READERS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_for_its_creator_alone_and_old_consumers_may_write_theirs() {
        for (path, rights_of) in [
            ("/brokers/ids/0", &[CREATOR, READERS][..]),
            ("/config/users/alice", &[CREATOR]),
            ("/config/brokers", &[CREATOR]),
            ("/consumers", &[ANYONE]),
            ("/consumers/g", &[CREATOR, READERS]),
        ] {
            assert_eq!(rights(path, true), rights_of, "{path}");
            assert_eq!(rights(path, false), [ANYONE], "{path}");
        }
    }
}
