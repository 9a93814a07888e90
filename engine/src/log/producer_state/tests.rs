//! Behaviour of the producer state machine, as sentences.

use super::*;

const ID: ProducerId = ProducerId(7);
const OTHER: ProducerId = ProducerId(8);
const HOUR_MS: i64 = 3_600_000;

fn manager() -> ProducerStateManager {
    ProducerStateManager::new(TopicPartition::new("t", 0), HOUR_MS)
}

/// One batch of `count` records.
fn data(id: ProducerId, epoch: i16, sequence: i32, offset: i64, count: i32) -> ProducerBatch {
    ProducerBatch {
        producer_id: id,
        epoch: ProducerEpoch(epoch),
        base_offset: Offset(offset),
        last_offset: Offset(offset + i64::from(count) - 1),
        max_timestamp: TimestampMs(1000 + offset),
        content: BatchContent::Data {
            base_sequence: Some(Sequence(sequence)),
            last_sequence: Some(Sequence(sequence).plus(count - 1)),
            transactional: false,
        },
    }
}

fn transactional(batch: ProducerBatch) -> ProducerBatch {
    let BatchContent::Data {
        base_sequence,
        last_sequence,
        ..
    } = batch.content
    else {
        panic!("not data")
    };
    ProducerBatch {
        content: BatchContent::Data {
            base_sequence,
            last_sequence,
            transactional: true,
        },
        ..batch
    }
}

fn marker(
    id: ProducerId,
    epoch: i16,
    outcome: TransactionOutcome,
    coordinator: i32,
    at: i64,
) -> ProducerBatch {
    ProducerBatch {
        producer_id: id,
        epoch: ProducerEpoch(epoch),
        base_offset: Offset(at),
        last_offset: Offset(at),
        max_timestamp: TimestampMs(1000 + at),
        content: BatchContent::EndTransaction {
            outcome,
            coordinator_epoch: coordinator,
        },
    }
}

fn append(
    state: &mut ProducerStateManager,
    batch: ProducerBatch,
    origin: AppendOrigin,
) -> Result<Verdict, ProducerRefusal> {
    let verdict = state.append([batch], origin, &mut Vec::new())?;
    if verdict == Verdict::New {
        state.set_map_end_offset(batch.last_offset.plus(1));
    }
    Ok(verdict)
}

fn client(state: &mut ProducerStateManager, batch: ProducerBatch) -> Result<Verdict, ProducerRefusal> {
    append(state, batch, AppendOrigin::Client)
}

/// What was written at the beginning comes once more.
fn repeat(sequence: i32, count: i32) -> ProducerBatch {
    ProducerBatch {
        max_timestamp: TimestampMs(1000),
        ..data(ID, 0, sequence, 500, count)
    }
}

fn refusal_name(result: &Result<Verdict, ProducerRefusal>) -> &'static str {
    match result {
        Ok(Verdict::New) => "new",
        Ok(Verdict::Duplicate { .. }) => "duplicate",
        Err(ProducerRefusal::OutOfOrderSequence { .. }) => "out of order",
        Err(ProducerRefusal::NewEpochSequence { .. }) => "new epoch",
        Err(ProducerRefusal::StaleEpoch { .. }) => "stale epoch",
        Err(ProducerRefusal::CoordinatorFenced { .. }) => "fenced",
        Err(ProducerRefusal::InvalidTransactionState { .. }) => "transaction",
    }
}

#[test]
fn the_next_sequence_is_accepted_and_anything_else_is_judged_by_rule() {
    // The state before: epoch 3, one batch of sequences 10 to 14.
    for (batch, verdict) in [
        (data(ID, 3, 15, 100, 2), "new"),
        (data(ID, 3, 10, 100, 5), "duplicate"),
        (data(ID, 3, 10, 100, 4), "out of order"),
        (data(ID, 3, 16, 100, 1), "out of order"),
        (data(ID, 3, 0, 100, 1), "out of order"),
        (data(ID, 2, 15, 100, 1), "stale epoch"),
        (data(ID, 4, 15, 100, 1), "new epoch"),
        (data(ID, 4, 0, 100, 1), "new"),
        (data(OTHER, 0, 77, 100, 1), "new"),
    ] {
        let mut state = manager();
        client(&mut state, data(ID, 3, 10, 0, 5)).unwrap();
        let before = state.encode();
        let result = client(&mut state, batch);
        assert_eq!(refusal_name(&result), verdict, "{batch:?}");
        assert_eq!(
            state.encode() == before,
            verdict != "new",
            "only a new batch changes the state: {batch:?}"
        );
    }
}

