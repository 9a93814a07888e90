//! Dialogues with a fetcher over logs in memory.

use parking_lot::Mutex;

use super::*;

/// A log of one record per offset: the epoch that wrote each.
#[derive(Debug, Default)]
struct Records {
    start: i64,
    epochs: Vec<i32>,
    high_watermark: i64,
    /// What the next change answers instead.
    fails: Option<FollowError>,
}

#[derive(Debug, Default)]
struct TestLog(Mutex<Records>);

impl TestLog {
    fn of(epochs: &[i32]) -> Arc<TestLog> {
        let log = TestLog::default();
        log.0.lock().epochs = epochs.to_vec();
        Arc::new(log)
    }

    fn epochs(&self) -> Vec<i32> {
        self.0.lock().epochs.clone()
    }

    fn change(&self, change: impl FnOnce(&mut Records)) -> Result<(), FollowError> {
        let mut records = self.0.lock();
        match records.fails.take() {
            Some(error) => Err(error),
            None => {
                change(&mut records);
                Ok(())
            }
        }
    }
}

impl FollowedLog for TestLog {
    fn log_end(&self) -> Offset {
        let records = self.0.lock();
        Offset(records.start + records.epochs.len() as i64)
    }

    fn log_start(&self) -> Offset {
        Offset(self.0.lock().start)
    }

    fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.0.lock().epochs.last().map(|epoch| LeaderEpoch(*epoch))
    }

    fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let records = self.0.lock();
        let below = records.epochs.iter().filter(|one| **one <= epoch.get());
        let found = *below.clone().max()?;
        Some((LeaderEpoch(found), Offset(records.start + below.count() as i64)))
    }

    fn truncate_to(&self, _: LeaderEpoch, offset: Offset) -> Result<(), FollowError> {
        self.change(|records| records.epochs.truncate((offset.get() - records.start) as usize))
    }

    fn restart_at(&self, _: LeaderEpoch, offset: Offset) -> Result<(), FollowError> {
        self.change(|records| {
            records.epochs.clear();
            records.start = offset.get();
        })
    }

    /// A byte is a record, its value the epoch.
    fn append(&self, _: LeaderEpoch, answer: &FetchedPartition<'_>) -> Result<Offset, FollowError> {
        assert_eq!(answer.fetch_offset, self.log_end(), "records fit the log's end");
        self.change(|records| {
            let more = answer.records.iter().map(|epoch| i32::from(*epoch));
            records.epochs.extend(more);
            records.high_watermark = answer.high_watermark.get();
        })?;
        Ok(self.log_end())
    }
}

struct Logs {
    logs: Vec<Arc<TestLog>>,
    is_quota_exceeded: bool,
    throttled: Vec<TopicPartition>,
}

impl FollowedLogs for Logs {
    fn log(&self, partition: &TopicPartition) -> Option<Arc<dyn FollowedLog>> {
        let log = self.logs.get(partition.partition as usize)?;
        Some(Arc::clone(log) as Arc<dyn FollowedLog>)
    }

    fn is_quota_exceeded(&self) -> bool {
        self.is_quota_exceeded
    }

    fn is_throttled(&self, partition: &TopicPartition) -> bool {
        self.throttled.contains(partition)
    }
}

fn at(number: i32) -> TopicPartition {
    TopicPartition::new("t", number)
}

const BACKOFF: Duration = Duration::from_secs(1);

struct Dialogue {
    fetcher: ReplicaFetcher,
    logs: Logs,
    now: Duration,
}

impl Dialogue {
    /// Follows all of the logs in epoch 9, from high watermark 2.
    fn new(logs: &[Arc<TestLog>]) -> Dialogue {
        let mut fetcher = ReplicaFetcher::new(FetcherRules {
            backoff: BACKOFF,
            has_sessions: true,
            has_epochs: true,
        });
        for number in 0..logs.len() {
            fetcher.follow(at(number as i32), LeaderEpoch(9), Offset(2));
        }
        Dialogue {
            fetcher,
            logs: Logs {
                logs: logs.to_vec(),
                is_quota_exceeded: false,
                throttled: Vec::new(),
            },
            now: Duration::from_secs(5),
        }
    }

    fn next(&mut self) -> Step {
        self.fetcher.next(self.now, &self.logs)
    }

