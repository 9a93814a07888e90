//! One lane of a producer: a connection to a broker, and the partitions of it that the lane writes to, in turn.
//!
//! The requests are templates that go round ([`BatchTemplate`]): one is stamped, sent from where it lies, and used again
//! once the kernel has it. All answers that one read brings are handled before anything is sent, so that a wake-up costs
//! one read and one write whatever it moves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use milena_server::client::{Address, Answer, ClientError, Connection, PreparedRequest};
use milena_server::protocol::ErrorCode;
use milena_server::protocol::messages::metadata::MetadataRequest;
use milena_server::protocol::messages::produce::ProduceResponse;
use milena_server::protocol::messages::producer_ids::{InitProducerIdRequest, InitProducerIdResponse};

use super::batch::{BatchTemplate, ContentSum, Producer, RequestPlan, Stamp, sequence_after};
use super::error::BenchError;
use super::load::{LaneContext, Phase, Place, connection_config};
use super::payload::{Payload, Values};
use super::recorder::{Counts, record_all};
use super::scenario::{Acks, Scenario};
use super::schedule::{Cut, Next, Pace, Schedule, Starts};
use super::ticker::{Ticker, now_ms, now_ns};

/// Templates of a lane when values are lines or events, so that codecs see many of them.
const TEMPLATES_OF_LINES: usize = 8;

/// A partition as the lane sees it.
#[derive(Debug)]
struct Target {
    place: Arc<Place>,
    /// Of its topic.
    stock: usize,
    /// Of the next record, when idempotent.
    sequence: i32,
    written: ContentSum,
}

/// A request that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Sent {
    target: usize,
    template: usize,
    records: u32,
    starts: Starts,
}

/// The templates for one topic, those that are not under way.
#[derive(Debug)]
struct Stock {
    topic: String,
    free: VecDeque<PreparedRequest>,
    built: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ProducerLane {
    connection: Connection,
    context: LaneContext,
    targets: Vec<Target>,
    turn: usize,
    templates: Vec<(usize, BatchTemplate)>,
    stocks: Vec<Stock>,
    payload: Payload,
    producer: Option<Producer>,
    sent: VecDeque<Sent>,
    ticker: Ticker,
    /// The lane's part of all that is produced, and its place among the lanes.
    share: Share,
}

/// Which part of the load is a lane's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Of all records, from 0 to 1.
    pub(crate) part: f64,
    /// Its number among the lanes, and how many there are.
    pub(crate) number: usize,
    pub(crate) lanes: usize,
}

impl Share {
    /// The lane's records of so many; the parts of all lanes add up.
    fn of(&self, records: u64) -> u64 {
        let (lanes, number) = (self.lanes as u64, self.number as u64);
        records / lanes + u64::from(number < records % lanes)
    }
}

impl ProducerLane {
    pub(crate) async fn open(
        address: &Address,
        context: LaneContext,
        places: Vec<Arc<Place>>,
        share: Share,
    ) -> Result<ProducerLane, BenchError> {
        let mut connection = Connection::open(address, &connection_config()).await?;
        let producer = match context.scenario.idempotence {
            true => Some(init_producer(&mut connection).await?),
            false => None,
        };
        let mut stocks: Vec<Stock> = Vec::new();
        let target = |place: Arc<Place>| {
            let known = stocks.iter().position(|stock| stock.topic == place.topic);
            let stock = known.unwrap_or(stocks.len());
            if known.is_none() {
                stocks.push(Stock {
                    topic: place.topic.clone(),
                    free: VecDeque::new(),
                    built: 0,
                });
            }
            Target {
                place,
                stock,
                sequence: 0,
                written: ContentSum::default(),
            }
        };
        let targets = places.into_iter().map(target).collect();
        let payload = Payload::new(context.scenario.recipe.clone(), share.number as u64);
        let mut lane = ProducerLane {
            connection,
            targets,
            // Lanes that share partitions begin at different ones.
            turn: share.number,
            templates: Vec::new(),
            stocks,
            payload,
            producer,
            sent: VecDeque::new(),
            ticker: Ticker::new().map_err(BenchError::system("a timer"))?,
            share,
            context,
        };
        let first = match lane.context.scenario.recipe.values {
            Values::Letters { .. } => 1,
            Values::Json { .. } | Values::Lines(_) => TEMPLATES_OF_LINES.min(lane.window()),
        };
        for stock in 0..lane.stocks.len() {
            for _ in 0..first {
                lane.build(stock)?;
            }
        }
        Ok(lane)
    }

    /// Requests that may be under way; those without an answer only until the kernel has them.
    fn window(&self) -> usize {
        match self.context.scenario.acks {
            Acks::None => 2,
            _ => self.context.scenario.in_flight as usize,
        }
    }