#[test]
fn a_sequence_may_wrap_from_the_largest_to_zero_between_and_inside_batches() {
    let mut state = manager();
    client(&mut state, data(ID, 0, i32::MAX - 1, 0, 2)).unwrap();
    assert_eq!(refusal_name(&client(&mut state, data(ID, 0, 0, 2, 1))), "new");

    let mut state = manager();
    let across = data(ID, 0, i32::MAX - 1, 0, 4);
    client(&mut state, across).unwrap();
    assert_eq!(
        client(&mut state, across).unwrap(),
        Verdict::Duplicate {
            first_offset: Some(Offset(0)),
            last_offset: Offset(3),
            timestamp: TimestampMs(1000)
        }
    );
    assert_eq!(refusal_name(&client(&mut state, data(ID, 0, 2, 4, 1))), "new");
}

#[test]
fn the_last_five_batches_are_known_as_duplicates_with_their_offsets_and_older_ones_without() {
    let mut state = manager();
    for n in 0..7 {
        client(&mut state, data(ID, 0, n * 10, i64::from(n) * 10, 10)).unwrap();
    }
    for n in 0..7 {
        let again = client(&mut state, repeat(n * 10, 10));
        let first = Offset(i64::from(n) * 10);
        let expected = if n < 2 {
            Verdict::Duplicate {
                first_offset: None,
                last_offset: Offset(19),
                timestamp: TimestampMs::NONE,
            }
        } else {
            Verdict::Duplicate {
                first_offset: Some(first),
                last_offset: first.plus(9),
                timestamp: TimestampMs(1000 + first.get()),
            }
        };
        assert_eq!(again.unwrap(), expected);
    }
    // Not a repeat of anything: it overlaps, or lies ahead, or would have to come from before the first.
    for (sequence, count) in [(15, 10), (71, 1), (1_000_000, 10), (i32::MAX - 9, 10)] {
        let odd = client(&mut state, repeat(sequence, count));
        assert_eq!(refusal_name(&odd), "out of order", "{sequence}");
    }
}

#[test]
fn what_is_newer_than_the_last_batch_is_not_taken_for_a_forgotten_one() {
    let mut state = manager();
    for n in 0..7 {
        client(&mut state, data(ID, 0, n * 10, i64::from(n) * 10, 10)).unwrap();
    }
    // Of a producer of another cluster, which gave it the same id.
    for (timestamp, verdict) in [(1060, "duplicate"), (1061, "out of order"), (-1, "out of order")] {
        let other = ProducerBatch {
            max_timestamp: TimestampMs(timestamp),
            ..repeat(0, 10)
        };
        assert_eq!(refusal_name(&client(&mut state, other)), verdict, "{timestamp}");
    }
}

#[test]
fn what_lies_behind_a_gap_is_not_taken_for_a_duplicate() {
    let mut state = manager();
    for (sequence, offset) in [
        (0, 0),
        (10, 10),
        (30, 20),
        (40, 30),
        (50, 40),
        (60, 50),
        (70, 60),
        (80, 70),
    ] {
        // A replica takes what the leader took, who did not know the producer for a while.
        append(
            &mut state,
            data(ID, 0, sequence, offset, 10),
            AppendOrigin::Replication,
        )
        .unwrap();
    }
    for (sequence, verdict) in [
        (0, "out of order"),
        (10, "out of order"),
        (20, "out of order"),
        (30, "duplicate"),
    ] {
        let again = client(&mut state, repeat(sequence, 10));
        assert_eq!(refusal_name(&again), verdict, "{sequence}");
    }
}

#[test]
fn a_forgotten_batch_is_known_across_the_wrap_of_sequences() {
    let mut state = manager();
    for n in 0..8 {
        let sequence = Sequence(i32::MAX - 24).plus(n * 10).get();
        client(&mut state, data(ID, 0, sequence, i64::from(n) * 10, 10)).unwrap();
    }
    for n in 0..3 {
        let sequence = Sequence(i32::MAX - 24).plus(n * 10).get();
        assert_eq!(
            refusal_name(&client(&mut state, repeat(sequence, 10))),
            "duplicate"
        );
    }
    let before = client(&mut state, repeat(i32::MAX - 34, 10));
    assert_eq!(refusal_name(&before), "out of order");
}