    /// The epochs asked for, by partition.
    fn asked_epochs(&mut self) -> Vec<EpochQuestion> {
        match self.next() {
            Step::AskEpochs(questions) => questions,
            other => panic!("expected a question about epochs, got {other:?}"),
        }
    }

    fn epoch_ends(&mut self, epoch: i32, end: i64) {
        let questions = self.asked_epochs();
        let end = EpochEnd {
            epoch: (epoch >= 0).then_some(LeaderEpoch(epoch)),
            end: (end >= 0).then_some(Offset(end)),
        };
        let answers = questions
            .iter()
            .map(|question| (question.partition.clone(), Ok(end)));
        let answers = answers.collect();
        self.fetcher
            .epochs_answered(self.now, &questions, answers, &self.logs);
    }

    fn fetch_positions(&mut self) -> Vec<(i32, i64)> {
        match self.next() {
            Step::Fetch(plan) => {
                let named = plan.partitions.iter();
                named
                    .map(|(name, position)| (name.partition, position.fetch_offset.get()))
                    .collect()
            }
            other => panic!("expected a fetch, got {other:?}"),
        }
    }

    fn answer(&mut self, number: i32, records: &[u8]) {
        self.fetcher.begin_answer(77);
        self.answer_further(number, records);
    }

    /// One more partition of the same answer.
    fn answer_further(&mut self, number: i32, records: &[u8]) {
        let answer = FetchedPartition {
            fetch_offset: Offset(0),
            high_watermark: Offset(3),
            log_start_offset: None,
            records,
        };
        self.fetcher
            .partition_answered(self.now, &at(number), Ok(answer), &self.logs);
    }

    fn refuse(&mut self, number: i32, refusal: LeaderRefusal) {
        self.fetcher.begin_answer(77);
        self.fetcher
            .partition_answered(self.now, &at(number), Err(refusal), &self.logs);
    }
}

#[test]
fn a_follower_cuts_where_the_epochs_part_and_then_fetches_from_its_end() {
    let log = TestLog::of(&[1, 1, 1, 4, 4]);
    let mut dialogue = Dialogue::new(&[Arc::clone(&log)]);
    let expected = EpochQuestion {
        partition: at(0),
        current_leader_epoch: LeaderEpoch(9),
        epoch: LeaderEpoch(4),
    };
    assert_eq!(dialogue.asked_epochs(), [expected]);
    dialogue.epoch_ends(4, 4);
    assert_eq!(log.epochs(), [1, 1, 1, 4]);
    assert_eq!(dialogue.fetch_positions(), [(0, 4)]);
    dialogue.answer(0, &[9, 9]);
    assert_eq!(log.epochs(), [1, 1, 1, 4, 9, 9]);
    assert_eq!(log.0.lock().high_watermark, 3);
    assert_eq!(dialogue.fetch_positions(), [(0, 6)]);
    dialogue.answer(0, &[]);
    assert_eq!(dialogue.fetch_positions(), [], "in a session, nothing changed");
}

#[test]
fn an_epoch_that_the_follower_lacks_takes_another_question() {
    let log = TestLog::of(&[1, 1, 3, 3, 7]);
    let mut dialogue = Dialogue::new(&[Arc::clone(&log)]);
    // The leader has nothing of epoch 7, but of epoch 5.
    dialogue.epoch_ends(5, 9);
    assert_eq!(log.epochs(), [1, 1, 3, 3]);
    assert_eq!(dialogue.asked_epochs()[0].epoch, LeaderEpoch(3));
    dialogue.epoch_ends(3, 3);
    assert_eq!(log.epochs(), [1, 1, 3]);
    assert_eq!(dialogue.fetch_positions(), [(0, 3)]);
}

#[test]
fn where_a_log_is_cut_follows_the_table() {
    // own epochs, epoch and end of the answer, what is left
    for (own, epoch, end, left) in [
        (&[1, 1, 1][..], 1, 5, 3),
        (&[1, 1, 1], 1, 2, 2),
        (&[1, 1, 2], 2, 2, 2),
        (&[1, 1, 1], -1, -1, 2),
        (&[1], -1, -1, 1),
        (&[1, 1, 1], -1, 1, 1),
        (&[4, 4, 4], 2, 1, 1),
        (&[4, 4, 4], 2, 7, 3),
    ] {
        let log = TestLog::of(own);
        let mut dialogue = Dialogue::new(&[Arc::clone(&log)]);
        dialogue.epoch_ends(epoch, end);
        assert_eq!(log.epochs().len(), left, "{own:?} {epoch} {end}");
        assert_eq!(dialogue.fetch_positions(), [(0, left as i64)]);
    }
}

