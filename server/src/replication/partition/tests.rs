//! Dialogues with the machine of one partition.

use super::*;

const LAG_MAX: Duration = Duration::from_secs(30);

fn ends(log_end: i64, high_watermark: i64) -> LocalEnds {
    LocalEnds {
        log_end: Offset(log_end),
        replicable_end: Offset(log_end),
        high_watermark: Offset(high_watermark),
    }
}

fn assignment(leader: i32, epoch: i32, isr: &[i32]) -> Assignment {
    Assignment {
        leader: Some(leader),
        leader_epoch: LeaderEpoch(epoch),
        controller_epoch: 5,
        isr: isr.into(),
        replicas: [1, 2, 3].into(),
        zk_version: 7,
    }
}

/// Broker 1's machine and its log's ends.
struct Dialogue {
    state: PartitionState,
    ends: LocalEnds,
    now: Duration,
}

impl Dialogue {
    fn new(log_end: i64, high_watermark: i64) -> Dialogue {
        let rules = PartitionRules {
            broker_id: 1,
            lag_max: LAG_MAX,
        };
        let ends = ends(log_end, high_watermark);
        Dialogue {
            state: PartitionState::new(rules, ends),
            ends,
            now: Duration::from_secs(100),
        }
    }

    /// With broker 1 leading in epoch 0.
    fn leading(log_end: i64, high_watermark: i64, isr: &[i32]) -> Dialogue {
        let mut dialogue = Dialogue::new(log_end, high_watermark);
        dialogue.told(assignment(1, 0, isr));
        dialogue
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.state.step(self.now, input, &mut outputs);
        for output in &outputs {
            if let Output::AdvanceHighWatermark(high_watermark) = output {
                self.ends.high_watermark = *high_watermark;
            }
        }
        outputs
    }

    fn told(&mut self, assignment: Assignment) -> Vec<Output> {
        let ends = self.ends;
        self.step(Input::LeaderAndIsr { assignment, ends })
    }

    fn appended(&mut self, log_end: i64) -> Vec<Output> {
        self.ends.log_end = Offset(log_end);
        self.ends.replicable_end = Offset(log_end);
        self.step(Input::LocalEndMoved(self.ends))
    }

    fn fetched(&mut self, replica: i32, offset: i64) -> Vec<Output> {
        let leader_epoch = self.state.leader_epoch().unwrap();
        let outputs = self.step(Input::Fetched {
            replica,
            leader_epoch,
            fetch_offset: Offset(offset),
            log_start_offset: Offset(0),
            leader_end: self.ends.log_end,
            is_live: true,
        });
        let told = |output: &Output| *output != Output::LowWatermarkMayHaveMoved;
        outputs.into_iter().filter(told).collect()
    }

    fn answered(&mut self, number: u64, answer: IsrAnswer) -> Vec<Output> {
        self.step(Input::IsrAnswered { number, answer })
    }

    fn accepted(&mut self, number: u64, isr: &[i32], epoch: i32, zk_version: i32) -> Vec<Output> {
        let answer = IsrAnswer::Accepted {
            isr: isr.into(),
            leader_epoch: LeaderEpoch(epoch),
            zk_version,
        };
        self.answered(number, answer)
    }
}

fn advance(offset: i64) -> Output {
    Output::AdvanceHighWatermark(Offset(offset))
}

fn proposal(number: u64, epoch: i32, isr: &[i32], zk_version: i32) -> Output {
    Output::Propose(IsrProposal {
        number,
        leader_epoch: LeaderEpoch(epoch),
        controller_epoch: 5,
        isr: isr.into(),
        zk_version,
    })
}

fn changed(from: &[i32], to: &[i32]) -> Output {
    Output::IsrChanged {
        from: from.into(),
        to: to.into(),
    }
}

#[test]
fn a_sole_replica_moves_the_high_watermark_with_its_log_end() {
    let mut alone = Dialogue::new(5, 3);
    let mut only = assignment(1, 0, &[1]);
    only.replicas = [1].into();
    assert_eq!(alone.told(only), [Output::BeginReign(LeaderEpoch(0)), advance(5)]);
    assert_eq!(alone.appended(8), [advance(8)]);
    assert_eq!(alone.appended(8), []);
}

