//! A follower's side of an incremental fetch session (KIP-227, `FetchSessionHandler.java`): what the leader has been told of each
//! partition, and what it must be told next.
//!
//! The first request of a session names all partitions, each further one those that changed and those that are not wanted any
//! more. Costs follow the changes, not the number of partitions. A leader without sessions, or without room for one, is told
//! everything each time.

use std::collections::{BTreeMap, BTreeSet};

use milena_engine::units::{LeaderEpoch, Offset, TopicPartition};

use super::{FetchPlan, FetchPosition};

const NO_SESSION: i32 = 0;
const FIRST_EPOCH: i32 = 0;
/// Neither in a session nor to begin one.
const FINAL_EPOCH: i32 = -1;

#[derive(Clone, Copy, Debug)]
struct Wanted {
    position: FetchPosition,
    /// The leader knows this position.
    is_told: bool,
}

/// See the module.
#[derive(Debug)]
pub struct FetchSession {
    is_supported: bool,
    id: i32,
    next_epoch: i32,
    wanted: BTreeMap<TopicPartition, Wanted>,
    /// Wanted and not told.
    changed: BTreeSet<TopicPartition>,
    /// In the leader's session and not wanted any more.
    unwanted: BTreeSet<TopicPartition>,
    /// In the leader's session.
    known: BTreeSet<TopicPartition>,
}

impl FetchSession {
    pub(super) fn new(is_supported: bool) -> FetchSession {
        FetchSession {
            is_supported,
            id: NO_SESSION,
            next_epoch: FIRST_EPOCH,
            wanted: BTreeMap::new(),
            changed: BTreeSet::new(),
            unwanted: BTreeSet::new(),
            known: BTreeSet::new(),
        }
    }

    /// What the leader was told of a partition, if nothing changed since.
    pub(super) fn told(&self, partition: &TopicPartition) -> Option<FetchPosition> {
        let wanted = self.wanted.get(partition)?;
        wanted.is_told.then_some(wanted.position)
    }

    /// Wants a partition, from there on.
    pub(super) fn include(
        &mut self,
        partition: &TopicPartition,
        fetch_offset: Offset,
        log_start_offset: Offset,
        current_leader_epoch: LeaderEpoch,
    ) {
        let position = FetchPosition {
            fetch_offset,
            log_start_offset,
            current_leader_epoch,
        };
        self.unwanted.remove(partition);
        match self.wanted.get_mut(partition) {
            Some(wanted) if wanted.position == position => {}
            Some(wanted) => {
                wanted.position = position;
                if std::mem::replace(&mut wanted.is_told, false) {
                    self.changed.insert(partition.clone());
                }
            }
            None => {
                let wanted = Wanted {
                    position,
                    is_told: false,
                };
                self.wanted.insert(partition.clone(), wanted);
                self.changed.insert(partition.clone());
            }
        }
    }

    pub(super) fn exclude(&mut self, partition: &TopicPartition) {
        if self.wanted.remove(partition).is_some() {
            self.changed.remove(partition);
            if self.known.contains(partition) {
                self.unwanted.insert(partition.clone());
            }
        }
    }

    /// The next request; `None` if there is nothing to ask for.
    pub(super) fn plan(&mut self) -> Option<FetchPlan> {
        if self.wanted.is_empty() && self.unwanted.is_empty() {
            return None;
        }
        let is_full = self.id == NO_SESSION || self.next_epoch == FIRST_EPOCH;
        if is_full && self.wanted.is_empty() {
            self.unwanted.clear();
            return None;
        }
        if is_full {
            self.known.clear();
            self.unwanted.clear();
            self.changed = self.wanted.keys().cloned().collect();
        }
        let mut partitions = Vec::with_capacity(self.changed.len());
        for partition in std::mem::take(&mut self.changed) {
            let wanted = self.wanted.get_mut(&partition).expect("what changed is wanted");
            wanted.is_told = true;
            self.known.insert(partition.clone());
            partitions.push((partition, wanted.position));
        }
        let forgotten: Vec<TopicPartition> = std::mem::take(&mut self.unwanted).into_iter().collect();
        for partition in &forgotten {
            self.known.remove(partition);
        }
        let session_epoch = match (is_full, self.is_supported) {
            (true, false) => FINAL_EPOCH,
            (true, true) => FIRST_EPOCH,
            (false, _) => self.next_epoch,
        };
        Some(FetchPlan {
            session_id: self.id,
            session_epoch,
            partitions,
            forgotten,
        })
    }

