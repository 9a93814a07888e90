//! Where a broker listens, as users write it: `host:port`, the port 9092 if absent, an IPv6 host in brackets.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The port that all of Kafka's examples have.
const PORT_DEFAULT: u16 = 9092;

/// A host by name or number, and a port.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Address {
    pub host: Arc<str>,
    pub port: u16,
}

impl Address {
    /// Reads a list as in `bootstrap.servers`: addresses with commas between them.
    ///
    /// # Errors
    /// Says what is wrong with the first that is none, or that there is none.
    pub fn list(text: &str) -> Result<Vec<Address>, String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let addresses = words.map(str::parse).collect::<Result<Vec<Address>, String>>()?;
        if addresses.is_empty() {
            return Err(format!("found {text:?}, expected host:port,.."));
        }
        Ok(addresses)
    }
}

impl FromStr for Address {
    type Err = String;

    /// `host:port`, `host`, `[::1]:9092`, also with `PLAINTEXT://` in front, as brokers write it.
    fn from_str(text: &str) -> Result<Address, String> {
        let wrong = || format!("found {text:?}, expected host:port");
        let place = match text.split_once("://") {
            Some((protocol, place)) if protocol.eq_ignore_ascii_case("PLAINTEXT") => place,
            Some((protocol, _)) => {
                return Err(format!(
                    "found {protocol} in {text:?}: this client speaks PLAINTEXT only, neither TLS nor SASL yet"
                ));
            }
            None => text,
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
                (host, port.strip_prefix(':'))
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|&port| port > 0).ok_or_else(wrong)?,
            None => PORT_DEFAULT,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(wrong());
        }
        Ok(Address {
            host: host.into(),
            port,
        })
    }
}

/// `host:port`; an IPv6 host in brackets.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_users_write_them() {
        let texts = |list: &str| -> Vec<String> {
            let addresses = Address::list(list).unwrap();
            addresses.iter().map(Address::to_string).collect()
        };
        assert_eq!(texts("a:1, b ,,[::1]:3"), ["a:1", "b:9092", "[::1]:3"]);
        assert_eq!(texts("PLAINTEXT://h.example.org:19092"), ["h.example.org:19092"]);
    }

    #[test]
    fn what_is_no_address_is_named() {
        for text in [
            "",
            " , ",
            "a:b",
            "a:0",
            "a:70000",
            ":9092",
            "[::1:9092",
            "http/x:80",
            "a b:1",
        ] {
            let error = Address::list(text).unwrap_err();
            assert!(error.contains("expected host:port"), "{text}: {error}");
        }
        let error = Address::list("SASL_SSL://a:9093").unwrap_err();
        assert!(error.starts_with("found SASL_SSL"), "{error}");
    }
}