#[test]
fn an_epoch_that_is_not_newer_is_stale() {
    let mut dialogue = Dialogue::new(0, 0);
    let known = LeaderEpoch(4);
    assert_eq!(dialogue.told(assignment(1, 4, &[1])), [Output::BeginReign(known)]);
    for epoch in [4, 3] {
        assert_eq!(
            dialogue.told(assignment(2, epoch, &[2])),
            [Output::Stale { known }]
        );
        assert_eq!(dialogue.state.role(), Role::Leader);
    }
}

#[test]
fn a_leader_waits_for_all_in_sync_replicas_and_a_follower_decides_nothing() {
    let mut leader = Dialogue::leading(9, 4, &[1, 2, 3]);
    assert_eq!(leader.appended(12), []);
    assert_eq!(leader.fetched(2, 12), []);
    assert_eq!(leader.fetched(3, 10), [advance(10)]);
    assert_eq!(leader.fetched(3, 12), [advance(12)]);
    assert_eq!(leader.fetched(4, 12), [], "no replica of this partition");
    assert_eq!(leader.told(assignment(2, 1, &[1, 2])), []);
    assert_eq!(leader.state.role(), Role::Follower);
    assert_eq!(leader.fetched(3, 12), []);
    assert_eq!(leader.appended(14), []);
}

#[test]
fn synced_acknowledgements_hold_the_high_watermark_at_the_synced_end() {
    let mut leader = Dialogue::leading(0, 0, &[1, 2]);
    assert_eq!(leader.fetched(2, 0), []);
    leader.ends.log_end = Offset(6);
    leader.ends.replicable_end = Offset(4);
    assert_eq!(leader.step(Input::LocalEndMoved(leader.ends)), []);
    assert_eq!(leader.fetched(2, 6), [advance(4)]);
    assert_eq!(leader.appended(6), [advance(6)]);
}

#[test]
fn a_new_leader_believes_nothing_of_what_it_heard_in_an_earlier_reign() {
    let mut leader = Dialogue::leading(10, 10, &[1, 2]);
    assert_eq!(leader.fetched(2, 10), []);
    leader.told(assignment(2, 1, &[1, 2]));
    leader.told(assignment(1, 2, &[1, 2]));
    assert_eq!(leader.appended(12), []);
    assert_eq!(leader.state.remote(2).unwrap().end(), None);
    assert_eq!(leader.fetched(2, 11), [advance(11)]);
}

#[test]
fn a_fetch_that_was_read_in_an_earlier_reign_is_not_believed() {
    let mut leader = Dialogue::leading(10, 10, &[1, 2]);
    leader.told(assignment(1, 1, &[1, 2]));
    let late = Input::Fetched {
        replica: 2,
        leader_epoch: LeaderEpoch(0),
        fetch_offset: Offset(10),
        log_start_offset: Offset(0),
        leader_end: Offset(10),
        is_live: true,
    };
    assert_eq!(leader.step(late), []);
    assert_eq!(leader.state.remote(2).unwrap().end(), None);
}

#[test]
fn a_leader_that_stays_keeps_what_it_heard() {
    let mut leader = Dialogue::leading(10, 10, &[1, 2]);
    leader.appended(12);
    assert_eq!(leader.fetched(2, 11), [advance(11)]);
    let newer = leader.told(assignment(1, 1, &[1, 2]));
    assert_eq!(newer, [Output::BeginReign(LeaderEpoch(1))]);
    assert_eq!(leader.state.remote(2).unwrap().end(), Some(Offset(11)));
    assert!(leader.state.has_led_since(LeaderEpoch(0)));
}

