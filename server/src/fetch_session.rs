//! Incremental fetch sessions (KIP-227, `FetchSession.scala`): what a consumer has asked for is remembered, so that each further
//! request names only what changed and each answer holds only what is new.
//!
//! A pure cache: it is told the time and the random session ids. One lock guards it; a fetch takes it twice, for the length of
//! its partition list. Sessions belong to no connection: id and epoch alone decide.
//!
//! Epochs: 0 starts a session, −1 ends or avoids one, otherwise each request must carry the next number (after
//! `i32::MAX` comes 1).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use milena_engine::units::{Offset, TopicPartition};

/// No session.
pub const INVALID_SESSION_ID: i32 = 0;
const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;
/// A session unused for this long may be evicted by any new one (`IncrementalFetchSessionEvictionMs`).
const EVICTION_AGE: Duration = Duration::from_secs(120);

/// What one partition is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRange {
    pub fetch_offset: Offset,
    /// Where a follower's log starts; −1 from a consumer.
    pub log_start_offset: Offset,
    /// Epoch of the last record that a follower has; −1 if it does not say.
    pub last_fetched_epoch: i32,
    pub size_bytes_max: i32,
    /// The leader epoch that the client believes in; −1 if it has none.
    pub current_leader_epoch: i32,
}

/// What an answer says of one partition, as far as the session is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerSummary {
    pub error_code: i16,
    pub high_watermark: i64,
    pub log_start_offset: i64,
    pub records_size_bytes: usize,
    pub has_preferred_replica: bool,
    pub has_diverging_epoch: bool,
}

/// Why a request does not fit its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionRefusal {
    IdNotFound,
    InvalidEpoch,
}

/// One request's view of its session.
#[derive(Debug, PartialEq, Eq)]
pub struct FetchContext {
    kind: ContextKind,
    /// What to read, in the order in which it must be served.
    pub partitions: Vec<(TopicPartition, FetchRange)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContextKind {
    Sessionless,
    Full,
    Incremental { id: i32, epoch: i32 },
}

#[derive(Debug)]
struct CachedPartition {
    name: TopicPartition,
    range: FetchRange,
    high_watermark: i64,
    log_start_offset: i64,
}

impl CachedPartition {
    fn new(name: TopicPartition, range: FetchRange) -> CachedPartition {
        CachedPartition {
            name,
            range,
            high_watermark: -1,
            log_start_offset: -1,
        }
    }

    /// Whether the answer holds something that the client has not been told; remembers it as told.
    fn is_news(&mut self, answer: &AnswerSummary) -> bool {
        let mut news = answer.records_size_bytes > 0 || answer.has_preferred_replica;
        if self.high_watermark != answer.high_watermark {
            news = true;
            self.high_watermark = answer.high_watermark;
        }
        if self.log_start_offset != answer.log_start_offset {
            news = true;
            self.log_start_offset = answer.log_start_offset;
        }
        if answer.error_code != 0 || answer.has_diverging_epoch {
            news = true;
            // So that the end of the error is news too.
            self.high_watermark = -1;
        }
        news
    }
}

#[derive(Debug)]
struct FetchSession {
    /// The epoch that the next request must carry.
    epoch: i32,
    is_follower: bool,
    created: Duration,
    last_used: Duration,
    order: BTreeMap<u64, CachedPartition>,
    places: HashMap<TopicPartition, u64>,
    next_place: u64,
}

impl FetchSession {
    fn put(&mut self, name: &TopicPartition, range: FetchRange) {
        if let Some(place) = self.places.get(name) {
            let cached = self.order.get_mut(place).expect("every place is in the order");
            cached.range = range;
        } else {
            self.append(CachedPartition::new(name.clone(), range));
        }
    }

    fn append(&mut self, partition: CachedPartition) {
        self.places.insert(partition.name.clone(), self.next_place);
        self.order.insert(self.next_place, partition);
        self.next_place += 1;
    }

    fn forget(&mut self, name: &TopicPartition) {
        if let Some(place) = self.places.remove(name) {
            self.order.remove(&place);
        }
    }
}

/// All sessions of the broker.
#[derive(Debug)]
pub struct FetchSessionCache {
    sessions: HashMap<i32, FetchSession>,
    slot_count_max: usize,
}

impl FetchSessionCache {
    /// `slot_count_max` is `max.incremental.fetch.session.cache.slots`.
    pub fn new(slot_count_max: usize) -> FetchSessionCache {
        FetchSessionCache {
            sessions: HashMap::new(),
            slot_count_max,
        }
    }

