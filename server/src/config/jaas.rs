//! JAAS: files of login sections, and the form of `sasl.jaas.config`, which is one section without name and braces.
//!
//! `Name { class flag option="value" ...; ... };`, with `//` and `/* */` comments; values stand in quotes or are single words.
//! Of the variable `KAFKA_OPTS` the file and the name of the section are taken that Java would take. Classes are names here: what
//! counts is the options. Sources: `ConfigFile.java` of the JDK, `JaasUtils.java`.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::path::PathBuf;
use std::str::Chars;

/// One login module of a section.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct LoginModule {
    pub(super) class: String,
    pub(super) options: BTreeMap<String, String>,
}

impl std::fmt::Debug for LoginModule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LoginModule({})", self.class)
    }
}

/// Why a text is no JAAS configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found {found}, expected {expected}")]
pub(super) struct JaasError {
    expected: &'static str,
    found: String,
}

/// What `KAFKA_OPTS` says of logins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LoginOptions {
    /// `-Djava.security.auth.login.config`
    pub(super) file: PathBuf,
    /// `-Dzookeeper.sasl.clientconfig`: the section for ZooKeeper.
    pub(super) section: String,
    /// `-Dzookeeper.sasl.client`
    pub(super) enabled: bool,
}

impl LoginOptions {
    /// `None` if no file is named.
    pub(super) fn of(options: &str) -> Option<LoginOptions> {
        let value = |name: &str| {
            let words = options.split_whitespace().rev();
            let mut values =
                words.filter_map(|word| word.strip_prefix("-D")?.strip_prefix(name)?.strip_prefix('='));
            values.next().map(|value| value.trim_matches(['"', '\'']))
        };
        // Java reads it alone if it is named with two signs.
        let file = value("java.security.auth.login.config")?.trim_start_matches('=');
        Some(LoginOptions {
            file: PathBuf::from(file.strip_prefix("file:").unwrap_or(file)),
            section: value("zookeeper.sasl.clientconfig")
                .unwrap_or("Client")
                .to_owned(),
            enabled: value("zookeeper.sasl.client").is_none_or(|value| value.eq_ignore_ascii_case("true")),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Sign(char),
}

struct Tokens<'t>(Peekable<Chars<'t>>);

impl Tokens<'_> {
    fn next(&mut self) -> Result<Option<Token>, JaasError> {
        loop {
            match self.0.next() {
                None => return Ok(None),
                Some(space) if space.is_whitespace() => {}
                Some('/') if self.0.peek() == Some(&'/') => {
                    self.0.by_ref().find(|c| *c == '\n');
                }
                Some('/') if self.0.peek() == Some(&'*') => {
                    self.0.next();
                    let mut before = ' ';
                    let end = self.0.by_ref().find(|c| {
                        let is_end = (before, *c) == ('*', '/');
                        before = *c;
                        is_end
                    });
                    if end.is_none() {
                        return Err(unexpected("the end of a comment", None));
                    }
                }
                Some('"') => return self.quoted().map(Some),
                Some(sign @ ('{' | '}' | ';' | '=')) => return Ok(Some(Token::Sign(sign))),
                Some(first) => {
                    let mut word = String::from(first);
                    let is_word = |c: &char| !c.is_whitespace() && !"{};=\"".contains(*c);
                    while let Some(c) = self.0.next_if(is_word) {
                        word.push(c);
                    }
                    return Ok(Some(Token::Word(word)));
                }
            }
        }
    }

    fn quoted(&mut self) -> Result<Token, JaasError> {
        let mut text = String::new();
        loop {
            match self.0.next() {
                Some('"') => return Ok(Token::Word(text)),
                Some('\\') => text.extend(self.0.next()),
                Some(c) => text.push(c),
                None => return Err(unexpected("a closing quote", None)),
            }
        }
    }

    fn word(&mut self, expected: &'static str) -> Result<String, JaasError> {
        match self.next()? {
            Some(Token::Word(word)) => Ok(word),
            other => Err(unexpected(expected, other)),
        }
    }

    fn sign(&mut self, sign: char, expected: &'static str) -> Result<(), JaasError> {
        match self.next()? {
            Some(Token::Sign(found)) if found == sign => Ok(()),
            other => Err(unexpected(expected, other)),
        }
    }

    /// The rest of a module, up to its semicolon.
    fn module(&mut self, class: String) -> Result<LoginModule, JaasError> {
        let flag = self.word("a control flag: required, requisite, sufficient or optional")?;
        let flags = ["required", "requisite", "sufficient", "optional"];
        if !flags.iter().any(|known| flag.eq_ignore_ascii_case(known)) {
            let expected = "a control flag: required, requisite, sufficient or optional";
            return Err(unexpected(expected, Some(Token::Word(flag))));
        }
        let mut options = BTreeMap::new();
        loop {
            match self.next()? {
                Some(Token::Sign(';')) => return Ok(LoginModule { class, options }),
                Some(Token::Word(name)) => {
                    self.sign('=', "= and the value of an option")?;
                    let value = self.word("the value of an option")?;
                    options.insert(name, value);
                }
                other => return Err(unexpected("an option or ;", other)),
            }
        }
    }
}

/// Words may be secrets: they are not shown.
fn unexpected(expected: &'static str, found: Option<Token>) -> JaasError {
    let found = match found {
        None => "the end".to_owned(),
        Some(Token::Word(_)) => "a word".to_owned(),
        Some(Token::Sign(sign)) => format!("{sign:?}"),
    };
    JaasError { expected, found }
}

/// The modules of the section `name` of a file; `None` if it has none such.
pub(super) fn section(text: &str, name: &str) -> Result<Option<Vec<LoginModule>>, JaasError> {
    let mut tokens = Tokens(text.chars().peekable());
    let mut wanted = None;
    while let Some(token) = tokens.next()? {
        let Token::Word(section) = token else {
            return Err(unexpected("the name of a section", Some(token)));
        };
        tokens.sign('{', "{ behind the name of a section")?;
        let mut modules = Vec::new();
        loop {
            match tokens.next()? {
                Some(Token::Word(class)) => modules.push(tokens.module(class)?),
                Some(Token::Sign('}')) => break,
                other => return Err(unexpected("a login module or }", other)),
            }
        }
        tokens.sign(';', "; behind a section")?;
        if section == name {
            wanted = Some(modules);
        }
    }
    Ok(wanted)
}

/// The modules of a text in the form of `sasl.jaas.config`.
pub(super) fn modules(text: &str) -> Result<Vec<LoginModule>, JaasError> {
    let mut tokens = Tokens(text.chars().peekable());
    let mut modules = Vec::new();
    while let Some(token) = tokens.next()? {
        match token {
            Token::Word(class) => modules.push(tokens.module(class)?),
            sign => return Err(unexpected("a login module", Some(sign))),
        }
    }
    Ok(modules)
}

/// The same modules in the form of `sasl.jaas.config`.
pub(super) fn written(modules: &[LoginModule]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let module = |module: &LoginModule| {
        let options = module
            .options
            .iter()
            .map(|(name, value)| format!(" {name}={}", quoted(value)));
        format!("{} required{};", module.class, options.collect::<String>())
    };
    modules.iter().map(module).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        // Of the broker.
        KafkaServer {
            org.apache.kafka.common.security.plain.PlainLoginModule required
            username="admin" password="a;b}" user_admin="a;b}";
        };
        /* Of its
           client. */
        Client {
            org.apache.zookeeper.server.auth.DigestLoginModule REQUIRED
            username=kafka
            password="s\"e\\cret";
        };
    "#;

    #[test]
    fn a_section_has_its_modules_with_options() {
        let client = section(FILE, "Client").unwrap().unwrap();
        assert_eq!(client.len(), 1);
        assert_eq!(
            client[0].class,
            "org.apache.zookeeper.server.auth.DigestLoginModule"
        );
        let options: Vec<(&str, &str)> = client[0].options.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(options, [("password", r#"s"e\cret"#), ("username", "kafka")]);
        assert_eq!(section(FILE, "Other").unwrap(), None);
        assert_eq!(modules(&written(&client)).unwrap(), client);
    }

    #[test]
    fn what_is_no_configuration_is_refused_without_its_words() {
        for (text, expected) in [
            ("Client {", "found the end, expected a login module or }"),
            (
                "Client { a required x=secret; }",
                "found the end, expected ; behind a section",
            ),
            (
                "Client a",
                "found a word, expected { behind the name of a section",
            ),
            (
                "Client { a maybe; };",
                "found a word, expected a control flag: required, requisite, sufficient or optional",
            ),
            (
                "Client { a required x secret; };",
                "found a word, expected = and the value of an option",
            ),
            ("/* ", "found the end, expected the end of a comment"),
            (
                "Client { a required x=\"",
                "found the end, expected a closing quote",
            ),
            ("{", "found '{', expected the name of a section"),
        ] {
            assert_eq!(
                section(text, "Client").unwrap_err().to_string(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn java_options_name_the_file_the_section_and_whether_it_counts() {
        let found = LoginOptions::of(
            "-Xmx1G -Djava.security.auth.login.config=/etc/kafka/jaas.conf -Dzookeeper.sasl.clientconfig=ZooKeeper \
             -Dzookeeper.sasl.client=false",
        );
        let expected = LoginOptions {
            file: "/etc/kafka/jaas.conf".into(),
            section: "ZooKeeper".into(),
            enabled: false,
        };
        assert_eq!(found, Some(expected));
        assert_eq!(LoginOptions::of("-Xmx1G"), None);
        let plain = LoginOptions::of("-Djava.security.auth.login.config==file:/a").unwrap();
        assert_eq!(
            (plain.file, plain.section.as_str(), plain.enabled),
            ("/a".into(), "Client", true)
        );
    }
}