    fn build(&mut self, stock: usize) -> Result<(), ClientError> {
        let scenario = &self.context.scenario;
        let plan = RequestPlan {
            topic: &self.stocks[stock].topic,
            codec: scenario.codec,
            acks: scenario.acks.code(),
            records: scenario.batch_records,
        };
        let (template, mut request) = BatchTemplate::build(&self.connection, &plan, &mut self.payload)?;
        request.tag = self.templates.len();
        self.templates.push((stock, template));
        self.stocks[stock].built += 1;
        self.stocks[stock].free.push_back(request);
        Ok(())
    }

    fn schedule(&self, phase: &Phase) -> Schedule {
        let scenario = &self.context.scenario;
        let pace = match phase.rate {
            Some(rate) => {
                let gap_ns = 1e9 / (rate * self.share.part);
                Pace::Open {
                    phase_ns: gap_ns * self.share.number as f64 / self.share.lanes as f64,
                    gap_ns,
                }
            }
            None => Pace::Closed,
        };
        let cut = Cut {
            records_max: scenario.batch_records,
            linger_ns: scenario.linger.0.as_nanos() as u64,
        };
        let limit = phase.records.map(|records| self.share.of(records));
        Schedule::new(pace, cut, limit, phase.duration_ns)
    }

    /// Sends until the phase is over and everything is answered.
    pub(crate) async fn run(&mut self, phase: &Phase) -> Result<(), BenchError> {
        let mut schedule = self.schedule(phase);
        let began_ns = phase.began_ns;
        let state = Arc::clone(&self.context.state);
        self.wait_until(began_ns).await?;
        loop {
            while let Some(answer) = self.connection.arrived()? {
                self.acknowledged(&answer, began_ns)?;
            }
            let mut next = Next::Over;
            while self.sent.len() < self.window() && !state.stopped() {
                next = schedule.next(now_ns().saturating_sub(began_ns));
                state.behind_ns[self.share.number].store(schedule.behind_ns(), Ordering::Relaxed);
                let Next::Send { records, starts } = next else {
                    break;
                };
                self.send(records, starts, began_ns).await?;
            }
            match next {
                Next::WaitUntil(then_ns) => {
                    let then_ns = began_ns + then_ns;
                    if self.sent.is_empty() {
                        self.connection.flush().await?;
                        self.wait_until(then_ns).await?;
                        continue;
                    }
                    let answer = tokio::select! {
                        biased;
                        answer = self.connection.receive() => Some(answer?),
                        rung = self.ticker.wait_until(then_ns) => {
                            rung.map_err(BenchError::system("a timer"))?;
                            None
                        }
                    };
                    if let Some(answer) = answer {
                        self.acknowledged(&answer, began_ns)?;
                    }
                }
                _ if self.sent.is_empty() => break,
                _ => {
                    let answer = self.connection.receive().await?;
                    self.acknowledged(&answer, began_ns)?;
                }
            }
        }
        self.connection.flush().await?;
        if self.context.scenario.acks == Acks::None && !state.stopped() {
            // A broker takes the requests of a connection in turn: with this answer it has done all before it.
            let of_no_topic = MetadataRequest {
                topics: Some(Default::default()),
                ..Default::default()
            };
            self.connection.call(&of_no_topic).await?;
        }
        state.unsent.fetch_add(schedule.unsent(), Ordering::Relaxed);
        Ok(())
    }

    async fn wait_until(&mut self, then_ns: u64) -> Result<(), BenchError> {
        let rung = self.ticker.wait_until(then_ns).await;
        rung.map_err(BenchError::system("a timer"))
    }

    async fn send(&mut self, records: u32, starts: Starts, began_ns: u64) -> Result<(), BenchError> {
        let target = self.turn % self.targets.len();
        self.turn = self.turn.wrapping_add(1);
        let mut request = self.take(self.targets[target].stock).await?;
        let template = request.tag;
        let place = &mut self.targets[target];
        let stamp = Stamp {
            partition: place.place.partition,
            records,
            timestamp_ms: now_ms(),
            producer: self.producer.map(|producer| (producer, place.sequence)),
        };
        place.sequence = sequence_after(place.sequence, records);
        self.templates[template].1.stamp(&mut request, &stamp);
        let sent = Sent {
            target,
            template,
            records,
            starts,
        };
        if self.context.scenario.acks == Acks::None {
            self.connection.send_prepared_unanswered(request);
            self.connection.flush().await?;
            self.done(&sent, None, began_ns);
        } else {
            self.connection.send_prepared(request);
            self.sent.push_back(sent);
        }
        Ok(())
    }

