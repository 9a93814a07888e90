//! The offsets that groups are to have, as CSV in the format of `kafka-consumer-groups.sh`: `topic,partition,offset`
//! for one group, `group,topic,partition,offset` for several. Its own export can be read, and it can read ours.

use std::collections::BTreeMap;
use std::path::Path;

use crate::partition_offsets::Partition;
use crate::small_file;

/// A million lines of a plan have half of it.
const PLAN_SIZE_MAX_BYTES: u64 = 64 << 20;

/// New offsets by group and partition.
pub(super) type Plan = BTreeMap<String, BTreeMap<Partition, i64>>;

/// Reads a file; lines without a group are the only group's that is meant.
///
/// # Errors
/// Names line and column of what is wrong.
pub(super) fn read(path: &Path, groups: &[String]) -> Result<Plan, String> {
    let text = small_file::read(path, PLAN_SIZE_MAX_BYTES)?;
    parse(&text, groups).map_err(|error| format!("{}: {error}", path.display()))
}

fn parse(text: &[u8], groups: &[String]) -> Result<Plan, String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text);
    let mut plan = Plan::new();
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let fields: Vec<&str> = record.iter().map(str::trim).collect();
        let (group, topic, partition, offset) = match (fields.as_slice(), groups) {
            ([topic, partition, offset], [group]) => (group.as_str(), *topic, *partition, *offset),
            ([group, topic, partition, offset], _) => (*group, *topic, *partition, *offset),
            ([_, _, _], _) => {
                return Err(format!(
                    "line {line}: expected group,topic,partition,offset, as there are several groups"
                ));
            }
            _ => {
                return Err(format!(
                    "line {line}: expected topic,partition,offset or group,topic,partition,offset"
                ));
            }
        };
        let partition = partition
            .parse()
            .ok()
            .filter(|&number: &i32| number >= 0)
            .ok_or_else(|| format!("line {line}: found partition {partition:?}, expected a number"))?;
        let offset = offset
            .parse()
            .ok()
            .filter(|&offset: &i64| offset >= 0)
            .ok_or_else(|| format!("line {line}: found offset {offset:?}, expected a number"))?;
        if group.is_empty() {
            return Err(format!("line {line}: found an empty group, expected its name"));
        }
        let offsets: &mut BTreeMap<Partition, i64> = plan.entry(group.to_owned()).or_default();
        if let Some(first) = offsets.insert((topic.to_owned(), partition), offset) {
            return Err(format!(
                "line {line}: found {topic}-{partition} of group {group} a second time, expected one offset for it; \
                 the first was {first}"
            ));
        }
    }
    Ok(plan)
}

/// The lines of a plan, without the group where there is only one.
pub(super) fn written(plan: &Plan, is_of_one_group: bool) -> Result<String, String> {
    let mut writer = csv::WriterBuilder::new()
        .has_headers(false)
        .from_writer(Vec::new());
    for (group, offsets) in plan {
        for ((topic, partition), offset) in offsets {
            let numbers = [partition.to_string(), offset.to_string()];
            let record = [group.as_str(), topic, &numbers[0], &numbers[1]];
            let record = if is_of_one_group {
                &record[1..]
            } else {
                &record[..]
            };
            writer.write_record(record).map_err(|error| error.to_string())?;
        }
    }
    let bytes = writer.into_inner().map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(groups: &[&str]) -> Vec<String> {
        groups.iter().map(|&group| group.to_owned()).collect()
    }

    #[test]
    fn a_plan_survives_its_csv_with_and_without_the_group() {
        let offsets = BTreeMap::from([(("t".to_owned(), 0), 5), (("t".to_owned(), 1), 6)]);
        let mut plan = Plan::from([("g".to_owned(), offsets.clone())]);
        let text = written(&plan, true).unwrap();
        assert_eq!(text, "t,0,5\nt,1,6\n");
        assert_eq!(parse(text.as_bytes(), &names(&["g"])).unwrap(), plan);
        plan.insert("g, \"2\"".to_owned(), offsets);
        let text = written(&plan, false).unwrap();
        assert!(text.contains("\"g, \"\"2\"\"\",t,0,5\n"), "{text}");
        assert_eq!(parse(text.as_bytes(), &names(&["g", "g, \"2\""])).unwrap(), plan);
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        let error = |text: &str, groups: &[&str]| parse(text.as_bytes(), &names(groups)).unwrap_err();
        assert!(error("t,0,5\nt,x,6\n", &["g"]).starts_with("line 2: found partition \"x\""));
        assert!(error("t,0,-1\n", &["g"]).starts_with("line 1: found offset"));
        assert!(error("t,0\n", &["g"]).starts_with("line 1: expected topic"));
        assert!(error("t,0,5\n", &["g", "h"]).starts_with("line 1: expected group"));
        assert!(error("t,0,5\nt,0,6\n", &["g"]).starts_with("line 2: found t-0 of group g a second time"));
        assert!(error(",t,0,5\n", &["g"]).starts_with("line 1: found an empty group"));
    }
}
