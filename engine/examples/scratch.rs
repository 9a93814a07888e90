//! scratch
use milena_engine::config::*;
use milena_engine::io::{self, *};
use milena_engine::log::*;
use milena_engine::record_batch::*;
use milena_engine::units::*;
use std::path::Path;
use std::sync::Arc;
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let io = io::open(Backend::Syscall).unwrap();
    io.create_dir_all(Path::new(&dir)).unwrap();
    let directory = Arc::new(LogDirectory::new(&dir));
    let config = Arc::new(LogConfig {
        segment_size_bytes: 200_000,
        ..LogConfig::default()
    });
    let log = Log::open(
        directory,
        "t-0",
        TopicPartition::new("t", 0),
        config.clone(),
        &OpenOptions::default(),
        io,
        Arc::new(SystemClock::new()),
    )
    .unwrap();
    let now = 1_600_000_000_000i64;
    let mut seq = 0;
    for round in 0..400i64 {
        let codec = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][(round % 5) as usize];
        let mut sets = Vec::new();
        for k in 0..4i64 {
            let mut b = RecordBatchBuilder::new().codec(codec);
            if k == 3 {
                b = b
                    .producer(ProducerId(5), ProducerEpoch(0), Some(Sequence(seq)))
                    .transactional(true);
                seq += 3;
            }
            for i in 0..3 {
                b.append(
                    TimestampMs(now + round * 100 - i * 7 + k),
                    Some(b"k"),
                    Some(&vec![(round * 31 + i) as u8; 300]),
                );
            }
            sets.push(b.build());
        }
        let rules = ValidationRules::new(
            log.partition().clone(),
            &config,
            AppendOrigin::Client,
            RequestRules::NONE,
        );
        let mut v: Vec<_> = sets
            .iter()
            .map(|s| validate(s, &rules, TimestampMs(now), Level::Strict).unwrap())
            .collect();
        for r in log.append_as_leader(&mut v, AppendOrigin::Client, LeaderEpoch(2)) {
            r.unwrap();
        }
        if round % 20 == 19 {
            let kind = if round % 40 == 19 {
                ControlKind::Abort
            } else {
                ControlKind::Commit
            };
            let m = RecordBatchBuilder::end_transaction_marker(
                ControlRecord {
                    kind,
                    coordinator_epoch: 1,
                },
                ProducerId(5),
                ProducerEpoch(0),
                TimestampMs(now + round * 100),
            );
            let rules = ValidationRules::new(
                log.partition().clone(),
                &config,
                AppendOrigin::Coordinator,
                RequestRules::NONE,
            );
            let mut v = [validate(&m, &rules, TimestampMs(now), Level::Strict).unwrap()];
            for r in log.append_as_leader(&mut v, AppendOrigin::Coordinator, LeaderEpoch(2)) {
                r.unwrap();
            }
        }
    }
    println!("{:?}", log.offsets());
    log.close().unwrap();
}
