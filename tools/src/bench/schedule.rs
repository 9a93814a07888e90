//! When a producer's records start, and which of them make a batch: a pure machine on nanoseconds.
//!
//! In open loop record `i` starts at `phase + i · gap`, whatever the broker does: who waits for it is late, and the time
//! counts (no coordinated omission). A batch leaves when it is full, or when its first record has waited for `linger`. In
//! closed loop records start when they are sent, and every batch is full. Times count from the start of the load.
//!
//! Of a schedule that is not kept, what started in time and still waits goes for a while after the end, then no more: a
//! load that is too much ends near its time, and [`Schedule::behind_ns`] and [`Schedule::unsent`] say how it stood then.

/// When the records of one producer start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// As soon as there is room.
    Closed,
    Open {
        phase_ns: f64,
        gap_ns: f64,
    },
}

/// How batches are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) records_max: u32,
    pub(crate) linger_ns: u64,
}

/// When the records of one batch started: the first, and each further one `gap_ns` later.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Starts {
    pub(crate) first_ns: u64,
    pub(crate) gap_ns: f64,
}

impl Starts {
    /// When record `k` of the batch started.
    pub(crate) fn of(&self, k: u32) -> u64 {
        self.first_ns + (f64::from(k) * self.gap_ns) as u64
    }
}

