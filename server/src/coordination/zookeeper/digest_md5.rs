//! DIGEST-MD5 of SASL as a pure conversation: how a client shows ZooKeeper that it knows a password without sending it.
//!
//! Three steps: the server's challenge, our response, and the server's proof that it knows the password as well, which is checked.
//! Only `qop=auth` and `algorithm=md5-sess`, which are all that ZooKeeper offers. Source: RFC 2831, `ZooKeeperSaslClient.java`,
//! `SecurityUtils.java`.

use md5::{Digest, Md5};

/// The service and server name that the Java client and server use whatever the server's address.
const DIGEST_URI: &str = "zookeeper/zk-sasl-md5";

/// Name and password of a `Client` section.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.username)
    }
}

/// The server does not take us for who we say we are, or is none that knows the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// A conversation; [`Self::step`] takes what the server says.
#[derive(Debug)]
pub(super) struct DigestMd5 {
    credentials: Credentials,
    nonce: u128,
    /// What the server must prove, once it was answered.
    proof: Option<String>,
}

impl DigestMd5 {
    /// `nonce` is random.
    pub(super) fn new(credentials: Credentials, nonce: u128) -> DigestMd5 {
        DigestMd5 {
            credentials,
            nonce,
            proof: None,
        }
    }

    /// The next thing to say; `None` once both are convinced.
    pub(super) fn step(&mut self, said: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
        let said = std::str::from_utf8(said).map_err(|_| Refused)?;
        let directives = directives(said)?;
        let find = |name: &str| {
            directives
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.as_str())
        };
        if let Some(proof) = &self.proof {
            return match find("rspauth") {
                Some(found) if found == proof => Ok(None),
                _ => Err(Refused),
            };
        }
        let server_nonce = find("nonce").ok_or(Refused)?;
        let realm = find("realm").unwrap_or_default();
        if find("algorithm") != Some("md5-sess")
            || !find("qop")
                .unwrap_or("auth")
                .split(',')
                .any(|qop| qop.trim() == "auth")
        {
            return Err(Refused);
        }
        let client_nonce = format!("{:032x}", self.nonce);
        let response = |method: &str| self.response(method, realm, server_nonce, &client_nonce);
        let (username, response, proof) = (
            quoted(&self.credentials.username),
            response("AUTHENTICATE"),
            response(""),
        );
        let answer = format!(
            "charset=utf-8,username={username},realm={},nonce={},nc=00000001,cnonce=\"{client_nonce}\",\
             digest-uri=\"{DIGEST_URI}\",maxbuf=65536,response={response},qop=auth",
            quoted(realm),
            quoted(server_nonce),
        );
        self.proof = Some(proof);
        Ok(Some(answer.into_bytes()))
    }

    fn response(&self, method: &str, realm: &str, server_nonce: &str, client_nonce: &str) -> String {
        let Credentials { username, password } = &self.credentials;
        let mut key = Md5::digest(format!("{username}:{realm}:{password}")).to_vec();
        key.extend_from_slice(format!(":{server_nonce}:{client_nonce}").as_bytes());
        let (key, what) = (hex(&key), hex(format!("{method}:{DIGEST_URI}").as_bytes()));
        hex(format!("{key}:{server_nonce}:00000001:{client_nonce}:auth:{what}").as_bytes())
    }
}

/// The digest of some bytes in hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Md5::digest(bytes))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// `name=value,name="value",...`
fn directives(text: &str) -> Result<Vec<(&str, String)>, Refused> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=').ok_or(Refused)?;
        let value;
        (value, rest) = match behind.strip_prefix('"') {
            None => {
                let (value, rest) = behind.split_once(',').unwrap_or((behind, ""));
                (value.trim().to_owned(), rest)
            }
            Some(quoted) => {
                let (mut value, mut characters) = (String::new(), quoted.char_indices());
                loop {
                    match characters.next().ok_or(Refused)? {
                        (_, '\\') => value.push(characters.next().ok_or(Refused)?.1),
                        (_, '"') => break,
                        (_, character) => value.push(character),
                    }
                }
                (value, characters.as_str().trim_start().trim_start_matches(','))
            }
        };
        found.push((name.trim(), value));
        rest = rest.trim_start();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: &[u8] =
        br#"realm="zk-sasl-md5",nonce="5Lhy/\"x",charset=utf-8,algorithm=md5-sess,qop="auth,auth-int""#;

    fn conversation() -> DigestMd5 {
        let credentials = Credentials {
            username: "kafka".to_owned(),
            password: "secret".to_owned(),
        };
        DigestMd5::new(credentials, 7)
    }

    #[test]
    fn the_response_has_what_the_rfc_asks_for_and_the_proof_is_checked() {
        let mut client = conversation();
        let answer = String::from_utf8(client.step(CHALLENGE).unwrap().unwrap()).unwrap();
        let found = directives(&answer).unwrap();
        let find = |name: &str| found.iter().find(|(key, _)| *key == name).unwrap().1.clone();
        assert_eq!(find("nonce"), "5Lhy/\"x");
        assert_eq!(find("cnonce"), "00000000000000000000000000000007");
        assert_eq!(find("digest-uri"), DIGEST_URI);
        assert_eq!(find("response").len(), 32);
        let proof = format!("rspauth={}", client.proof.clone().unwrap());
        assert_eq!(
            client.step(b"rspauth=00000000000000000000000000000000"),
            Err(Refused)
        );
        assert_eq!(client.step(proof.as_bytes()), Ok(None));
    }

    #[test]
    fn what_is_no_challenge_is_refused() {
        for said in [
            "",
            "nonce",
            "nonce=\"x",
            "nonce=x,qop=auth",
            "nonce=x,algorithm=md5-sess,qop=auth-conf",
        ] {
            assert_eq!(conversation().step(said.as_bytes()), Err(Refused), "{said}");
        }
        assert_eq!(conversation().step(&[0xff]), Err(Refused));
    }
}