#[test]
fn what_a_truncation_leaves_is_known_as_before() {
    for snapshot_after in [0, 3, 6] {
        let mut whole = manager();
        let mut snapshot = None;
        for n in 0..9 {
            client(&mut whole, data(ID, 0, n * 10, i64::from(n) * 10, 10)).unwrap();
            if n == snapshot_after {
                snapshot = whole.take_snapshot();
            }
        }
        // Two batches are cut off; the rest is loaded from the snapshot and the log.
        let (offset, bytes) = snapshot.unwrap();
        let mut left = manager();
        left.load_snapshot(offset, &bytes, TimestampMs(0)).unwrap();
        for n in snapshot_after + 1..7 {
            let batch = data(ID, 0, n * 10, i64::from(n) * 10, 10);
            append(&mut left, batch, AppendOrigin::Replication).unwrap();
        }
        left.recall(&whole);
        for n in 0..7 {
            let verdict = client(&mut left, repeat(n * 10, 10));
            assert_eq!(refusal_name(&verdict), "duplicate", "{n} after {snapshot_after}");
        }
        assert_eq!(refusal_name(&client(&mut left, repeat(80, 10))), "out of order");
        assert_eq!(refusal_name(&client(&mut left, data(ID, 0, 70, 70, 10))), "new");
    }
}

#[test]
fn a_new_epoch_forgets_the_batches_of_the_old_one() {
    let mut state = manager();
    client(&mut state, data(ID, 0, 0, 0, 3)).unwrap();
    client(&mut state, data(ID, 1, 0, 3, 3)).unwrap();
    assert_eq!(state.producers[&ID].batches().count(), 1);
    assert_eq!(
        refusal_name(&client(&mut state, data(ID, 0, 0, 6, 3))),
        "stale epoch"
    );
}

#[test]
fn a_coordinator_is_checked_for_its_epoch_but_not_for_sequences() {
    let mut state = manager();
    let without_sequence = |epoch, offset| ProducerBatch {
        content: BatchContent::Data {
            base_sequence: None,
            last_sequence: None,
            transactional: true,
        },
        ..data(ID, epoch, 0, offset, 1)
    };
    for offset in 0..3 {
        assert_eq!(
            append(&mut state, without_sequence(5, offset), AppendOrigin::Coordinator),
            Ok(Verdict::New)
        );
    }
    let stale = append(&mut state, without_sequence(4, 3), AppendOrigin::Coordinator);
    assert_eq!(refusal_name(&stale), "stale epoch");
}

#[test]
fn a_replicated_batch_is_never_refused() {
    let mut state = manager();
    append(
        &mut state,
        transactional(data(ID, 5, 100, 0, 1)),
        AppendOrigin::Replication,
    )
    .unwrap();
    for batch in [
        data(ID, 5, 7, 1, 1),
        data(ID, 5, 7, 1, 1),
        data(ID, 2, 99, 2, 1),
        marker(ID, 5, TransactionOutcome::Commit, 9, 3),
        marker(ID, 5, TransactionOutcome::Commit, 2, 4),
    ] {
        assert_eq!(
            append(&mut state, batch, AppendOrigin::Replication),
            Ok(Verdict::New),
            "{batch:?}"
        );
    }
}

#[test]
fn records_outside_a_transaction_are_refused_while_one_is_open() {
    let mut state = manager();
    client(&mut state, transactional(data(ID, 0, 0, 0, 1))).unwrap();
    assert_eq!(
        refusal_name(&client(&mut state, data(ID, 0, 1, 1, 1))),
        "transaction"
    );
    append(
        &mut state,
        marker(ID, 0, TransactionOutcome::Commit, 0, 1),
        AppendOrigin::Coordinator,
    )
    .unwrap();
    assert_eq!(refusal_name(&client(&mut state, data(ID, 0, 1, 2, 1))), "new");
}