#[test]
fn a_leader_that_missed_an_epoch_takes_another_for_the_leader_then() {
    let mut leader = Dialogue::leading(10, 10, &[1, 2]);
    leader.appended(12);
    assert_eq!(leader.fetched(2, 11), [advance(11)]);
    leader.told(assignment(1, 2, &[1, 2]));
    // What replica 2 had then it may have cut off for the other.
    assert_eq!(leader.state.remote(2).unwrap().end(), None);
    assert!(!leader.state.has_led_since(LeaderEpoch(0)));
    assert!(leader.state.has_led_since(LeaderEpoch(2)));
}

#[test]
fn a_replica_joins_once_it_has_the_high_watermark_and_the_reigns_beginning() {
    let mut leader = Dialogue::leading(10, 6, &[1]);
    assert_eq!(leader.ends.high_watermark, Offset(10));
    assert_eq!(leader.fetched(2, 9), []);
    assert_eq!(leader.fetched(2, 10), [proposal(1, 0, &[1, 2], 7)]);
    assert_eq!(leader.state.isr().known()[..], [1]);
    assert_eq!(leader.state.isr().largest_count(), 2);
    assert_eq!(leader.appended(11), [], "who is about to join counts at once");
    assert_eq!(leader.fetched(3, 11), [], "one change at a time");
    assert_eq!(leader.accepted(1, &[1, 2], 0, 8), [changed(&[1], &[1, 2])]);
    assert_eq!(leader.fetched(3, 11), [proposal(2, 0, &[1, 2, 3], 8)]);
    assert_eq!(leader.fetched(2, 11), [advance(11)]);
}

#[test]
fn a_replica_does_not_join_below_a_high_watermark_that_the_log_has_not_heard_of() {
    let mut leader = Dialogue::leading(10, 10, &[1]);
    let before = leader.ends;
    assert_eq!(leader.appended(12), [advance(12)]);
    // Another thread read the ends before the log was told, or of another log, which takes the place of this one.
    let ends = LocalEnds {
        high_watermark: before.high_watermark,
        ..leader.ends
    };
    assert_eq!(leader.step(Input::LocalEndMoved(ends)), [advance(12)]);
    assert_eq!(leader.fetched(2, 11), [], "it lacks a committed record");
    assert_eq!(leader.fetched(2, 12), [proposal(1, 0, &[1, 2], 7)]);
}

#[test]
fn a_replica_whose_broker_is_gone_does_not_join() {
    let mut leader = Dialogue::leading(10, 10, &[1]);
    let gone = Input::Fetched {
        replica: 2,
        leader_epoch: LeaderEpoch(0),
        fetch_offset: Offset(10),
        log_start_offset: Offset(0),
        leader_end: Offset(10),
        is_live: false,
    };
    assert_eq!(leader.step(gone), [Output::LowWatermarkMayHaveMoved]);
}

#[test]
fn a_replica_leaves_after_the_lag_and_counts_until_that_is_confirmed() {
    let mut leader = Dialogue::leading(10, 10, &[1, 2, 3]);
    leader.fetched(2, 10);
    leader.fetched(3, 10);
    leader.appended(11);
    leader.now += LAG_MAX;
    assert_eq!(leader.step(Input::CheckIsr), [], "exactly the lag is allowed");
    leader.fetched(2, 11);
    leader.now += Duration::from_millis(1);
    assert_eq!(leader.step(Input::CheckIsr), [proposal(1, 0, &[1, 2], 7)]);
    assert_eq!(leader.step(Input::CheckIsr), [], "one change at a time");
    let confirmed = leader.accepted(1, &[1, 2], 0, 8);
    assert_eq!(confirmed, [changed(&[1, 2, 3], &[1, 2]), advance(11)]);
}

#[test]
fn a_replica_without_records_to_fetch_never_lags() {
    let mut leader = Dialogue::leading(10, 10, &[1, 2]);
    leader.fetched(2, 10);
    leader.now += LAG_MAX * 10;
    assert_eq!(leader.step(Input::CheckIsr), []);
}