#[test]
fn a_log_without_epochs_is_cut_at_the_high_watermark() {
    let log = TestLog::of(&[]);
    let mut dialogue = Dialogue::new(&[Arc::clone(&log)]);
    dialogue.fetcher.follow(at(0), LeaderEpoch(9), Offset(0));
    assert_eq!(dialogue.fetch_positions(), [(0, 0)]);
    let old = TestLog::of(&[1, 1, 1]);
    let mut dialogue = Dialogue::new(&[Arc::clone(&old)]);
    dialogue.fetcher.rules.has_epochs = false;
    assert_eq!(dialogue.fetch_positions(), [(0, 2)]);
    assert_eq!(old.epochs(), [1, 1]);
}

#[test]
fn an_answer_from_before_a_change_of_role_is_not_applied() {
    let log = TestLog::of(&[1, 1]);
    let mut dialogue = Dialogue::new(&[Arc::clone(&log)]);
    dialogue.epoch_ends(1, 2);
    assert_eq!(dialogue.fetch_positions(), [(0, 2)]);
    dialogue.fetcher.follow(at(0), LeaderEpoch(10), Offset(2));
    dialogue.answer(0, &[9]);
    assert_eq!(log.epochs(), [1, 1]);
    dialogue.epoch_ends(1, 2);
    dialogue.answer(0, &[9]);
    assert_eq!(
        log.epochs(),
        [1, 1],
        "the leader was not asked in the new epoch yet"
    );
    assert_eq!(dialogue.fetch_positions(), [(0, 2)]);
    dialogue.fetcher.unfollow(&at(0));
    dialogue.answer(0, &[9]);
    assert_eq!(log.epochs(), [1, 1]);
}

#[test]
fn what_a_leader_said_in_vain_it_is_made_to_say_again() {
    let logs = [TestLog::of(&[1, 1]), TestLog::of(&[1, 1])];
    let mut dialogue = Dialogue::new(&logs);
    dialogue.epoch_ends(1, 2);
    assert_eq!(dialogue.fetch_positions(), [(0, 2), (1, 2)]);
    dialogue.fetcher.follow(at(0), LeaderEpoch(10), Offset(2));
    dialogue.answer(0, &[]);
    dialogue.answer_further(1, &[9]);
    assert_eq!(logs[1].epochs(), [1, 1, 9], "the other's answer counts");
    dialogue.epoch_ends(1, 2);
    // The leader's session holds its high watermark as told: only a new session hears it.
    let Step::Fetch(plan) = dialogue.next() else {
        panic!("expected a fetch");
    };
    assert_eq!((plan.session_id, plan.session_epoch), (77, 0));
    assert_eq!(plan.partitions.len(), 2);
}

#[test]
fn an_answer_about_epochs_from_before_a_change_of_role_is_not_applied() {
    let log = TestLog::of(&[1, 1, 1]);
    let mut dialogue = Dialogue::new(&[Arc::clone(&log)]);
    let questions = dialogue.asked_epochs();
    dialogue.fetcher.follow(at(0), LeaderEpoch(10), Offset(2));
    let end = EpochEnd {
        epoch: Some(LeaderEpoch(1)),
        end: Some(Offset(1)),
    };
    let answers = vec![(at(0), Ok(end))];
    dialogue
        .fetcher
        .epochs_answered(dialogue.now, &questions, answers, &dialogue.logs);
    assert_eq!(log.epochs(), [1, 1, 1]);
}

#[test]
fn a_refusal_that_passes_delays_one_partition_and_not_the_others() {
    let logs = [TestLog::of(&[1, 1]), TestLog::of(&[1, 1])];
    let mut dialogue = Dialogue::new(&logs);
    dialogue.epoch_ends(1, 2);
    assert_eq!(dialogue.fetch_positions(), [(0, 2), (1, 2)]);
    dialogue.refuse(0, LeaderRefusal::Passing);
    match dialogue.next() {
        Step::Fetch(plan) => assert_eq!((plan.partitions.len(), plan.forgotten), (0, vec![at(0)])),
        other => panic!("{other:?}"),
    }
    dialogue.now += SOON;
    assert_eq!(dialogue.fetch_positions(), [(0, 2)]);
}