    /// The leader answered within the session, or began one.
    pub(super) fn answered(&mut self, session_id: i32) {
        if session_id == NO_SESSION || session_id != self.id {
            self.next_epoch = FIRST_EPOCH;
        }
        self.id = session_id;
        self.next_epoch = match self.next_epoch {
            i32::MAX => 1,
            epoch => epoch + 1,
        };
    }

    /// What the leader thinks that we know, we do not know, or the session is gone: the next request names everything, and ends the
    /// session if the leader still has it.
    pub(super) fn renew(&mut self) {
        self.next_epoch = FIRST_EPOCH;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: i32) -> TopicPartition {
        TopicPartition::new("t", number)
    }

    fn include(session: &mut FetchSession, number: i32, offset: i64) {
        session.include(&at(number), Offset(offset), Offset(0), LeaderEpoch(3));
    }

    /// Session, epoch, what is named with its offset, what is forgotten.
    type Asked = (i32, i32, Vec<(i32, i64)>, Vec<i32>);

    fn asked(session: &mut FetchSession) -> Option<Asked> {
        let plan = session.plan()?;
        let named = plan.partitions.iter();
        let named = named.map(|(name, position)| (name.partition, position.fetch_offset.get()));
        let forgotten = plan.forgotten.iter().map(|name| name.partition);
        Some((
            plan.session_id,
            plan.session_epoch,
            named.collect(),
            forgotten.collect(),
        ))
    }

    #[test]
    fn a_session_names_everything_once_and_then_what_changed() {
        let mut session = FetchSession::new(true);
        assert_eq!(asked(&mut session), None);
        include(&mut session, 0, 10);
        include(&mut session, 1, 20);
        assert_eq!(asked(&mut session), Some((0, 0, vec![(0, 10), (1, 20)], vec![])));
        session.answered(77);
        include(&mut session, 1, 25);
        include(&mut session, 0, 10);
        assert_eq!(session.told(&at(0)).unwrap().fetch_offset, Offset(10));
        assert_eq!(session.told(&at(1)), None);
        assert_eq!(asked(&mut session), Some((77, 1, vec![(1, 25)], vec![])));
        session.answered(77);
        assert_eq!(asked(&mut session), Some((77, 2, vec![], vec![])));
        session.answered(77);
        session.exclude(&at(0));
        include(&mut session, 2, 0);
        assert_eq!(asked(&mut session), Some((77, 3, vec![(2, 0)], vec![0])));
        session.answered(77);
        session.exclude(&at(1));
        include(&mut session, 1, 25);
        assert_eq!(asked(&mut session), Some((77, 4, vec![(1, 25)], vec![])));
    }

    #[test]
    fn a_session_that_is_renewed_ends_the_former_one() {
        let mut session = FetchSession::new(true);
        include(&mut session, 0, 10);
        asked(&mut session);
        session.answered(77);
        include(&mut session, 1, 0);
        session.exclude(&at(0));
        session.renew();
        assert_eq!(asked(&mut session), Some((77, 0, vec![(1, 0)], vec![])));
        session.answered(78);
        assert_eq!(asked(&mut session), Some((78, 1, vec![], vec![])));
        session.renew();
        assert_eq!(asked(&mut session), Some((78, 0, vec![(1, 0)], vec![])));
        session.answered(0);
        assert_eq!(
            asked(&mut session),
            Some((0, 0, vec![(1, 0)], vec![])),
            "no room for a session"
        );
    }

    #[test]
    fn a_session_that_holds_nothing_is_told_so_once() {
        let mut session = FetchSession::new(true);
        include(&mut session, 0, 10);
        asked(&mut session);
        session.answered(77);
        session.exclude(&at(0));
        assert_eq!(asked(&mut session), Some((77, 1, vec![], vec![0])));
        session.answered(0);
        assert_eq!(asked(&mut session), None);
    }

    #[test]
    fn a_leader_without_sessions_is_told_everything() {
        let mut session = FetchSession::new(false);
        include(&mut session, 0, 10);
        for _ in 0..2 {
            assert_eq!(asked(&mut session), Some((0, -1, vec![(0, 10)], vec![])));
            session.answered(0);
        }
    }

    #[test]
    fn epochs_of_a_session_go_round() {
        let mut session = FetchSession::new(true);
        include(&mut session, 0, 10);
        asked(&mut session);
        session.answered(77);
        session.next_epoch = i32::MAX;
        assert_eq!(asked(&mut session).unwrap().1, i32::MAX);
        session.answered(77);
        assert_eq!(asked(&mut session).unwrap().1, 1);
    }
}