#[test]
fn a_transaction_is_unstable_until_its_marker_is_replicated() {
    let mut state = manager();
    assert_eq!(state.first_unstable_offset(), None);
    client(&mut state, transactional(data(ID, 0, 0, 10, 5))).unwrap();
    client(&mut state, transactional(data(OTHER, 0, 0, 15, 5))).unwrap();
    client(&mut state, transactional(data(ID, 0, 5, 20, 5))).unwrap();
    assert_eq!(state.first_unstable_offset(), Some(Offset(10)));

    let mut aborted = Vec::new();
    state
        .append(
            [marker(ID, 0, TransactionOutcome::Abort, 0, 25)],
            AppendOrigin::Coordinator,
            &mut aborted,
        )
        .unwrap();
    let expected = AbortedTransaction {
        producer_id: ID,
        first_offset: Offset(10),
        last_offset: Offset(25),
        last_stable_offset: Offset(15),
    };
    assert_eq!(aborted, [expected]);
    assert_eq!(state.first_undecided_offset(), Some(Offset(15)));
    assert_eq!(
        state.first_unstable_offset(),
        Some(Offset(10)),
        "decided, not yet replicated"
    );

    state.on_high_watermark_updated(Offset(25));
    assert_eq!(
        state.first_unstable_offset(),
        Some(Offset(10)),
        "the marker itself lies at the high watermark"
    );
    state.on_high_watermark_updated(Offset(26));
    assert_eq!(state.first_unstable_offset(), Some(Offset(15)));

    append(
        &mut state,
        marker(OTHER, 0, TransactionOutcome::Commit, 0, 26),
        AppendOrigin::Coordinator,
    )
    .unwrap();
    state.on_high_watermark_updated(Offset(27));
    assert_eq!(state.first_unstable_offset(), None);
}

#[test]
fn a_marker_without_data_is_unstable_at_itself_and_indexed_if_it_aborts() {
    let mut state = manager();
    let mut aborted = Vec::new();
    let batch = marker(ID, 0, TransactionOutcome::Abort, 0, 40);
    state
        .append([batch], AppendOrigin::Coordinator, &mut aborted)
        .unwrap();
    assert_eq!(state.first_unstable_offset(), Some(Offset(40)));
    let expected = AbortedTransaction {
        producer_id: ID,
        first_offset: Offset(40),
        last_offset: Offset(40),
        last_stable_offset: Offset(41),
    };
    assert_eq!(aborted, [expected]);
}

#[test]
fn a_marker_of_an_older_coordinator_or_producer_epoch_is_refused() {
    let mut state = manager();
    let commit = |epoch, coordinator, at| marker(ID, epoch, TransactionOutcome::Commit, coordinator, at);
    append(&mut state, commit(3, 5, 0), AppendOrigin::Coordinator).unwrap();
    assert_eq!(
        refusal_name(&append(&mut state, commit(3, 4, 1), AppendOrigin::Coordinator)),
        "fenced"
    );
    assert_eq!(
        refusal_name(&append(&mut state, commit(2, 5, 1), AppendOrigin::Coordinator)),
        "stale epoch"
    );
    assert_eq!(
        refusal_name(&append(&mut state, commit(3, 5, 1), AppendOrigin::Coordinator)),
        "new"
    );
    assert_eq!(state.producers[&ID].coordinator_epoch, Some(5));
}

#[test]
fn after_a_marker_with_a_new_epoch_the_producer_starts_again_at_zero() {
    let mut state = manager();
    client(&mut state, transactional(data(ID, 0, 0, 0, 3))).unwrap();
    append(
        &mut state,
        marker(ID, 1, TransactionOutcome::Abort, 0, 3),
        AppendOrigin::Coordinator,
    )
    .unwrap();
    assert_eq!(
        refusal_name(&client(&mut state, data(ID, 1, 3, 4, 1))),
        "out of order"
    );
    assert_eq!(refusal_name(&client(&mut state, data(ID, 1, 0, 4, 1))), "new");
}

#[test]
fn a_set_that_is_refused_half_way_leaves_no_trace() {
    let mut state = manager();
    client(&mut state, transactional(data(OTHER, 0, 0, 0, 1))).unwrap();
    let before = state.clone();
    let mut aborted = Vec::new();
    let set = [
        transactional(data(ID, 0, 0, 1, 1)),
        marker(OTHER, 0, TransactionOutcome::Abort, 0, 2),
        transactional(data(ID, 0, 9, 3, 1)),
    ];
    let result = state.append(set, AppendOrigin::Client, &mut aborted);
    assert_eq!(refusal_name(&result), "out of order");
    assert_eq!(aborted, []);
    assert_eq!(state.encode(), before.encode());
    assert_eq!(state.first_unstable_offset(), Some(Offset(0)));
    assert_eq!(
        (&state.ongoing, &state.unreplicated),
        (&before.ongoing, &before.unreplicated)
    );
}

#[test]
fn an_empty_control_batch_changes_nothing() {
    let mut state = manager();
    let batch = ProducerBatch {
        content: BatchContent::EmptyControl,
        ..data(ID, 0, 0, 0, 1)
    };
    for origin in [
        AppendOrigin::Client,
        AppendOrigin::Coordinator,
        AppendOrigin::Replication,
    ] {
        assert_eq!(append(&mut state, batch, origin), Ok(Verdict::New));
        assert!(state.is_empty());
    }
}

