//! One lane of a consumer: a connection to a broker, from which it fetches all its partitions with one request at a time.
//!
//! It looks at the headers of the batches only: what a reader does with records is not the broker's cost. Whether the
//! records are the right ones is checked afterwards (`check`).

use std::sync::Arc;
use std::time::Duration;

use milena_engine::record_batch::BatchHeader;
use milena_server::client::{Address, Answer, ClientError, Connection};
use milena_server::protocol::Payload;
use milena_server::protocol::messages::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};

use super::arrivals::Met;
use super::error::BenchError;
use super::load::{LaneContext, Phase, Place, connection_config};
use super::recorder::{Counts, record_all};
use super::ticker::now_ns;

/// Most bytes of an answer, as in Kafka's consumer.
const FETCH_MAX_BYTES: i32 = 50 << 20;

/// What a consumer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// What is there, once, or until the time is over.
    Stored,
    /// What the producers write, to the last record.
    Tail,
    /// What was there before, again and again while producers run.
    Older,
}

/// A partition as the lane sees it.
#[derive(Debug)]
struct Source {
    place: Arc<Place>,
    position: i64,
    /// End of what is read, where that is known.
    end: i64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ConsumerLane {
    connection: Connection,
    context: LaneContext,
    reading: Reading,
    sources: Vec<Source>,
}

impl ConsumerLane {
    pub(crate) async fn open(
        address: &Address,
        context: LaneContext,
        places: Vec<Arc<Place>>,
        reading: Reading,
    ) -> Result<ConsumerLane, BenchError> {
        let connection = Connection::open(address, &connection_config()).await?;
        let source = |place: Arc<Place>| {
            let end = context.state.end_of(place.number);
            Source {
                position: if reading == Reading::Tail { end } else { 0 },
                end,
                place,
            }
        };
        Ok(ConsumerLane {
            // Where nothing is stored nothing is to be read.
            sources: places
                .into_iter()
                .map(source)
                .filter(|source| reading == Reading::Tail || source.end > 0)
                .collect(),
            connection,
            context,
            reading,
        })
    }

    /// Reads until the phase is over.
    pub(crate) async fn run(&mut self, phase: &Phase) -> Result<(), BenchError> {
        if self.reading != Reading::Tail {
            self.rewind();
            let ahead = Duration::from_nanos(phase.began_ns.saturating_sub(now_ns()));
            tokio::time::sleep(ahead).await;
        }
        while !self.is_done(phase) {
            let asked_ns = now_ns();
            let request = self.request();
            self.connection.send(&request)?;
            let answer = self.connection.receive().await?;
            self.take(&answer, asked_ns, phase.began_ns)?;
        }
        Ok(())
    }

    fn rewind(&mut self) {
        self.sources.iter_mut().for_each(|source| source.position = 0);
    }

    fn is_done(&mut self, phase: &Phase) -> bool {
        let state = &self.context.state;
        if state.stopped() || self.sources.is_empty() {
            return true;
        }
        match self.reading {
            Reading::Stored => {
                let has_all = self.sources.iter().all(|source| source.position >= source.end);
                let again = |limit| now_ns().saturating_sub(phase.began_ns) < limit;
                match (has_all, phase.duration_ns.map(again)) {
                    (_, Some(false)) | (true, None) => return true,
                    (true, Some(true)) => self.rewind(),
                    (false, _) => {}
                }
                false
            }
            Reading::Tail => {
                let arrived = |source: &Source| source.position >= state.end_of(source.place.number);
                !state.producing() && self.sources.iter().all(arrived)
            }
            Reading::Older => {
                let is_over = !state.producing();
                if self.sources.iter().all(|source| source.position >= source.end) {
                    self.rewind();
                }
                is_over
            }
        }
    }