/// How long records that are late are still sent, of a phase of so many nanoseconds.
fn overrun_ns(phase_ns: u64) -> u64 {
    (phase_ns / 10).max(1_000_000_000)
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Next {
    Send {
        records: u32,
        starts: Starts,
    },
    /// Nothing before this time.
    WaitUntil(u64),
    /// Nothing any more.
    Over,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pace: Pace,
    cut: Cut,
    /// Records that are handed out.
    given: u64,
    /// Records in all.
    limit: u64,
    /// No record starts from then on.
    end_ns: u64,
    /// How late the last batch was handed out, or was not any more.
    behind_ns: u64,
    /// Records that started in time and were too late to be sent.
    unsent: u64,
}

impl Schedule {
    /// `limit` records at most, of which none starts at `end_ns` or later.
    pub(crate) fn new(pace: Pace, cut: Cut, limit: Option<u64>, end_ns: Option<u64>) -> Schedule {
        Schedule {
            pace,
            cut,
            given: 0,
            limit: limit.unwrap_or(u64::MAX),
            end_ns: end_ns.unwrap_or(u64::MAX),
            behind_ns: 0,
            unsent: 0,
        }
    }

    pub(crate) fn behind_ns(&self) -> u64 {
        self.behind_ns
    }

    pub(crate) fn unsent(&self) -> u64 {
        self.unsent
    }

    /// When record `index` starts.
    fn start_of(phase_ns: f64, gap_ns: f64, index: u64) -> u64 {
        (phase_ns + index as f64 * gap_ns) as u64
    }

    /// The next batch, if there is one by `now`. What is handed out counts as sent.
    pub(crate) fn next(&mut self, now_ns: u64) -> Next {
        let left = self.limit - self.given;
        let full = u64::from(self.cut.records_max).min(left);
        if full == 0 {
            return Next::Over;
        }
        let (phase_ns, gap_ns) = match self.pace {
            Pace::Closed if now_ns >= self.end_ns => return Next::Over,
            Pace::Closed => {
                let first_ns = now_ns;
                return self.give(
                    full,
                    Starts {
                        first_ns,
                        gap_ns: 0.0,
                    },
                );
            }
            Pace::Open { phase_ns, gap_ns } => (phase_ns, gap_ns),
        };
        let start = |index| Schedule::start_of(phase_ns, gap_ns, index);
        let first_ns = start(self.given);
        if first_ns >= self.end_ns {
            return Next::Over;
        }
        let leaves_ns = (first_ns + self.cut.linger_ns).min(start(self.given + full - 1));
        if now_ns < leaves_ns {
            self.behind_ns = 0;
            return Next::WaitUntil(leaves_ns);
        }
        self.behind_ns = now_ns - leaves_ns;
        if now_ns >= self.end_ns.saturating_add(overrun_ns(self.end_ns)) {
            let all = ((self.end_ns as f64 - phase_ns) / gap_ns).ceil() as u64;
            self.unsent = all.min(self.limit).saturating_sub(self.given);
            self.limit = self.given;
            return Next::Over;
        }
        // Those that have started by now, or never do.
        let mut records = ((now_ns.min(self.end_ns - 1) as f64 - phase_ns) / gap_ns) as u64 + 1;
        records = records.saturating_sub(self.given).clamp(1, full);
        while records > 1 && start(self.given + records - 1) > now_ns.min(self.end_ns - 1) {
            records -= 1;
        }
        self.give(records, Starts { first_ns, gap_ns })
    }

    fn give(&mut self, records: u64, starts: Starts) -> Next {
        self.given += records;
        Next::Send {
            records: records as u32,
            starts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(gap_ns: f64, records_max: u32, linger_ns: u64) -> Schedule {
        let pace = Pace::Open {
            phase_ns: 0.0,
            gap_ns,
        };
        let cut = Cut {
            records_max,
            linger_ns,
        };
        Schedule::new(pace, cut, None, None)
    }

    fn sent(next: Next) -> (u32, u64) {
        match next {
            Next::Send { records, starts } => (records, starts.first_ns),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_late_sender_keeps_the_intended_starts() {
        let mut schedule = open(100.0, 1, 0);
        assert_eq!(sent(schedule.next(0)), (1, 0));
        assert_eq!(schedule.next(99), Next::WaitUntil(100));
        // Nothing could be sent until 1000; what should have left at 100, 200, .. leaves now, and is as late as it is.
        for k in 1..=10 {
            assert_eq!(sent(schedule.next(1000)), (1, k * 100));
        }
        assert_eq!(schedule.next(1000), Next::WaitUntil(1100));
    }

    #[test]
    fn what_has_started_shares_a_batch() {
        let mut schedule = open(100.0, 64, 0);
        assert_eq!(sent(schedule.next(0)), (1, 0));
        let Next::Send { records, starts } = schedule.next(450) else {
            panic!()
        };
        assert_eq!(records, 4);
        assert_eq!([0, 1, 3].map(|k| starts.of(k)), [100, 200, 400]);
        assert_eq!(schedule.next(450), Next::WaitUntil(500));
    }

    #[test]
    fn linger_holds_a_batch_until_its_first_record_is_so_old_or_it_is_full() {
        let mut schedule = open(100.0, 8, 250);
        assert_eq!(schedule.next(0), Next::WaitUntil(250));
        assert_eq!(sent(schedule.next(250)), (3, 0));
        let mut schedule = open(100.0, 3, 10_000);
        assert_eq!(schedule.next(150), Next::WaitUntil(200));
        assert_eq!(sent(schedule.next(200)), (3, 0));
    }

    #[test]
    fn open_loop_ends_with_its_last_record_or_its_time() {
        let pace = Pace::Open {
            phase_ns: 50.0,
            gap_ns: 100.0,
        };
        let cut = Cut {
            records_max: 4,
            linger_ns: 0,
        };
        let mut counted = Schedule::new(pace, cut, Some(6), None);
        assert_eq!(counted.next(0), Next::WaitUntil(50));
        assert_eq!(sent(counted.next(10_000)), (4, 50));
        assert_eq!(sent(counted.next(10_000)), (2, 450));
        assert_eq!(counted.next(10_000), Next::Over);
        let mut timed = Schedule::new(pace, cut, None, Some(200));
        // 50 and 150 start before 200; late or not they are sent.
        assert_eq!(sent(timed.next(10_000)), (2, 50));
        assert_eq!(timed.next(10_000), Next::Over);
    }

    #[test]
    fn what_is_too_late_is_not_sent_any_more_but_counted() {
        let pace = Pace::Open {
            phase_ns: 50.0,
            gap_ns: 1e6,
        };
        let cut = Cut {
            records_max: 1,
            linger_ns: 0,
        };
        let mut schedule = Schedule::new(pace, cut, None, Some(100_000_000));
        assert_eq!(sent(schedule.next(50)), (1, 50));
        assert_eq!(schedule.behind_ns(), 0);
        // Within a second after the end the late ones still go.
        assert_eq!(sent(schedule.next(1_099_999_999)), (1, 1_000_050));
        assert_eq!(schedule.behind_ns(), 1_098_999_949);
        assert_eq!(schedule.next(1_100_000_000), Next::Over);
        assert_eq!((schedule.behind_ns(), schedule.unsent()), (1_097_999_950, 98));
        assert_eq!(schedule.next(2_000_000_000), Next::Over);
        assert_eq!(schedule.unsent(), 98);
    }

    #[test]
    fn every_record_is_given_once_at_odd_rates() {
        let pace = Pace::Open {
            phase_ns: 33.3,
            gap_ns: 1e9 / 70_001.0,
        };
        let cut = Cut {
            records_max: 7,
            linger_ns: 100_000,
        };
        let mut schedule = Schedule::new(pace, cut, None, Some(1_000_000_000));
        let (mut now, mut records) = (0, 0);
        loop {
            match schedule.next(now) {
                Next::Send {
                    records: more,
                    starts,
                } => {
                    assert!(starts.of(more - 1) <= now + 1);
                    records += u64::from(more);
                }
                Next::WaitUntil(then) => {
                    assert!(then > now);
                    now = then;
                }
                Next::Over => break,
            }
        }
        assert_eq!(records, 70_001);
    }

    #[test]
    fn closed_loop_sends_full_batches_and_a_rest() {
        let cut = Cut {
            records_max: 60,
            linger_ns: 0,
        };
        let mut schedule = Schedule::new(Pace::Closed, cut, Some(100), Some(1000));
        assert_eq!(sent(schedule.next(5)), (60, 5));
        assert_eq!(sent(schedule.next(9)), (40, 9));
        assert_eq!(schedule.next(9), Next::Over);
        let mut schedule = Schedule::new(Pace::Closed, cut, None, Some(1000));
        assert_eq!(sent(schedule.next(999)), (60, 999));
        assert_eq!(schedule.next(1000), Next::Over);
    }
}
