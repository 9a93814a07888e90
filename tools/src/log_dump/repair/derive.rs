//! The derived files of a partition as it will be, read from what of its logs stays.

use milena_engine::io::Io;
use milena_engine::log::derived::{Derivation, SegmentFiles};
use milena_engine::log::names;
use milena_engine::record_batch::{Batch, BatchHeader};
use milena_engine::units::{Offset, TopicPartition};

use super::plan::{PartitionPlan, Step};
use crate::log_dump::report::Read;
use crate::log_dump::verify::Window;

/// A control batch holds one small record.
const CONTROL_SIZE_BYTES_MAX: usize = 1 << 16;

/// What the steps of a plan write.
#[derive(Debug, Default)]
pub(super) struct Derived {
    /// By base offset.
    pub(super) segments: Vec<(i64, SegmentFiles)>,
    pub(super) snapshot: Vec<u8>,
}

/// Walks the logs from the newest snapshot on that lies in front of everything to be built.
pub(super) fn derive(io: &dyn Io, plan: &PartitionPlan) -> Read<Derived> {
    let is_built = |base: i64| {
        plan.steps
            .iter()
            .any(|step| matches!(step, Step::Rebuild { base: built, .. } if *built == base))
    };
    let wants_snapshot = plan
        .steps
        .iter()
        .any(|step| matches!(step, Step::Snapshot { .. }));
    let first_built = plan
        .segments
        .iter()
        .map(|segment| segment.base)
        .find(|base| is_built(*base));
    let mut derived = Derived::default();
    if first_built.is_none() && !wants_snapshot {
        return Ok(derived);
    }
    let first = plan.segments.first().map_or(0, |segment| segment.base);
    let unnamed = || TopicPartition::new("", 0);
    let mut derivation = Derivation::new(plan.partition.clone().unwrap_or_else(unnamed), Offset(first));
    let limit = first_built.unwrap_or(plan.end()).min(plan.end());
    let mut from = first;
    for offset in plan
        .snapshots
        .iter()
        .rev()
        .filter(|offset| **offset <= limit && **offset > first)
    {
        let path = plan.path.join(names::file_name(Offset(*offset), names::SNAPSHOT));
        let bytes = milena_engine::checkpoint::read_file(io, &path)?.unwrap_or_default();
        // The examination has read it; if it is another by now, an older one does too.
        if derivation.load_snapshot(Offset(*offset), &bytes).is_ok() {
            from = *offset;
            break;
        }
    }
    for segment in plan
        .segments
        .iter()
        .filter(|segment| segment.next_offset > from || is_built(segment.base))
    {
        derivation.begin_segment(Offset(segment.base));
        if !segment.ranges.is_empty() {
            let mut window = Window::open(io, &segment.path)?;
            for range in &segment.ranges {
                walk(&mut window, range.clone(), &mut derivation)?;
            }
        }
        if is_built(segment.base) {
            derived.segments.push((segment.base, derivation.segment_files()));
        }
    }
    if wants_snapshot {
        derived.snapshot = derivation.snapshot();
    }
    Ok(derived)
}

fn walk(window: &mut Window, range: std::ops::Range<u64>, derivation: &mut Derivation) -> Read<()> {
    let mut position = range.start;
    while position < range.end {
        // All batches in a range were found sound.
        let Ok(header) = BatchHeader::parse(window.at(position, BatchHeader::SIZE_MAX)?) else {
            break;
        };
        let control = if header.is_control && header.size_bytes <= CONTROL_SIZE_BYTES_MAX {
            let bytes = window.at(position, header.size_bytes)?;
            Batch::parse(bytes).and_then(|batch| batch.control_record()).ok()
        } else {
            None
        };
        derivation.add(&header, control);
        position += header.size_bytes as u64;
    }
    Ok(())
}
