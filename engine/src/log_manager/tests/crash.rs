//! A life of partitions, cut at each of its disk operations: what was promised is found by the next start.

use super::*;

/// What a script had been promised when the power went.
#[derive(Default)]
struct Promises {
    created: Vec<&'static str>,
    deleted: Vec<&'static str>,
    stopped_clean: bool,
}

/// Creates, moves, deletes, creates again, stops. Ends at the first refusal.
fn script(disk: &SimulatedDisk, promises: &mut Promises) -> Option<()> {
    let node = try_open(disk, &["/d"], LogManagerConfig::default()).ok()?;
    for name in ["t-0", "t-1", "t-2"] {
        node.manager.get_or_create(wanted(name)).ok()?;
        promises.created.push(name);
        node.manager
            .truncate_fully_and_start_at(&partition(name), Offset(30))
            .ok()?;
        node.log(name).flush().ok()?;
    }
    node.pass(seconds(61));
    node.manager.truncate_to(&[(partition("t-1"), Offset(20))]).ok()?;
    promises.created.retain(|name| *name != "t-2");
    node.manager.delete(&partition("t-2")).ok()?;
    promises.deleted.push("t-2");
    node.pass(seconds(61));
    promises.deleted.clear();
    node.manager.get_or_create(wanted("t-2")).ok()?;
    promises.created.push("t-2");
    promises.stopped_clean = !node.manager.shutdown().clean.is_empty();
    Some(())
}

#[test]
fn after_a_power_cut_at_any_operation_the_directory_opens_and_keeps_its_promises() {
    let whole = SimulatedDisk::new(3);
    let mut promises = Promises::default();
    script(&whole, &mut promises).unwrap();
    assert!(promises.stopped_clean);
    let count = whole.op_count();
    assert!(count > 50, "{count} operations");
    for at in 0..count {
        let disk = SimulatedDisk::new(3);
        disk.cut_power_after(at);
        let mut promises = Promises::default();
        script(&disk, &mut promises);
        for seed in 0..4 {
            let image = disk.power_cut(seed);
            let place = format!("cut at operation {at}, seed {seed}");
            assert!(!promises.stopped_clean, "{place}");
            let node = try_open(&image, &["/d"], LogManagerConfig::default())
                .unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!(node.manager.out_of_service(), [], "{place}");
            let found = node.partitions();
            for name in &promises.created {
                assert!(
                    found.contains(&(*name).to_owned()),
                    "{place}: {name} in {found:?}"
                );
            }
            for name in &promises.deleted {
                assert!(
                    !found.contains(&(*name).to_owned()),
                    "{place}: {name} in {found:?}"
                );
            }
            for (partition, log) in node.manager.logs() {
                assert!(
                    log.recovery_point() <= log.log_end_offset(),
                    "{place}: {partition}"
                );
                assert!(
                    log.high_watermark() <= log.log_end_offset(),
                    "{place}: {partition}"
                );
            }
            node.create("after-0");
            node.manager.settle_lost_writes();
            assert_eq!(node.manager.shutdown().clean.len(), 1, "{place}");
        }
    }
}