#[test]
fn a_slow_replica_that_keeps_up_with_where_the_leader_was_stays() {
    let mut leader = Dialogue::leading(0, 0, &[1, 2]);
    for round in 1..20 {
        leader.now += LAG_MAX / 2;
        leader.appended(round * 10);
        // It has all that there was a round ago, never all that there is.
        leader.fetched(2, (round - 1) * 10);
        assert_eq!(leader.step(Input::CheckIsr), [], "round {round}");
    }
}

#[test]
fn in_sync_replicas_that_are_no_replicas_hold_the_high_watermark_and_are_taken_out_at_once() {
    let mut leader = Dialogue::new(0, 0);
    let mut odd = assignment(1, 0, &[1, 9]);
    odd.replicas = [1].into();
    let told = leader.told(odd);
    assert!(told.contains(&proposal(1, 0, &[1], 7)), "{told:?}");
    assert_eq!(leader.appended(5), [], "9 may lead without it");
    let changed = leader.accepted(1, &[1], 0, 8);
    assert!(changed.contains(&advance(5)), "{changed:?}");
}

#[test]
fn a_caught_up_replica_outside_the_in_sync_ones_holds_the_high_watermark_so_that_it_can_join() {
    let mut leader = Dialogue::leading(10, 10, &[1]);
    // Broker 3's change keeps broker 2 from joining.
    assert_eq!(leader.fetched(3, 10), [proposal(1, 0, &[1, 3], 7)]);
    assert_eq!(leader.fetched(2, 10), []);
    leader.appended(15);
    assert_eq!(leader.fetched(3, 15), [], "broker 2 was caught up a moment ago");
    assert_eq!(leader.fetched(2, 12), [advance(12)]);
    leader.now += LAG_MAX + Duration::from_millis(1);
    assert_eq!(leader.appended(16), [advance(15)]);
}

#[test]
fn a_refused_change_stays_pending_until_the_controllers_next_word() {
    let mut leader = Dialogue::leading(10, 10, &[1]);
    leader.fetched(2, 10);
    assert_eq!(leader.answered(1, IsrAnswer::Refused), []);
    assert_eq!(leader.fetched(2, 10), []);
    assert!(leader.state.isr().may_contain(2));
    leader.told(assignment(1, 1, &[1]));
    assert!(!leader.state.isr().may_contain(2));
    assert_eq!(leader.fetched(2, 10), [proposal(2, 1, &[1, 2], 7)]);
}

#[test]
fn a_change_of_unknown_outcome_is_proposed_again_and_counts_meanwhile() {
    let mut leader = Dialogue::leading(10, 10, &[1]);
    leader.fetched(2, 10);
    let again = leader.answered(1, IsrAnswer::Unknown);
    assert_eq!(again, [proposal(1, 0, &[1, 2], 7)]);
    assert_eq!(leader.appended(11), []);
    assert_eq!(leader.accepted(1, &[1, 2], 0, 8), [changed(&[1], &[1, 2])]);
}

#[test]
fn an_answer_from_before_the_controllers_last_word_means_nothing() {
    let mut leader = Dialogue::leading(10, 10, &[1]);
    leader.fetched(2, 10);
    leader.told(assignment(1, 1, &[1]));
    assert_eq!(leader.accepted(1, &[1, 2], 0, 9), []);
    assert_eq!(leader.answered(1, IsrAnswer::Refused), []);
    assert_eq!(leader.fetched(2, 10), [proposal(2, 1, &[1, 2], 7)]);
    assert_eq!(leader.accepted(2, &[1, 2], 0, 9), [], "of an earlier reign");
    assert!(leader.state.isr().proposal().is_some());
}

#[test]
fn a_log_that_starts_later_may_move_the_low_watermark() {
    let mut leader = Dialogue::leading(10, 10, &[1, 2]);
    let fetched = |log_start: i64| Input::Fetched {
        replica: 2,
        leader_epoch: LeaderEpoch(0),
        fetch_offset: Offset(10),
        log_start_offset: Offset(log_start),
        leader_end: Offset(10),
        is_live: true,
    };
    for (log_start, expected) in [(0, 1), (0, 0), (4, 1)] {
        assert_eq!(leader.step(fetched(log_start)).len(), expected, "{log_start}");
    }
}