    /// A template that is not under way. There are as many as may be under way, built when they are needed.
    async fn take(&mut self, stock: usize) -> Result<PreparedRequest, BenchError> {
        loop {
            while let Some(request) = self.connection.reclaim() {
                let (stock, _) = self.templates[request.tag];
                self.stocks[stock].free.push_back(request);
            }
            if let Some(request) = self.stocks[stock].free.pop_front() {
                return Ok(request);
            }
            if self.stocks[stock].built < self.window() {
                self.build(stock)?;
            } else {
                self.connection.flush().await?;
            }
        }
    }

    fn acknowledged(&mut self, answer: &Answer, began_ns: u64) -> Result<(), BenchError> {
        let Some(sent) = self.sent.pop_front() else {
            return Err(BenchError::Broker("an answer to no request".to_owned()));
        };
        let response: ProduceResponse<'_> = answer.decode()?;
        let topic = response.responses.iter().next();
        let Some(partition) = topic.and_then(|topic| topic.partitions.iter().next()) else {
            return Err(BenchError::Broker(
                "an answer to Produce without a partition".to_owned(),
            ));
        };
        if partition.error_code != ErrorCode::None.code() {
            let place = &self.targets[sent.target].place;
            let what = || format!("{}-{}", place.topic, place.partition);
            let message = partition.error_message.as_deref();
            return Err(ClientError::check(partition.error_code, message, what)
                .map_or_else(BenchError::from, |()| {
                    BenchError::Broker("a refusal without a reason".to_owned())
                }));
        }
        self.done(&sent, Some(partition.base_offset), began_ns);
        Ok(())
    }

    /// Counts what is written. Without an answer nobody knows where.
    fn done(&mut self, sent: &Sent, base_offset: Option<i64>, began_ns: u64) {
        let now_ns = now_ns().saturating_sub(began_ns);
        let (_, template) = &self.templates[sent.template];
        let prefix = template.prefix(sent.records);
        let target = &mut self.targets[sent.target];
        target.written += prefix.content.at(base_offset.unwrap_or(0));
        let met = match (base_offset, &self.context.arrivals) {
            (Some(base), Some(arrivals)) => {
                arrivals.acknowledged(target.place.number, base, sent.starts, sent.records)
            }
            _ => Vec::new(),
        };
        if let Some(base) = base_offset {
            let end = base + i64::from(sent.records);
            self.context.state.acknowledged_up_to(target.place.number, end);
        }
        self.context.recorder.note(|interval| {
            interval.produced.add(&Counts {
                records: sent.records.into(),
                value_bytes: prefix.value_bytes,
                requests: 1,
                last_ns: now_ns,
            });
            record_all(
                &mut interval.latencies.produce,
                &sent.starts,
                sent.records,
                now_ns,
            );
            for met in &met {
                record_all(
                    &mut interval.latencies.end_to_end,
                    &met.starts,
                    met.records,
                    met.came_ns,
                );
            }
        });
    }

    /// What the lane has written, by the number of the partition.
    pub(crate) fn written(&self) -> impl Iterator<Item = (usize, ContentSum)> + '_ {
        self.targets
            .iter()
            .map(|target| (target.place.number, target.written))
    }
}

async fn init_producer(connection: &mut Connection) -> Result<Producer, BenchError> {
    let request = InitProducerIdRequest {
        transaction_timeout_ms: 60_000,
        producer_epoch: -1,
        ..Default::default()
    };
    // Right after its start a broker may not be able to give out ids yet.
    for _ in 0..100 {
        let answer = connection.call(&request).await?;
        let response: InitProducerIdResponse = answer.decode()?;
        let refused = ClientError::check(response.error_code, None, || "a producer id".to_owned());
        match refused {
            Ok(()) => {
                return Ok(Producer {
                    id: response.producer_id,
                    epoch: response.producer_epoch,
                });
            }
            Err(error) if !error.is_retriable() => return Err(error.into()),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
    Err(BenchError::Broker("no producer id within 10 s".to_owned()))
}

/// Which partitions each producer writes to: its part of them, or one when there are more producers.
pub(crate) fn partitions_of(producer: u32, scenario: &Scenario) -> Vec<usize> {
    let (all, producers) = (scenario.partitions_in_all(), scenario.producers);
    if producers >= all {
        return vec![(producer % all) as usize];
    }
    (0..all)
        .filter(|partition| partition % producers == producer)
        .map(|p| p as usize)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_lanes_are_the_whole() {
        for (records, lanes) in [(100, 3), (2, 5), (0, 2), (7, 7)] {
            let shares = (0..lanes).map(|number| {
                let part = 1.0 / lanes as f64;
                Share { part, number, lanes }.of(records)
            });
            assert_eq!(shares.sum::<u64>(), records);
        }
    }
}
