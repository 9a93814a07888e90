//! One log on the real disk by the size of what is appended, synced and recovered. What bounds it is said in
//! `src/steps/logs.rs`; a synced append by the medium.

use std::sync::mpsc::channel;

use divan::Bencher;
use divan::counter::BytesCount;
use milena_benches::inputs::{BenchLog, NOW, batch};
use milena_engine::config::Codec;
use milena_engine::io::Backend;
use milena_engine::units::Offset;

fn main() {
    divan::main();
}

/// Validated and written to the page cache, by records of 1 KiB.
#[divan::bench(args = [1, 8, 64])]
fn append(bencher: Bencher<'_, '_>, record_count: usize) {
    let log = BenchLog::new("append", Backend::Auto);
    let bytes = batch(Codec::None, 1024, record_count, NOW);
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| log.append(&bytes));
}

/// So many appends of 1 KiB that share one sync.
#[divan::bench(args = [1, 16, 64])]
fn synced_appends(bencher: Bencher<'_, '_>, group_size: usize) {
    let log = BenchLog::new("synced", Backend::Auto);
    let bytes = batch(Codec::None, 1024, 1, NOW);
    bencher
        .counter(BytesCount::new(bytes.len() * group_size))
        .bench_local(|| {
            let mut end = Offset(0);
            for _ in 0..group_size {
                end = log.append(&bytes);
            }
            let (done, synced) = channel();
            log.log()
                .when_synced(end, Box::new(move |result| drop(done.send(result))));
            synced
                .recv()
                .expect("every waiter is told")
                .expect("a healthy disk");
        });
}

/// 256 MiB that are in the page cache are checked and indexed anew, as after a kill.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn recovery(bencher: Bencher<'_, '_>) {
    let log = BenchLog::new("recovery", Backend::Auto);
    let bytes = batch(Codec::None, 1024, 64, NOW);
    while log.log().size_bytes() < 256 << 20 {
        log.append(&bytes);
    }
    bencher
        .counter(BytesCount::new(256_usize << 20))
        .bench_local(|| log.recover());
}