#[test]
fn a_refusal_that_passes_is_asked_about_soon_and_then_less_often() {
    let mut dialogue = Dialogue::new(&[TestLog::of(&[1, 1])]);
    let mut pause = SOON;
    for _ in 0..12 {
        let questions = dialogue.asked_epochs();
        let answers = vec![(at(0), Err(LeaderRefusal::Passing))];
        dialogue
            .fetcher
            .epochs_answered(dialogue.now, &questions, answers, &dialogue.logs);
        assert_eq!(dialogue.next(), Step::Wait(Some(dialogue.now + pause)));
        dialogue.now += pause;
        pause = (pause * 2).min(BACKOFF);
    }
    assert_eq!(pause, BACKOFF);
    dialogue.epoch_ends(1, 2);
    dialogue.fetch_positions();
    dialogue.answer(0, &[9]);
    dialogue.fetch_positions();
    dialogue.refuse(0, LeaderRefusal::Passing);
    dialogue.next();
    dialogue.now += SOON;
    assert_eq!(
        dialogue.fetch_positions(),
        [(0, 3)],
        "who was answered waits little again"
    );
}

#[test]
fn a_fenced_epoch_ends_the_following_until_the_next_word() {
    let mut dialogue = Dialogue::new(&[TestLog::of(&[1, 1])]);
    let questions = dialogue.asked_epochs();
    let answers = vec![(at(0), Err(LeaderRefusal::FencedLeaderEpoch))];
    dialogue
        .fetcher
        .epochs_answered(dialogue.now, &questions, answers, &dialogue.logs);
    assert_eq!(dialogue.next(), Step::Wait(None));
    assert_eq!(dialogue.fetcher.notes().len(), 1);
    dialogue.fetcher.follow(at(0), LeaderEpoch(10), Offset(2));
    assert_eq!(dialogue.asked_epochs()[0].current_leader_epoch, LeaderEpoch(10));
}

#[test]
fn a_failed_disk_ends_the_following_and_damaged_records_are_asked_for_again() {
    let log = TestLog::of(&[1, 1]);
    let mut dialogue = Dialogue::new(&[Arc::clone(&log)]);
    dialogue.epoch_ends(1, 2);
    dialogue.fetch_positions();
    log.0.lock().fails = Some(FollowError::Unfit("damaged".to_owned()));
    dialogue.answer(0, &[9]);
    assert_eq!(dialogue.next(), Step::Wait(Some(dialogue.now + BACKOFF)));
    dialogue.now += BACKOFF;
    dialogue.epoch_ends(1, 2);
    assert_eq!(dialogue.fetch_positions(), [(0, 2)]);
    log.0.lock().fails = Some(FollowError::Storage("EIO".to_owned()));
    dialogue.answer(0, &[9]);
    assert_eq!(dialogue.next(), Step::Wait(None));
}

#[test]
fn who_finds_that_somebody_else_appended_goes_on_behind_that() {
    let log = TestLog::of(&[1, 1]);
    let mut dialogue = Dialogue::new(&[Arc::clone(&log)]);
    dialogue.epoch_ends(1, 2);
    assert_eq!(dialogue.fetch_positions(), [(0, 2)]);
    log.0.lock().fails = Some(FollowError::Unfit("it ends elsewhere".to_owned()));
    dialogue.answer(0, &[9]);
    // The thread that followed before had an answer at hand.
    log.0.lock().epochs.push(1);
    assert_eq!(dialogue.next(), Step::Wait(Some(dialogue.now + BACKOFF)));
    dialogue.now += BACKOFF;
    dialogue.epoch_ends(1, 5);
    assert_eq!(dialogue.fetch_positions(), [(0, 3)]);
}

#[test]
fn a_full_disk_is_waited_for() {
    let log = TestLog::of(&[1, 1]);
    let mut dialogue = Dialogue::new(&[Arc::clone(&log)]);
    dialogue.epoch_ends(1, 2);
    for _ in 0..3 {
        assert_eq!(dialogue.fetch_positions(), [(0, 2)]);
        log.0.lock().fails = Some(FollowError::Full);
        dialogue.answer(0, &[9]);
        dialogue.next();
        dialogue.fetcher.begin_answer(0);
        assert_eq!(dialogue.next(), Step::Wait(Some(dialogue.now + BACKOFF)));
        dialogue.now += BACKOFF;
    }
    assert_eq!(dialogue.fetch_positions(), [(0, 2)]);
    assert!(dialogue.fetcher.notes().is_empty());
}

