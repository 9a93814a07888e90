//! `meta.properties`: which broker of which cluster a log directory belongs to (`BrokerMetadataCheckpoint`).
//!
//! Written as Java's `Properties.store` writes it, in its order, so that a Java broker reads it and a diff
//! with its own file shows the date alone. That the directories agree with each other and with the
//! configuration is the log manager's to check.

use std::path::{Path, PathBuf};

use super::properties::{self, PropertiesError};
use crate::error::IoError;
use crate::io::Io;
use crate::units::TimestampMs;

/// Content of `meta.properties`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerMetadata {
    pub broker_id: i32,
    /// Missing in files of brokers before 0.10.1.
    pub cluster_id: Option<String>,
}

/// Why `meta.properties` cannot be used. Kafka refuses to start then.
#[derive(Debug, thiserror::Error)]
pub enum MetaPropertiesError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("{}: {source}", path.display())]
    Properties { path: PathBuf, source: PropertiesError },
    /// A key is missing or its value is not a number from 0 to 2147483647.
    #[error("{}: {key}={found}, expected a number from 0 to 2147483647", path.display())]
    Value {
        path: PathBuf,
        key: &'static str,
        /// Empty if the key is missing.
        found: String,
    },
    /// A version that nobody has written yet.
    #[error("{}: version={found}, expected 0", path.display())]
    Version { path: PathBuf, found: i32 },
}

impl BrokerMetadata {
    /// `None` if the directory has no such file. Removes a leftover `meta.properties.tmp`.
    ///
    /// # Errors
    /// By variant; the file is left as it is.
    pub fn read(io: &dyn Io, log_dir: &Path) -> Result<Option<BrokerMetadata>, MetaPropertiesError> {
        let path = log_dir.join(super::META_PROPERTIES_FILE);
        io.remove_file(&super::temporary_of(&path))?;
        let Some(content) = super::read_file(io, &path)? else {
            return Ok(None);
        };
        let found = properties::parse(&content).map_err(|source| MetaPropertiesError::Properties {
            path: path.clone(),
            source,
        })?;
        // The last of equal keys wins, as in a hash table.
        let get = |key: &str| {
            found
                .iter()
                .rev()
                .find(|property| property.key == key)
                .map(|property| property.value.clone())
        };
        let number = |key: &'static str| {
            let value = get(key).unwrap_or_default();
            match value.parse::<i32>() {
                Ok(number) if number >= 0 => Ok(number),
                _ => Err(MetaPropertiesError::Value {
                    path: path.clone(),
                    key,
                    found: value,
                }),
            }
        };
        let version = number("version")?;
        if version != 0 {
            return Err(MetaPropertiesError::Version { path, found: version });
        }
        Ok(Some(BrokerMetadata {
            broker_id: number("broker.id")?,
            cluster_id: get("cluster.id"),
        }))
    }

    /// Replaces the file, durably when it returns. `now` goes into its comment, in UTC.
    ///
    /// # Errors
    /// Final for the directory; the file has its old or its new content.
    pub fn write(&self, io: &dyn Io, log_dir: &Path, now: TimestampMs) -> Result<(), IoError> {
        // In the order in which Java's hash table gives them.
        let broker_id = self.broker_id.to_string();
        let mut pairs = vec![("broker.id", broker_id.as_str()), ("version", "0")];
        if let Some(cluster_id) = &self.cluster_id {
            pairs.push(("cluster.id", cluster_id));
        }
        let content = properties::render("", now, &pairs);
        super::replace_file(io, &log_dir.join(super::META_PROPERTIES_FILE), content.as_bytes())
    }
}
