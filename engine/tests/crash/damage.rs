//! Bits that flip at rest: what is served is what was appended, or the client's CRC and the scrub notice.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use milena_engine::log::{ScrubCursor, UpperBound};
use milena_engine::record_batch::batches;
use milena_engine::units::Offset;

use crate::check::{self, Violation};
use crate::model::{Existence, Model, Random};
use crate::node::Node;
use crate::script::{Script, Settings, plain};

/// Bytes 12 to 15 of a batch, the leader epoch, are covered by no checksum of the format.
const EPOCH: std::ops::Range<usize> = 12..16;

/// Runs the script of `seed`, stops it cleanly or kills it, and flips one bit at a time in any of its files.
pub(crate) fn flipped_bits(seed: u64, count: usize) -> Result<(), Violation> {
    let mut script = Script::new(
        seed,
        Settings {
            restarts: false,
            ..Settings::ONE
        },
        None,
    );
    script.run()?;
    let mut random = Random::new(seed);
    if seed.is_multiple_of(2)
        && let Some(node) = &script.node
    {
        node.manager.shutdown();
    }
    script.end();
    let files: Vec<(PathBuf, Vec<u8>)> = check::files_below(&script.disk, Path::new("/a"))
        .into_iter()
        .filter(|(_, content)| !content.is_empty())
        .collect();
    for _ in 0..count {
        let (path, content) = random.pick(&files);
        let position = random.below(content.len() as u64);
        let image = script.disk.process_kill();
        let bit = random.below(8) as u8;
        image.flip_bit(path, position, bit);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            match Node::open(&image, plain(&image), &script.clock, Settings::ONE.directories) {
                Ok(node) => served(&node, &script.model),
                // Refused by name, such as a log directory of another broker.
                Err(_) => Ok(()),
            }
        }));
        let outcome = outcome.unwrap_or_else(|_| Err("a panic".to_owned()));
        outcome.map_err(|broken| {
            format!(
                "seed {seed}, bit {bit} of byte {position} of {} flipped: {broken}",
                path.display()
            )
        })?;
    }
    Ok(())
}

/// Every batch served without a mark of damage is the one that was appended.
fn served(node: &Node, model: &Model) -> Result<(), Violation> {
    for (partition, history) in &model.logs {
        let Some(log) = node.log(partition) else { continue };
        if history.existence != Existence::There {
            continue;
        }
        let mut has_damage = false;
        let mut next = log.log_start_offset();
        while next < log.log_end_offset() {
            let Ok(info) = log.read(next, 1 << 20, UpperBound::LogEnd, true) else {
                has_damage = true;
                break;
            };
            let bytes = info
                .records
                .and_then(|slice| slice.read().ok())
                .unwrap_or_default();
            let before = next;
            for batch in batches(&bytes) {
                let Ok(batch) = batch else {
                    break;
                };
                let base = batch.base_offset().get();
                next = Offset(next.get().max(batch.next_offset().get()));
                if batch.verify_crc().is_err() {
                    has_damage = true;
                    continue;
                }
                let mut found = batch.bytes().to_vec();
                let known = history.timelines.iter().find_map(|timeline| timeline.at(base));
                let Some(known) = known else {
                    // The base offset is covered by no checksum either; its order is.
                    has_damage = true;
                    break;
                };
                let mut expected = known.bytes.clone();
                for bytes in [&mut found, &mut expected] {
                    bytes[EPOCH].fill(0);
                }
                if found != expected {
                    return Err(format!("{partition}: another batch at {base}, with a right CRC"));
                }
            }
            if next == before {
                has_damage = true;
                break;
            }
        }
        if has_damage && log.out_of_service().is_none() {
            let mut cursor = ScrubCursor::default();
            while let Ok(progress) = log.scrub(&mut cursor, 1 << 20) {
                if progress.is_complete {
                    return Err(format!("{partition}: the scrub does not see the damage"));
                }
            }
        }
    }
    Ok(())
}