#[test]
fn a_snapshot_brings_back_epochs_open_transactions_and_the_last_batch() {
    let mut state = manager();
    client(&mut state, data(OTHER, 9, 0, 0, 3)).unwrap();
    client(&mut state, data(OTHER, 9, 3, 3, 2)).unwrap();
    append(
        &mut state,
        marker(ID, 4, TransactionOutcome::Commit, 6, 5),
        AppendOrigin::Coordinator,
    )
    .unwrap();
    client(&mut state, transactional(data(ID, 4, 0, 6, 2))).unwrap();
    let (offset, bytes) = state.take_snapshot().unwrap();
    assert_eq!(offset, Offset(8));
    assert_eq!(bytes.len(), 10 + 2 * 46);
    assert_eq!(state.take_snapshot(), None, "nothing moved since");

    let mut loaded = manager();
    loaded.load_snapshot(offset, &bytes, TimestampMs(2000)).unwrap();
    assert_eq!(loaded.encode(), bytes);
    assert_eq!(loaded.map_end_offset(), Offset(8));
    assert_eq!(loaded.first_unstable_offset(), Some(Offset(6)));
    assert_eq!(loaded.take_snapshot(), None);
    for (batch, verdict) in [
        (data(OTHER, 9, 3, 8, 2), "duplicate"),
        (data(OTHER, 9, 0, 8, 3), "out of order"),
        (data(OTHER, 9, 5, 8, 1), "new"),
        (data(ID, 4, 2, 8, 1), "transaction"),
        (transactional(data(ID, 4, 2, 8, 1)), "new"),
        (marker(ID, 4, TransactionOutcome::Abort, 5, 8), "fenced"),
    ] {
        assert_eq!(
            refusal_name(&client(&mut loaded.clone(), batch)),
            verdict,
            "{batch:?}"
        );
    }
}

#[test]
fn a_damaged_snapshot_is_refused_with_its_place_and_changes_nothing() {
    let mut state = manager();
    client(&mut state, data(ID, 0, 0, 0, 3)).unwrap();
    let good = state.encode();
    let with_crc = |mut bytes: Vec<u8>| {
        let crc = crc32c::crc32c(&bytes[6..]);
        bytes[2..6].copy_from_slice(&crc.to_be_bytes());
        bytes
    };
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    for (name, bytes, position) in [
        ("empty", Vec::new(), 0),
        ("header cut", good[..9].to_vec(), 0),
        ("another version", changed(0, &2i16.to_be_bytes()), 0),
        ("flipped bit", changed(20, &[0xff]), 2),
        ("cut", good[..good.len() - 1].to_vec(), 2),
        ("cut, crc right", with_crc(good[..good.len() - 1].to_vec()), 6),
        ("huge count", with_crc(changed(6, &i32::MAX.to_be_bytes())), 6),
        ("negative count", with_crc(changed(6, &(-1i32).to_be_bytes())), 6),
        (
            "delta beyond the offset",
            with_crc(changed(10 + 22, &3i32.to_be_bytes())),
            10,
        ),
        (
            "negative delta",
            with_crc(changed(10 + 22, &(-1i32).to_be_bytes())),
            10,
        ),
    ] {
        let error = state
            .load_snapshot(Offset(99), &bytes, TimestampMs(0))
            .unwrap_err();
        assert_eq!(error.position, position, "{name}: {error}");
        assert_eq!(state.encode(), good, "{name}");
        assert_eq!(state.map_end_offset(), Offset(3), "{name}");
    }
}

#[test]
fn an_idle_producer_expires_unless_its_transaction_is_open() {
    let mut state = manager();
    client(&mut state, data(ID, 0, 0, 0, 1)).unwrap();
    client(&mut state, transactional(data(OTHER, 0, 0, 1, 1))).unwrap();
    assert_eq!(state.remove_expired(TimestampMs(1000 + HOUR_MS - 1)), 0);
    let bytes = state.encode();
    assert_eq!(state.remove_expired(TimestampMs(1000 + HOUR_MS)), 1);
    assert!(!state.producers.contains_key(&ID) && state.producers.contains_key(&OTHER));

    let mut loaded = manager();
    loaded
        .load_snapshot(Offset(2), &bytes, TimestampMs(1000 + HOUR_MS))
        .unwrap();
    assert_eq!(
        loaded.producers.len(),
        1,
        "an expired producer is not loaded either"
    );
}

