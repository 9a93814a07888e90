//! Single faults at every operation: the first failure is final for its directory and for no other, nothing is
//! acknowledged after it, and what was acknowledged before is there afterwards.

use std::collections::BTreeMap;

use milena_engine::io::simulated::{Fault, SimulatedDisk};
use milena_engine::units::TopicPartition;

use crate::check::{self, Crash, Violation};
use crate::model::{Existence, History, Model};
use crate::node::Node;
use crate::script::{Script, Settings, plain};

pub(crate) const TWO: Settings = Settings {
    directories: &["/a", "/b"],
    step_count: 30,
    restarts: false,
    is_faulty: true,
    ..Settings::ONE
};

/// Runs the script of `seed` with `fault` at its operation `at`; `None` if the script ends before.
pub(crate) fn fault_at(seed: u64, fault: Fault, at: u64) -> Result<Option<()>, Violation> {
    let mut script = Script::new(seed, TWO, None);
    let before = script.op_count();
    script.disk.fail_after(at, fault);
    script.run()?;
    if script.op_count() - before <= at {
        return Ok(None);
    }
    once(&script)?;
    let lies = fault == Fault::LyingSync;
    script.end();
    let killed = script.disk.process_kill();
    start(&killed, &script, Crash::Kill, false)?;
    let cut = script.disk.power_cut(at);
    start(&cut, &script, Crash::PowerCut, lies)?;
    Ok(Some(()))
}

/// A directory that failed was said to be offline once.
fn once(script: &Script) -> Result<(), Violation> {
    let Some(node) = &script.node else { return Ok(()) };
    let mut offline = 0;
    for directory in node.manager.directories() {
        let path = directory.path().display().to_string();
        let told = node.told.offline_count(&path);
        let due = usize::from(!directory.is_online());
        offline += due;
        if told > due {
            return Err(format!("{path} went offline and {told} were told"));
        }
    }
    if offline > 1 {
        return Err("one fault took both directories offline".to_owned());
    }
    for (partition, history) in &script.model.logs {
        let is_online = node
            .manager
            .directory_of(partition)
            .is_none_or(|directory| directory.is_online());
        if history.has_failed && is_online && node.manager.get(partition).is_some() {
            return Err(format!("{partition} failed, and its directory is online"));
        }
    }
    Ok(())
}

/// The disk is healthy again: what was acknowledged is there. Where a sync lied, what is left is right.
fn start(image: &SimulatedDisk, script: &Script, crash: Crash, has_lied: bool) -> Result<(), Violation> {
    let node = Node::open(image, plain(image), &script.clock, TWO.directories)?;
    let model = Model {
        logs: relaxed(&script.model, has_lied),
    };
    // What a failed or lying sync lost is noticed, where it must be there.
    match check::logs(&node, &model, crash) {
        Err(broken) if broken.contains("is out of service") => Ok(()),
        Err(broken) if has_lied && (broken.contains("is gone") || broken.contains("lost")) => Ok(()),
        found => found.map(|_| ()),
    }
}

/// What may be there after operations that failed midway.
fn relaxed(model: &Model, has_lied: bool) -> BTreeMap<TopicPartition, History> {
    let mut logs = BTreeMap::new();
    for (partition, history) in &model.logs {
        let mut copy = History::new();
        copy.existence = history.existence;
        copy.timelines.clone_from(&history.timelines);
        copy.written = history.written;
        copy.note_synced(history.synced());
        copy.served = history.served;
        copy.log_start = (0, history.log_start.1.max(history.high_watermark.1));
        copy.high_watermark = (0, history.high_watermark.1);
        copy.is_emptying = history.is_emptying;
        if has_lied {
            copy.written = 0;
            copy.served = 0;
            copy.lower_to(0);
        }
        if history.has_failed && history.existence != Existence::There {
            copy.existence = Existence::Ending;
        }
        logs.insert(partition.clone(), copy);
    }
    logs
}
