//! Makes the changes of a plan, each undoable: the thin shell around [`plan`](super::plan), `derive` and [`undo`](super::undo).
//!
//! While it is at work the clean-shutdown marker is away, so that a broker that is started after an interruption recovers what
//! is left; it comes back as the last change.

use milena_engine::checkpoint;
use milena_engine::io::{Io, OpenMode};
use milena_engine::log::names;
use milena_engine::units::{Offset, TopicPartition};

use super::derive::{Derived, derive};
use super::plan::{DirectoryPlan, PartitionPlan, Step};
use super::undo::{Content, Undo, Wanted};
use crate::log_dump::report::Read;

/// Makes all changes of a log directory.
///
/// # Errors
/// A read or write failed: nothing further is changed, and what was can be put back.
pub(super) fn apply(io: &dyn Io, plan: &DirectoryPlan, undo: &mut Undo<'_>) -> Read<()> {
    let marker = plan.path.join(checkpoint::CLEAN_SHUTDOWN_FILE);
    let was_clean = checkpoint::read_file(io, &marker)?.filter(|_| plan.is_clean);
    if was_clean.is_some() {
        undo.make(&[Wanted::Remove { path: marker.clone() }])?;
    }
    for partition in &plan.partitions {
        apply_partition(io, partition, undo)?;
    }
    for (name, entries) in &plan.checkpoints {
        let content = checkpoint_text(entries.iter());
        let content = Content::Bytes(content.as_bytes());
        undo.make(&[Wanted::Replace {
            path: plan.path.join(name),
            content,
        }])?;
    }
    if let Some(metadata) = &plan.metadata {
        let path = plan.path.join(checkpoint::META_PROPERTIES_FILE);
        undo.make(&[match metadata {
            Some(content) => Wanted::Replace {
                path,
                content: Content::Bytes(content),
            },
            None => Wanted::Remove { path },
        }])?;
    }
    if let Some(content) = was_clean {
        undo.make(&[Wanted::Replace {
            path: marker,
            content: Content::Bytes(&content),
        }])?;
    }
    undo.finish()
}

/// As `OffsetCheckpointFile` writes it.
fn checkpoint_text<'e>(entries: impl ExactSizeIterator<Item = (&'e TopicPartition, &'e Offset)>) -> String {
    let mut text = format!("0\n{}\n", entries.len());
    for (partition, offset) in entries {
        text.push_str(&format!("{} {} {offset}\n", partition.topic, partition.partition));
    }
    text
}

fn apply_partition(io: &dyn Io, plan: &PartitionPlan, undo: &mut Undo<'_>) -> Read<()> {
    let derived = derive(io, plan)?;
    let epochs = plan.steps.iter().find_map(|step| match step {
        Step::Epochs { entries } => {
            let lines: String = entries.iter().map(|entry| format!("{entry}\n")).collect();
            Some(format!("0\n{}\n{lines}", entries.len()))
        }
        _ => None,
    });
    let mut wanted = Vec::new();
    for step in &plan.steps {
        wanted_by(
            step,
            plan,
            &derived,
            epochs.as_deref().unwrap_or_default(),
            &mut wanted,
        );
    }
    undo.make(&wanted)?;
    if plan.sync_logs {
        for segment in &plan.segments {
            io.open(&segment.path, OpenMode::Read)?.sync()?;
        }
    }
    Ok(())
}

/// The files that a step changes.
fn wanted_by<'p>(
    step: &'p Step,
    plan: &PartitionPlan,
    derived: &'p Derived,
    epochs: &'p str,
    wanted: &mut Vec<Wanted<'p>>,
) {
    let index = |base: i64, suffix: &str| plan.path.join(names::file_name(Offset(base), suffix));
    let indexes = [names::OFFSET_INDEX, names::TIME_INDEX, names::TRANSACTION_INDEX];
    match step {
        Step::RemoveSegment { segment, base, .. } => {
            wanted.push(Wanted::Move {
                path: segment.clone(),
            });
            wanted.extend(indexes.map(|suffix| Wanted::Remove {
                path: index(*base, suffix),
            }));
        }
        Step::Cut { segment, to, .. } => wanted.push(Wanted::Cut {
            path: segment.clone(),
            to: *to,
        }),
        Step::Splice { segment, ranges, .. } => {
            wanted.push(Wanted::Replace {
                path: segment.clone(),
                content: Content::Ranges(ranges),
            });
        }
        Step::Rebuild { base, .. } => {
            let Some((_, files)) = derived.segments.iter().find(|(built, _)| built == base) else {
                return;
            };
            let contents = [&files.offset_index, &files.time_index, &files.transaction_index];
            for (suffix, content) in indexes.into_iter().zip(contents) {
                let path = index(*base, suffix);
                wanted.push(if content.is_empty() && suffix == names::TRANSACTION_INDEX {
                    Wanted::Remove { path }
                } else {
                    Wanted::Replace {
                        path,
                        content: Content::Bytes(content),
                    }
                });
            }
        }
        Step::Remove { file } => wanted.push(Wanted::Remove { path: file.clone() }),
        Step::Snapshot { offset } => {
            let path = index(*offset, names::SNAPSHOT);
            wanted.push(Wanted::Replace {
                path,
                content: Content::Bytes(&derived.snapshot),
            });
        }
        Step::Epochs { .. } => {
            let path = plan.path.join(names::LEADER_EPOCHS);
            wanted.push(Wanted::Replace {
                path,
                content: Content::Bytes(epochs.as_bytes()),
            });
        }
    }
}