#[test]
fn removing_the_head_keeps_producers_and_forgets_replicated_transactions() {
    let mut state = manager();
    client(&mut state, transactional(data(ID, 0, 0, 0, 1))).unwrap();
    append(
        &mut state,
        marker(ID, 0, TransactionOutcome::Commit, 0, 1),
        AppendOrigin::Coordinator,
    )
    .unwrap();
    state.truncate_head(Offset(1), None);
    assert_eq!(state.first_unstable_offset(), Some(Offset(0)));
    state.truncate_head(Offset(5), None);
    assert_eq!(state.first_unstable_offset(), None);
    assert_eq!(state.map_end_offset(), Offset(5));
    assert_eq!(state.producers.len(), 1);
    assert_eq!(state.take_snapshot(), None);
}

#[test]
fn emptying_the_log_forgets_everything() {
    let mut state = manager();
    client(&mut state, transactional(data(ID, 0, 0, 0, 1))).unwrap();
    state.truncate_fully_and_start_at(Offset(50));
    assert!(state.is_empty());
    assert_eq!(state.first_unstable_offset(), None);
    assert_eq!(state.take_snapshot().map(|(offset, _)| offset), Some(Offset(50)));
}

/// Written by Apache Kafka 2.7.2 on a clean stop of the log that `a_history_of_kafka` retells.
const SNAPSHOT_OF_KAFKA: [u8; 148] = *b"\
    \x00\x01\x0f\x75\xa0\xbb\x00\x00\x00\x03\
    \x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\
    \x00\x00\x01\xa2\x04\x0c\x88\x14\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x0f\
    \x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x0d\x00\x00\x00\x00\
    \x00\x00\x01\xa2\x04\x0c\x87\x6f\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\
    \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x00\
    \x00\x00\x01\xa2\x04\x0c\x81\x6f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";

/// Producer 0 idempotent, producer 1 with an aborted and a committed transaction, producer 2 with an open
/// one.
fn a_history_of_kafka() -> Vec<ProducerBatch> {
    let at = |batch: ProducerBatch, timestamp| ProducerBatch {
        max_timestamp: TimestampMs(timestamp),
        ..batch
    };
    let one = |id, sequence, offset| data(ProducerId(id), 0, sequence, offset, 1);
    let mut history: Vec<ProducerBatch> = (0..10)
        .map(|n| at(one(0, n, i64::from(n)), 1_795_364_258_159 - i64::from(9 - n)))
        .collect();
    history.extend([
        at(transactional(one(1, 0, 10)), 1_795_364_259_534),
        at(
            marker(ProducerId(1), 0, TransactionOutcome::Abort, 0, 11),
            1_795_364_259_620,
        ),
        at(transactional(one(1, 1, 12)), 1_795_364_259_594),
        at(transactional(one(1, 2, 13)), 1_795_364_259_666),
        at(
            marker(ProducerId(1), 0, TransactionOutcome::Commit, 0, 14),
            1_795_364_259_695,
        ),
        at(transactional(one(2, 0, 15)), 1_795_364_259_850),
        at(transactional(one(2, 1, 16)), 1_795_364_259_860),
    ]);
    history
}

#[test]
fn the_same_history_gives_the_snapshot_and_the_aborted_transaction_that_kafka_wrote() {
    let mut state = manager();
    let mut aborted = Vec::new();
    state
        .append(a_history_of_kafka(), AppendOrigin::Replication, &mut aborted)
        .unwrap();
    let expected = AbortedTransaction {
        producer_id: ProducerId(1),
        first_offset: Offset(10),
        last_offset: Offset(11),
        last_stable_offset: Offset(12),
    };
    assert_eq!(aborted, [expected]);

    let mut theirs = decode_snapshot(&SNAPSHOT_OF_KAFKA).unwrap();
    assert_eq!(encode_snapshot(&theirs), SNAPSHOT_OF_KAFKA);
    theirs.sort_by_key(|entry| entry.producer_id);
    assert_eq!(
        state.encode(),
        encode_snapshot(&theirs),
        "Kafka's order of producers is that of its hash table"
    );

    let mut loaded = manager();
    loaded
        .load_snapshot(Offset(17), &SNAPSHOT_OF_KAFKA, TimestampMs(1_795_364_259_860))
        .unwrap();
    assert_eq!(loaded.first_unstable_offset(), Some(Offset(15)));
    assert_eq!(loaded.encode(), state.encode());
}
