//! The time of each step whose instructions `counts` counts.

use divan::Bencher;
use divan::counter::ItemsCount;
use milena_benches::steps::{self, Step};

fn main() {
    divan::main();
}

/// Items are the step's units: headers, records, batches, MiB.
#[divan::bench(args = steps::all())]
fn step(bencher: Bencher<'_, '_>, step: &Step) {
    bencher
        .counter(ItemsCount::new(step.units_per_run))
        .bench_local((step.prepare)());
}