#[test]
fn an_offset_out_of_range_is_settled_by_the_leaders_bounds() {
    // the leader's start and end, what is left of our three records, where it goes on
    for (start, end, left, next) in [(0, 1, 1, 1), (7, 9, 0, 7), (0, 5, 3, 3)] {
        let log = TestLog::of(&[1, 1, 1]);
        let mut dialogue = Dialogue::new(&[Arc::clone(&log)]);
        dialogue.epoch_ends(1, 3);
        dialogue.fetch_positions();
        dialogue.refuse(0, LeaderRefusal::OffsetOutOfRange);
        let expected = Step::AskBounds {
            partition: at(0),
            current_leader_epoch: LeaderEpoch(9),
        };
        assert_eq!(dialogue.next(), expected);
        let bounds = Ok((Offset(start), Offset(end)));
        let (now, logs) = (dialogue.now, &dialogue.logs);
        dialogue
            .fetcher
            .bounds_answered(now, &at(0), LeaderEpoch(9), bounds, logs);
        assert_eq!(log.epochs().len(), left);
        assert_eq!(dialogue.fetch_positions(), [(0, next)]);
    }
}

#[test]
fn a_leader_that_does_not_answer_is_asked_for_everything_anew_after_a_pause() {
    let mut dialogue = Dialogue::new(&[TestLog::of(&[1, 1]), TestLog::of(&[1])]);
    dialogue.epoch_ends(1, 2);
    dialogue.fetch_positions();
    dialogue.fetcher.unanswered(dialogue.now);
    assert_eq!(dialogue.next(), Step::Wait(Some(dialogue.now + BACKOFF)));
    dialogue.now += BACKOFF;
    assert_eq!(dialogue.fetch_positions(), [(0, 2), (1, 1)]);
}

#[test]
fn over_the_rate_what_is_throttled_and_lags_is_left_out_until_the_rate_allows_it() {
    let logs = [TestLog::of(&[1, 1]), TestLog::of(&[1, 1]), TestLog::of(&[1, 1])];
    let mut dialogue = Dialogue::new(&logs);
    dialogue.epoch_ends(1, 2);
    assert_eq!(dialogue.fetch_positions(), [(0, 2), (1, 2), (2, 2)]);
    // The high watermark is 3: the first two lag, the last does not.
    dialogue.answer(0, &[]);
    dialogue.answer(1, &[]);
    dialogue.answer(2, &[9]);
    dialogue.logs.throttled = vec![at(1), at(2)];
    assert_eq!(dialogue.fetch_positions(), [(2, 3)], "the rate is not exceeded");
    dialogue.logs.is_quota_exceeded = true;
    match dialogue.next() {
        Step::Fetch(plan) => assert_eq!((plan.partitions, plan.forgotten), (vec![], vec![at(1)])),
        other => panic!("{other:?}"),
    }
    dialogue.logs.is_quota_exceeded = false;
    assert_eq!(dialogue.fetch_positions(), [(1, 2)]);
}

#[test]
fn a_fetcher_that_is_throttled_altogether_looks_again_after_a_pause() {
    let mut dialogue = Dialogue::new(&[TestLog::of(&[1, 1])]);
    dialogue.epoch_ends(1, 2);
    dialogue.logs.throttled = vec![at(0)];
    dialogue.logs.is_quota_exceeded = true;
    assert_eq!(dialogue.next(), Step::Wait(Some(dialogue.now + BACKOFF)));
    dialogue.now += BACKOFF;
    dialogue.logs.throttled.clear();
    assert_eq!(dialogue.fetch_positions(), [(0, 2)], "it is not listed any more");
    dialogue.logs.throttled = vec![at(0)];
    dialogue.fetcher.session_lost();
    assert_eq!(dialogue.next(), Step::Wait(Some(dialogue.now + BACKOFF)));
    // A change of role while it is left out.
    dialogue.fetcher.follow(at(0), LeaderEpoch(10), Offset(2));
    dialogue.logs.is_quota_exceeded = false;
    dialogue.epoch_ends(1, 2);
    assert_eq!(dialogue.fetch_positions(), [(0, 2)]);
}
