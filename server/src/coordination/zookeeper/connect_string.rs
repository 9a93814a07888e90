//! `zookeeper.connect`: the servers of an ensemble and the path below which a cluster lives.
//!
//! `host[:port],...[/chroot]`; the port is 2181 where none is said, an IPv6 address stands in brackets, and blanks around a
//! server and empty places between commas mean nothing. A chroot of `/` is none. Source: `ConnectStringParser.java`.

use crate::coordination::check_path;

/// The port of ZooKeeper's clients.
const DEFAULT_PORT: u16 = 2181;

/// What `zookeeper.connect` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectString {
    /// At least one.
    pub servers: Vec<ServerAddress>,
    /// Without a slash at its end; empty for the root.
    pub chroot: String,
}

/// Where a server listens for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    pub port: u16,
}

impl std::fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Why a text is no connect string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectStringError {
    #[error("found no server, expected host:port")]
    NoServer,
    #[error("found {found:?}, expected host:port")]
    Server { found: String },
    #[error("found the chroot {chroot:?}: {reason}")]
    Chroot { chroot: String, reason: &'static str },
}

impl std::str::FromStr for ConnectString {
    type Err = ConnectStringError;

    fn from_str(text: &str) -> Result<ConnectString, ConnectStringError> {
        let (servers, chroot) = match text.find('/') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let chroot = match chroot.trim_end() {
            "/" => "",
            chroot => chroot,
        };
        if !chroot.is_empty()
            && let Err(crate::coordination::CoordinationError::InvalidPath { reason, .. }) =
                check_path(chroot)
        {
            let chroot = chroot.to_owned();
            return Err(ConnectStringError::Chroot { chroot, reason });
        }
        let servers: Vec<ServerAddress> = servers
            .split(',')
            .map(str::trim)
            .filter(|server| !server.is_empty())
            .map(server)
            .collect::<Result<_, _>>()?;
        if servers.is_empty() {
            return Err(ConnectStringError::NoServer);
        }
        Ok(ConnectString {
            servers,
            chroot: chroot.to_owned(),
        })
    }
}

fn server(text: &str) -> Result<ServerAddress, ConnectStringError> {
    let wrong = || ConnectStringError::Server {
        found: text.to_owned(),
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
            match rest {
                "" => (host, ""),
                _ => (host, rest.strip_prefix(':').ok_or_else(wrong)?),
            }
        }
        None => text.rsplit_once(':').unwrap_or((text, "")),
    };
    let port = match port {
        "" => DEFAULT_PORT,
        digits => digits.parse().ok().filter(|&port| port != 0).ok_or_else(wrong)?,
    };
    match host {
        "" => Err(wrong()),
        host => Ok(ServerAddress {
            host: host.to_owned(),
            port,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Vec<String>, String) {
        let parsed: ConnectString = text.parse().unwrap();
        let servers = parsed.servers.iter().map(ToString::to_string).collect();
        (servers, parsed.chroot)
    }

    #[test]
    fn servers_have_ports_and_a_chroot_stands_at_the_end() {
        for (text, servers, chroot) in [
            ("localhost", vec!["localhost:2181"], ""),
            (
                "h121:2181,h122:2182,h123/kafka/a",
                vec!["h121:2181", "h122:2182", "h123:2181"],
                "/kafka/a",
            ),
            (" a:1 ,, b: /", vec!["a:1", "b:2181"], ""),
            (
                "[::1]:2181,[fe80::2]/k",
                vec!["[::1]:2181", "[fe80::2]:2181"],
                "/k",
            ),
        ] {
            let servers = servers.into_iter().map(str::to_owned).collect();
            assert_eq!(parsed(text), (servers, chroot.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_connect_string_is_refused_with_what_was_found() {
        for (text, reason) in [
            ("", "no server"),
            ("/kafka", "no server"),
            ("a:x", "\"a:x\""),
            ("a:70000", "\"a:70000\""),
            ("a:0", "\"a:0\""),
            (":2181", "\":2181\""),
            ("[::1", "\"[::1\""),
            ("a/kafka/", "empty name"),
            ("a/../b", "relative"),
        ] {
            let error = text.parse::<ConnectString>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
