//! Every step by name: what a broker does again and again for a request, a batch or a segment.
//!
//! A step runs on one thread, on inputs that are the same each time, and can be repeated without end: it leaves
//! nothing behind that makes the next run dearer.

use std::hint::black_box;

mod batches;
mod logs;
mod wire;

/// The work, with its inputs prepared.
pub type Work = Box<dyn FnMut()>;

/// Something that the broker does.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// As in the baseline and on the command line.
    pub name: &'static str,
    /// What the cost is stated for.
    pub unit: &'static str,
    /// How many of them one run does.
    pub units_per_run: u32,
    /// How many runs give a count that does not hang on rare events, such as an index entry each 4 KiB.
    pub runs: u32,
    /// Makes the inputs, which costs as much as it likes.
    pub prepare: fn() -> Work,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// All of them, in the order in which a request meets them.
pub const STEPS: &[&[Step]] = &[wire::REQUESTS, batches::STEPS, logs::STEPS, wire::ANSWERS];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Step> {
    STEPS.iter().copied().flatten()
}

/// The function whose instructions are counted, with all that it calls: callgrind knows it by its name.
#[inline(never)]
pub fn counted(work: &mut dyn FnMut(), runs: u32) {
    for _ in 0..black_box(runs) {
        work();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::all;

    #[test]
    fn every_step_runs_and_has_a_name_of_its_own() {
        for step in all() {
            let mut work = (step.prepare)();
            work();
            work();
            assert!(step.runs > 0 && step.units_per_run > 0, "{step}");
        }
        let names: BTreeSet<_> = all().map(|step| step.name).collect();
        assert_eq!(names.len(), all().count());
    }
}
