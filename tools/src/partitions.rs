//! Partitions as Kafka's tools let people write them: `orders` for all of a topic, `orders:0,2` for some.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use milena_server::client::{Client, Topics};
use milena_server::protocol::ErrorCode;

use crate::cluster_args::{CommandError, no_such_topic};
use crate::output::list;
use crate::partition_offsets::Partition;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionArg {
    topic: String,
    /// All when there are none.
    numbers: Vec<i32>,
}

impl FromStr for PartitionArg {
    type Err = String;

    fn from_str(text: &str) -> Result<PartitionArg, String> {
        let wrong = || format!("found {text:?}, expected topic or topic:0,1,..");
        let (topic, numbers) = match text.split_once(':') {
            None => (text, Vec::new()),
            Some((topic, list)) => {
                let number = |word: &str| word.trim().parse().ok().filter(|&number: &i32| number >= 0);
                let numbers: Option<Vec<i32>> = list.split(',').map(number).collect();
                (topic, numbers.ok_or_else(wrong)?)
            }
        };
        if topic.is_empty() {
            return Err(wrong());
        }
        Ok(PartitionArg {
            topic: topic.to_owned(),
            numbers,
        })
    }
}

/// As people write it.
impl fmt::Display for PartitionArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.numbers.as_slice() {
            [] => f.write_str(&self.topic),
            numbers => write!(f, "{}:{}", self.topic, list(numbers)),
        }
    }
}

impl PartitionArg {
    pub(crate) fn includes(&self, (topic, number): &Partition) -> bool {
        self.topic == *topic && (self.numbers.is_empty() || self.numbers.contains(number))
    }
}

/// All that are meant, each of which is there.
pub(crate) async fn resolved(
    client: &mut Client,
    arguments: &[PartitionArg],
) -> Result<BTreeSet<Partition>, CommandError> {
    let names: BTreeSet<String> = arguments.iter().map(|argument| argument.topic.clone()).collect();
    let names: Vec<String> = names.into_iter().collect();
    let topics = client.metadata(Topics::Named(&names)).await?.topics;
    let mut partitions = BTreeSet::new();
    for PartitionArg { topic, numbers } in arguments {
        let known = topics
            .get(topic)
            .filter(|known| known.error != ErrorCode::UnknownTopicOrPartition);
        let Some(known) = known else {
            return Err(no_such_topic(client, topic).await);
        };
        if let Some(missing) = numbers.iter().find(|&&number| known.partition(number).is_none()) {
            let count = known.partitions.len();
            return Err(CommandError::Failed(format!(
                "there is no partition {missing} of topic {topic}, which has {count}"
            )));
        }
        let all = known.partitions.iter().map(|partition| partition.id);
        let meant = all.filter(|id| numbers.is_empty() || numbers.contains(id));
        partitions.extend(meant.map(|id| (topic.clone(), id)));
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_meant_whole_or_by_the_numbers_of_its_partitions() {
        let parse = |text: &str| text.parse::<PartitionArg>();
        let all = parse("orders").unwrap();
        assert_eq!((all.topic.as_str(), all.numbers), ("orders", vec![]));
        let some = parse("orders:0,2").unwrap();
        assert_eq!(some.to_string(), "orders:0,2");
        assert!(some.includes(&("orders".to_owned(), 2)) && !some.includes(&("orders".to_owned(), 1)));
        for wrong in ["", ":0", "orders:", "orders:a", "orders:-1"] {
            assert!(
                parse(wrong).unwrap_err().contains("expected topic or topic:0"),
                "{wrong}"
            );
        }
    }
}