    fn request(&self) -> FetchRequest<'static> {
        let scenario = &self.context.scenario;
        let mut topics: Vec<(String, Vec<FetchPartition>)> = Vec::new();
        for source in &self.sources {
            if self.reading != Reading::Tail && source.position >= source.end {
                continue;
            }
            let partition = FetchPartition {
                partition: source.place.partition,
                current_leader_epoch: -1,
                fetch_offset: source.position,
                last_fetched_epoch: -1,
                log_start_offset: -1,
                partition_max_bytes: i32::try_from(scenario.fetch_size.0).unwrap_or(i32::MAX),
            };
            match topics.last_mut() {
                Some((topic, partitions)) if *topic == source.place.topic => partitions.push(partition),
                _ => topics.push((source.place.topic.clone(), vec![partition])),
            }
        }
        let topic = |(topic, partitions): (String, Vec<FetchPartition>)| FetchTopic {
            topic: topic.into(),
            partitions: partitions.into(),
        };
        FetchRequest {
            replica_id: -1,
            max_wait_ms: i32::try_from(scenario.fetch_wait.0.as_millis()).unwrap_or(i32::MAX),
            min_bytes: i32::try_from(scenario.fetch_min.0).unwrap_or(i32::MAX),
            max_bytes: FETCH_MAX_BYTES.max(i32::try_from(scenario.fetch_size.0).unwrap_or(i32::MAX)),
            topics: topics.into_iter().map(topic).collect(),
            ..Default::default()
        }
    }

    fn take(&mut self, answer: &Answer, asked_ns: u64, began_ns: u64) -> Result<(), BenchError> {
        let now_ns = now_ns();
        let response: FetchResponse<'_> = answer.decode()?;
        ClientError::check(response.error_code, None, || "a fetch".to_owned())?;
        let mut counts = Counts {
            requests: 1,
            ..Counts::default()
        };
        let mut met: Vec<Met> = Vec::new();
        // A broker answers in the order of the question.
        let (mut next, count) = (0, self.sources.len());
        for topic in response.responses.iter() {
            for partition in topic.partition_responses.iter() {
                let number = partition.partition;
                let is_it = |at: &usize| {
                    let place = &self.sources[*at].place;
                    place.partition == number && place.topic == topic.topic
                };
                let Some(at) = (next..next + count).map(|at| at % count).find(is_it) else {
                    return Err(BenchError::Broker(format!(
                        "records of {}-{number}, unasked",
                        topic.topic
                    )));
                };
                let source = &mut self.sources[at];
                next = at + 1;
                let what = || format!("{}-{number}", topic.topic);
                ClientError::check(partition.error_code, None, what)?;
                let Payload::Bytes(bytes) = &partition.record_set else {
                    continue;
                };
                let arrivals = match self.reading {
                    Reading::Tail => self.context.arrivals.as_deref(),
                    _ => None,
                };
                for_each_batch(bytes, |header| {
                    let (first, next) = (header.base_offset.get(), header.next_offset().get());
                    counts.records += (next - first.max(source.position)).max(0) as u64;
                    source.position = source.position.max(next);
                    if let Some(arrivals) = arrivals {
                        met.extend(arrivals.arrived(
                            source.place.number,
                            first,
                            now_ns.saturating_sub(began_ns),
                        ));
                    }
                })?;
            }
        }
        counts.value_bytes = (counts.records as f64 * self.context.mean_value_size) as u64;
        if counts.records > 0 {
            counts.last_ns = now_ns.saturating_sub(began_ns);
        }
        self.context.recorder.note(|interval| {
            interval.consumed.add(&counts);
            interval.latencies.fetch.saturating_record(now_ns - asked_ns);
            for met in &met {
                record_all(
                    &mut interval.latencies.end_to_end,
                    &met.starts,
                    met.records,
                    met.came_ns,
                );
            }
        });
        Ok(())
    }
}

/// The headers of the batches that are here wholly.
fn for_each_batch(bytes: &[u8], mut each: impl FnMut(&BatchHeader)) -> Result<(), BenchError> {
    let mut at = 0;
    while at < bytes.len() {
        match BatchHeader::parse(&bytes[at..]) {
            Ok(header) if header.size_bytes <= bytes.len() - at => {
                each(&header);
                at += header.size_bytes;
            }
            Ok(_) => break,
            Err(error) if error.is_partial() => break,
            Err(error) => return Err(BenchError::Broker(format!("a fetch brought no batch: {error}"))),
        }
    }
    Ok(())
}
