//! Apache Kafka as a subject: where its jars come from, and how its broker and its ZooKeeper are started.
//!
//! The flags of the JVM are those of `kafka-run-class.sh` and `kafka-server-start.sh` 2.7.2.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bench::error::BenchError;

/// The release that Milena takes the place of.
const VERSION: &str = "2.7.2";
const JVM_FLAGS: &[&str] = &[
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:MaxInlineLevel=15",
    "-Djava.awt.headless=true",
];
const LOG4J: &str = "\
log4j.rootLogger=WARN, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=[%d] %p %m (%c)%n
";

/// The directory with Kafka's jars: of a distribution, of jars, or resolved by Maven into the user's cache.
///
/// # Errors
/// Says what to do when there is none.
pub(super) fn jars(given: Option<&Path>) -> Result<PathBuf, BenchError> {
    let Some(directory) = given else {
        return by_maven();
    };
    let libs = directory.join("libs");
    let directory = if libs.is_dir() { libs } else { directory.to_owned() };
    match has_broker(&directory) {
        true => Ok(directory),
        false => Err(BenchError::Usage(format!(
            "--kafka: found no kafka_*.jar in {} nor in its libs/",
            directory.display()
        ))),
    }
}

fn has_broker(directory: &Path) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.any(|name| name.starts_with("kafka_2.") && name.ends_with(".jar"))
}

fn by_maven() -> Result<PathBuf, BenchError> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(home);
    let cache = cache
        .unwrap_or_else(std::env::temp_dir)
        .join(format!("milena/kafka-{VERSION}"));
    if has_broker(&cache) {
        return Ok(cache);
    }
    let dependency = |(group, artifact, version): (&str, &str, &str)| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )
    };
    let dependencies = [
        ("org.apache.kafka", "kafka_2.12", VERSION),
        ("org.slf4j", "slf4j-log4j12", "1.7.30"),
    ]
    .map(dependency)
    .concat();
    let pom = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>milena</groupId><artifactId>bench</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{dependencies}</dependencies></project>"
    );
    let what = || cache.display().to_string();
    std::fs::create_dir_all(&cache).map_err(BenchError::system(what()))?;
    std::fs::write(cache.join("pom.xml"), pom).map_err(BenchError::system(what()))?;
    crate::complain(format_args!(
        "resolving Apache Kafka {VERSION} by Maven into {}",
        cache.display()
    ));
    let without = "there is no --kafka DIR (a distribution or its jars), and Maven cannot fetch it";
    let output = Command::new("mvn")
        .args([
            "-B",
            "-q",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
        ])
        .arg(format!("-DoutputDirectory={}", cache.display()))
        .current_dir(&cache)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| BenchError::Usage(format!("{without}: mvn: {error}")))?;
    match output.status.success() && has_broker(&cache) {
        true => Ok(cache),
        false => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            Err(BenchError::Usage(format!("{without}:\n{}", said.trim_end())))
        }
    }
}

/// A JVM with Kafka's jars. The file of its log's settings is written into `home`.
fn java(jars: &Path, home: &Path, heap: &str) -> Result<Vec<String>, BenchError> {
    let log4j = home.join("log4j.properties");
    std::fs::write(&log4j, LOG4J).map_err(BenchError::system(log4j.display().to_string()))?;
    let java = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
    let java = java
        .filter(|java| java.exists())
        .unwrap_or_else(|| PathBuf::from("java"));
    let mut words = vec![
        java.display().to_string(),
        format!("-Xmx{heap}"),
        format!("-Xms{heap}"),
    ];
    words.extend(JVM_FLAGS.iter().map(|flag| (*flag).to_owned()));
    words.push(format!("-Dlog4j.configuration=file:{}", log4j.display()));
    words.extend(["-cp".to_owned(), format!("{}/*", jars.display())]);
    Ok(words)
}

/// The command of the broker.
pub(super) fn broker(jars: &Path, home: &Path, properties: &Path) -> Result<Vec<String>, BenchError> {
    let mut words = java(jars, home, "1G")?;
    words.extend(["kafka.Kafka".to_owned(), properties.display().to_string()]);
    Ok(words)
}

/// The command of a ZooKeeper with an empty tree.
pub(super) fn zookeeper(jars: &Path, home: &Path, port: u16) -> Result<Vec<String>, BenchError> {
    let config = home.join("zookeeper.properties");
    let text = format!(
        "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nmaxClientCnxns=0\nadmin.enableServer=false\n",
        home.join("zookeeper").display()
    );
    std::fs::write(&config, text).map_err(BenchError::system(config.display().to_string()))?;
    let mut words = java(jars, home, "512M")?;
    let main = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
    words.extend([main.to_owned(), config.display().to_string()]);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_broker_is_refused_and_a_distribution_is_looked_into() {
        let home = std::env::temp_dir().join(format!("milena-bench-kafka-{}", std::process::id()));
        std::fs::create_dir_all(home.join("libs")).unwrap();
        let error = jars(Some(&home)).unwrap_err().to_string();
        std::fs::write(home.join("libs/kafka_2.13-2.7.2.jar"), b"").unwrap();
        let found = jars(Some(&home)).unwrap();
        std::fs::remove_dir_all(&home).unwrap();
        assert!(error.contains("found no kafka_*.jar"), "{error}");
        assert_eq!(found, home.join("libs"));
    }
}
