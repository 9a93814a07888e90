//! Where reading begins and ends: at the ends of a partition, at an offset, so many records before the end, at a time.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;

use milena_engine::units::TopicPartition;
use milena_server::client::{Client, IsolationLevel, OffsetSpec};

use crate::cluster_args::CommandError;
use crate::moment::time_ms;

/// A place in any partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Earliest,
    Latest,
    Offset(i64),
    /// So many offsets before the end.
    BeforeEnd(i64),
    /// Milliseconds since 1970.
    Time(i64),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        let wrong = || {
            format!(
                "found {text:?}, expected earliest, latest, an offset, -N for the last N of each partition, or a time \
                 as @2026-01-31T12:00:00Z or @-1h"
            )
        };
        match text {
            "earliest" | "beginning" => return Ok(Place::Earliest),
            "latest" | "end" => return Ok(Place::Latest),
            _ => {}
        }
        if let Some(time) = text.strip_prefix('@') {
            return time_ms(time).map(Place::Time);
        }
        match text.parse::<i64>() {
            Ok(offset) if offset >= 0 && !text.starts_with('-') => Ok(Place::Offset(offset)),
            Ok(before) if before < 0 && before > i64::MIN => Ok(Place::BeforeEnd(-before)),
            _ => Err(wrong()),
        }
    }
}

/// The offset of a place in each partition, between the ends that it has now.
#[derive(Debug)]
pub(super) struct Ends {
    earliest: BTreeMap<TopicPartition, i64>,
    latest: BTreeMap<TopicPartition, i64>,
}

impl Ends {
    /// # Errors
    /// Those of [`Client::list_offsets`], and of single partitions.
    pub(super) async fn of(
        client: &mut Client,
        partitions: &[TopicPartition],
        isolation: IsolationLevel,
    ) -> Result<Ends, CommandError> {
        Ok(Ends {
            earliest: listed(client, partitions, OffsetSpec::Earliest, isolation).await?,
            latest: listed(client, partitions, OffsetSpec::Latest, isolation).await?,
        })
    }

    /// A partition that has no such offset now, with those that it has.
    pub(super) fn without(&self, offset: i64) -> Option<(&TopicPartition, RangeInclusive<i64>)> {
        let ends = self.latest.iter().map(|(partition, &latest)| {
            let earliest = self.earliest.get(partition).copied().unwrap_or(0);
            (partition, earliest..=latest)
        });
        ends.into_iter().find(|(_, range)| !range.contains(&offset))
    }

    /// An offset that the user names stays as it is.
    ///
    /// # Errors
    /// Those of [`Client::list_offsets`], and of single partitions.
    pub(super) async fn offsets(
        &self,
        client: &mut Client,
        place: Place,
        isolation: IsolationLevel,
    ) -> Result<BTreeMap<TopicPartition, i64>, CommandError> {
        Ok(match place {
            Place::Earliest => self.earliest.clone(),
            Place::Latest => self.latest.clone(),
            Place::Offset(offset) => {
                let partitions = self.latest.keys().cloned();
                partitions.map(|partition| (partition, offset)).collect()
            }
            Place::BeforeEnd(count) => {
                let latest = self.latest.iter();
                latest
                    .map(|(partition, end)| {
                        let earliest = self.earliest.get(partition).copied().unwrap_or(0);
                        (partition.clone(), end.saturating_sub(count).max(earliest))
                    })
                    .collect()
            }
            Place::Time(time) => {
                let partitions: Vec<TopicPartition> = self.latest.keys().cloned().collect();
                let mut found = listed(client, &partitions, OffsetSpec::Timestamp(time), isolation).await?;
                for (partition, &end) in &self.latest {
                    found.entry(partition.clone()).or_insert(end);
                }
                found
            }
        })
    }
}

/// The offsets that there are.
async fn listed(
    client: &mut Client,
    partitions: &[TopicPartition],
    spec: OffsetSpec,
    isolation: IsolationLevel,
) -> Result<BTreeMap<TopicPartition, i64>, CommandError> {
    let wanted = partitions
        .iter()
        .map(|partition| (partition.clone(), spec))
        .collect();
    let mut offsets = BTreeMap::new();
    for (partition, found) in client.list_offsets(&wanted, isolation).await? {
        if let Some(offset) = found?.offset {
            offsets.insert(partition, offset);
        }
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_users_write_them() {
        let place = |text: &str| text.parse::<Place>();
        assert_eq!(place("earliest"), Ok(Place::Earliest));
        assert_eq!(place("end"), Ok(Place::Latest));
        assert_eq!(place("17"), Ok(Place::Offset(17)));
        assert_eq!(place("-3"), Ok(Place::BeforeEnd(3)));
        assert_eq!(place("@1970-01-01T00:00:02Z"), Ok(Place::Time(2000)));
        for text in [
            "",
            "-0",
            "1.5",
            "now",
            "-9223372036854775808",
            "99999999999999999999",
        ] {
            assert!(place(text).unwrap_err().contains("expected earliest"), "{text}");
        }
        assert!(place("@soon").unwrap_err().contains("expected a time"));
    }
}