    /// Opens a request: finds, updates or ends its session.
    pub fn begin(
        &mut self,
        now: Duration,
        id: i32,
        epoch: i32,
        asked: Vec<(TopicPartition, FetchRange)>,
        forgotten: &[TopicPartition],
    ) -> Result<FetchContext, SessionRefusal> {
        if epoch == INITIAL_EPOCH || epoch == FINAL_EPOCH {
            if id != INVALID_SESSION_ID {
                self.sessions.remove(&id);
            }
            let kind = if epoch == FINAL_EPOCH {
                ContextKind::Sessionless
            } else {
                ContextKind::Full
            };
            return Ok(FetchContext {
                kind,
                partitions: asked,
            });
        }
        let session = self.sessions.get_mut(&id).ok_or(SessionRefusal::IdNotFound)?;
        if session.epoch != epoch {
            return Err(SessionRefusal::InvalidEpoch);
        }
        for (name, range) in &asked {
            session.put(name, *range);
        }
        for name in forgotten {
            session.forget(name);
        }
        if session.order.is_empty() {
            self.sessions.remove(&id);
            return Ok(FetchContext {
                kind: ContextKind::Sessionless,
                partitions: asked,
            });
        }
        session.last_used = now;
        session.epoch = next_epoch(epoch);
        let partitions = session
            .order
            .values()
            .map(|cached| (cached.name.clone(), cached.range))
            .collect();
        Ok(FetchContext {
            kind: ContextKind::Incremental {
                id,
                epoch: session.epoch,
            },
            partitions,
        })
    }

    /// Closes a request: `answers` are in the order of `context.partitions`. Returns the session id to answer with, and for each
    /// answer whether it is to be sent. `fresh_id` is a random positive number.
    pub fn finish(
        &mut self,
        now: Duration,
        context: &FetchContext,
        answers: &[AnswerSummary],
        is_follower: bool,
        fresh_id: impl FnMut() -> i32,
    ) -> Result<(i32, Vec<bool>), SessionRefusal> {
        debug_assert_eq!(answers.len(), context.partitions.len());
        match context.kind {
            ContextKind::Sessionless => Ok((INVALID_SESSION_ID, vec![true; answers.len()])),
            ContextKind::Full => {
                let id = self.create(now, context, answers, is_follower, fresh_id);
                Ok((id, vec![true; answers.len()]))
            }
            ContextKind::Incremental { id, epoch } => {
                let session = self.sessions.get_mut(&id).ok_or(SessionRefusal::InvalidEpoch)?;
                if session.epoch != epoch {
                    return Err(SessionRefusal::InvalidEpoch);
                }
                let mut sent = Vec::with_capacity(answers.len());
                for ((name, _), answer) in context.partitions.iter().zip(answers) {
                    let Some(place) = session.places.get(name).copied() else {
                        sent.push(false);
                        continue;
                    };
                    let cached = session
                        .order
                        .get_mut(&place)
                        .expect("every place is in the order");
                    sent.push(cached.is_news(answer));
                    if answer.records_size_bytes > 0 {
                        // Who got data goes to the end, so that all get their turn.
                        let cached = session.order.remove(&place).expect("it was there");
                        session.append(cached);
                    }
                }
                Ok((id, sent))
            }
        }
    }

    fn create(
        &mut self,
        now: Duration,
        context: &FetchContext,
        answers: &[AnswerSummary],
        is_follower: bool,
        mut fresh_id: impl FnMut() -> i32,
    ) -> i32 {
        if self.sessions.len() >= self.slot_count_max
            && !self.evict(now, is_follower, context.partitions.len())
        {
            return INVALID_SESSION_ID;
        }
        let id = loop {
            let id = fresh_id();
            if id > INVALID_SESSION_ID && !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let mut session = FetchSession {
            epoch: next_epoch(INITIAL_EPOCH),
            is_follower,
            created: now,
            last_used: now,
            order: BTreeMap::new(),
            places: HashMap::new(),
            next_place: 0,
        };
        for ((name, range), answer) in context.partitions.iter().zip(answers) {
            let mut cached = CachedPartition::new(name.clone(), *range);
            cached.is_news(answer);
            session.append(cached);
        }
        self.sessions.insert(id, session);
        id
    }

    /// Makes room for a session of `size` partitions: a stale one goes first, then a smaller one of no higher rank.
    fn evict(&mut self, now: Duration, is_follower: bool, size: usize) -> bool {
        let stalest = self
            .sessions
            .iter()
            .min_by_key(|(id, session)| (session.last_used, **id));
        let Some((&id, session)) = stalest else {
            return false;
        };
        if now.saturating_sub(session.last_used) > EVICTION_AGE {
            self.sessions.remove(&id);
            return true;
        }
        let weakest = self
            .sessions
            .iter()
            .filter(|(_, session)| {
                let old_enough = now.saturating_sub(session.created) > EVICTION_AGE;
                (is_follower && !session.is_follower)
                    || (session.is_follower == is_follower && old_enough && session.order.len() < size)
            })
            .min_by_key(|(id, session)| (session.is_follower, session.order.len(), **id));
        let Some((&id, _)) = weakest else { return false };
        self.sessions.remove(&id);
        true
    }
}

fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition::new("t", number)
    }

    fn range(offset: i64) -> FetchRange {
        FetchRange {
            fetch_offset: Offset(offset),
            log_start_offset: Offset(-1),
            last_fetched_epoch: -1,
            size_bytes_max: 100,
            current_leader_epoch: -1,
        }
    }

    fn quiet(high_watermark: i64) -> AnswerSummary {
        AnswerSummary {
            error_code: 0,
            high_watermark,
            log_start_offset: 0,
            records_size_bytes: 0,
            has_preferred_replica: false,
            has_diverging_epoch: false,
        }
    }

    const NOW: Duration = Duration::from_secs(1);

    fn started(cache: &mut FetchSessionCache, id: i32, count: i32) -> i32 {
        let asked = (0..count).map(|number| (partition(number), range(0))).collect();
        let context = cache
            .begin(NOW, 0, 0, asked, &[])
            .expect("a full fetch is always taken");
        let answers = vec![quiet(5); count as usize];
        cache
            .finish(NOW, &context, &answers, false, || id)
            .expect("a full fetch is always answered")
            .0
    }

    #[test]
    fn a_full_fetch_starts_a_session_whose_next_answers_hold_only_news() {
        let mut cache = FetchSessionCache::new(10);
        assert_eq!(started(&mut cache, 7, 3), 7);
        let context = cache
            .begin(NOW, 7, 1, vec![(partition(1), range(9))], &[partition(2)])
            .expect("epoch 1");
        assert_eq!(
            context.partitions,
            vec![(partition(0), range(0)), (partition(1), range(9))]
        );
        let (id, sent) = cache
            .finish(NOW, &context, &[quiet(5), quiet(6)], false, || 1)
            .expect("in turn");
        assert_eq!((id, sent), (7, vec![false, true]));
    }

    #[test]
    fn a_partition_that_got_data_is_served_last_next_time() {
        let mut cache = FetchSessionCache::new(10);
        started(&mut cache, 7, 2);
        let context = cache.begin(NOW, 7, 1, vec![], &[]).expect("epoch 1");
        let data = AnswerSummary {
            records_size_bytes: 10,
            ..quiet(5)
        };
        cache
            .finish(NOW, &context, &[data, quiet(5)], false, || 1)
            .expect("in turn");
        let context = cache.begin(NOW, 7, 2, vec![], &[]).expect("epoch 2");
        let order: Vec<i32> = context
            .partitions
            .iter()
            .map(|(name, _)| name.partition)
            .collect();
        assert_eq!(order, [1, 0]);
    }

    #[test]
    fn the_end_of_an_error_is_news() {
        let mut cache = FetchSessionCache::new(10);
        started(&mut cache, 7, 1);
        for (epoch, error_code, expected) in [(1, 6, true), (2, 0, true), (3, 0, false)] {
            let context = cache.begin(NOW, 7, epoch, vec![], &[]).expect("in turn");
            let answer = AnswerSummary {
                error_code,
                ..quiet(5)
            };
            assert_eq!(
                cache.finish(NOW, &context, &[answer], false, || 1),
                Ok((7, vec![expected]))
            );
        }
    }

    #[test]
    fn wrong_ids_and_epochs_are_refused() {
        let mut cache = FetchSessionCache::new(10);
        started(&mut cache, 7, 1);
        assert_eq!(
            cache.begin(NOW, 8, 1, vec![], &[]),
            Err(SessionRefusal::IdNotFound)
        );
        assert_eq!(
            cache.begin(NOW, 7, 3, vec![], &[]),
            Err(SessionRefusal::InvalidEpoch)
        );
        cache
            .begin(NOW, 7, -1, vec![], &[])
            .expect("the last epoch ends the session");
        assert_eq!(
            cache.begin(NOW, 7, 1, vec![], &[]),
            Err(SessionRefusal::IdNotFound)
        );
    }

    #[test]
    fn a_full_cache_answers_without_a_session_until_one_is_stale() {
        let mut cache = FetchSessionCache::new(1);
        assert_eq!(started(&mut cache, 7, 1), 7);
        assert_eq!(started(&mut cache, 8, 1), 0);
        let later = NOW + EVICTION_AGE * 2;
        let context = cache
            .begin(later, 0, 0, vec![(partition(0), range(0))], &[])
            .expect("full");
        assert_eq!(
            cache
                .finish(later, &context, &[quiet(5)], false, || 9)
                .expect("answered")
                .0,
            9
        );
    }
}
