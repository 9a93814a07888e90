//! [`Log`]: one partition's records on disk, in a directory exactly as Kafka 2.7.2 writes it.
//!
//! A log is a list of segments in offset order; the last one is active and takes the appends. What it
//! promises:
//! - **Order.** Offsets are assigned under one lock in the order of the calls; a reader sees a prefix of
//!   them.
//! - **Bytes.** What was validated is written as it is, several produced sets by one vectored write per
//!   segment; index, time-index and roll decisions are taken per produced set as though each had been written
//!   alone.
//! - **Durability.** A record is in the page cache when `append` returns, and on the medium when
//!   [`Log::synced_end`] has passed it; [`Log::when_synced`] tells. Syncs are shared: one is in flight per
//!   log, and all that is appended meanwhile shares the next. With `flush.messages=1` no reader sees a record
//!   before it is synced.
//! - **Finality.** The first failed write or sync takes the log directory offline in the same step
//!   ([`LogDirectory::fail`]); nothing is acknowledged afterwards.
//! - **Derived files** (indexes, producer snapshots, the epoch list) are hints: absent or wrong, they are
//!   rebuilt, and a wrong index entry is noticed when the batch header at its position is read.
//!
//! Locks, in the order in which they may be taken: the append lock (`State`), a segment's own, the offsets.
//! Readers take the last two only, each for moments, and none of them over a wait. Nothing is called back
//! under a lock.
//!
//! What it leaves to others: validation of a producer's records ([`crate::record_batch`]), which logs there
//! are and when retention, flushes and deletions run ([`crate::log_manager`]), who may read how far (the
//! replica manager sets the high watermark). Source: `Log.scala` of 2.7.2.
//!
//! The parts: [`directory`], `place` (where a log's files are), `names`, `segment`, `scan`, `sparse_index`
//! with `offset_index`, `time_index` and `transaction_index`, [`producer_state`], [`leader_epoch_cache`], and
//! the operations: `recovery` (open), `appender`, `reader`, `durability`, `retention`, `truncation`, `scrub`.

mod appender;
pub mod derived;
mod directory;
mod durability;
mod epochs;
pub mod leader_epoch_cache;
pub mod names;
mod offset_index;
mod place;
pub(crate) mod producer_state;
mod reader;
mod recovery;
mod retention;
mod scan;
mod scrub;
mod segment;
mod snapshots;
mod sparse_index;
mod time_index;
pub(crate) mod transaction_index;
mod truncation;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};

use crate::config::LogConfig;
use crate::error::{CorruptFile, IoError, StorageError};
use crate::io::{Clock, FileHandle};
use crate::units::{LeaderEpoch, Offset, ProducerId, TimestampMs, TopicPartition};

use durability::Durability;
use leader_epoch_cache::LeaderEpochCache;
use place::Place;
use producer_state::ProducerStateManager;
use retention::DelayedDeletions;
use segment::LogSegment;

pub use directory::LogDirectory;
pub use durability::SyncDone;
pub(crate) use names::give_up_name;
pub use recovery::LogOpenError;
pub use retention::LogStartOffsetIncrementReason;
pub use scrub::{ScrubCursor, ScrubProgress};

/// What is known of the machine since the log was last open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootEvidence {
    /// The kernel has been running all along, so that everything ever written is in the files.
    SameBoot,
    /// The machine was restarted: what was not synced may be missing or torn.
    OtherBoot,
    /// Nothing of ours is there to tell (Kafka wrote the directory last): treated as `OtherBoot`.
    Unknown,
}

/// What the log manager knows of a log that it opens.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// From `recovery-point-offset-checkpoint`: everything below is on the medium. 0 if unknown.
    pub recovery_point: Offset,
    /// From `log-start-offset-checkpoint`; `None` if the first segment tells.
    pub log_start_offset: Option<Offset>,
    /// The high watermark to begin with, bounded by the log; `None` = log start offset, as in Kafka.
    pub high_watermark: Option<Offset>,
    /// Whether `.kafka_cleanshutdown` was there: nothing needs recovery.
    pub clean_shutdown: bool,
    pub boot: BootEvidence,
    /// From our own state file: the log was synced up to here (exclusive).
    pub synced_end: Option<Offset>,
    /// From `cleaner-offset-checkpoint`: compacted up to here (exclusive), so that offsets are missing by
    /// right.
    pub cleaned_end: Option<Offset>,
    /// A person has seen that the log is damaged here, and lets it end here ([`give_up_name`]).
    pub given_up_from: Option<Offset>,
    /// With `flush.messages=1` a hole that another boot left is cut, and the log says so ([`Log::has_cut_hole`]): others have copies.
    pub cuts_holes: bool,
    /// `transactional.id.expiration.ms`
    pub producer_id_expiration_ms: i64,
}

impl Default for OpenOptions {
    /// For a new log: nothing is known, nothing needs recovery.
    fn default() -> Self {
        OpenOptions {
            recovery_point: Offset::ZERO,
            log_start_offset: None,
            high_watermark: None,
            clean_shutdown: true,
            boot: BootEvidence::SameBoot,
            synced_end: None,
            cleaned_end: None,
            given_up_from: None,
            cuts_holes: false,
            producer_id_expiration_ms: 7 * 24 * 3_600_000,
        }
    }
}

/// How far a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpperBound {
    /// Followers.
    LogEnd,
    /// Consumers with `read_uncommitted`.
    HighWatermark,
    /// Consumers with `read_committed`; aborted transactions are listed.
    LastStable,
}

/// An offset and where its batch begins. Positions count bytes in the segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOffsetMetadata {
    pub offset: Offset,
    pub segment_base_offset: Offset,
    pub position: u64,
}

/// The offsets of a log at one moment. All but the first are exclusive ends.
///
/// `log_start_offset <= last_stable_offset <= high_watermark <= log_end_offset`, and `synced_end <=
/// log_end_offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOffsetSnapshot {
    pub log_start_offset: Offset,
    pub last_stable_offset: Offset,
    pub high_watermark: Offset,
    pub log_end_offset: Offset,
    /// On the medium up to here.
    pub synced_end: Offset,
    /// What a follower may read up to: `log_end_offset`, or `synced_end` with `flush.messages=1`. The
    /// leader's share of the high watermark.
    pub replicable_end: Offset,
}

/// Told when an end that readers wait for has moved (log end, high watermark, last stable offset, synced end,
/// log start).
///
/// Called without any lock of the log, on the thread that moved it; it must not block. Calls of different
/// threads may arrive out of order: read the log's present offsets rather than count on the argument being
/// the newest.
pub trait LogListener: Send + Sync {
    /// `offsets` are those of some moment after the move.
    fn offsets_moved(&self, partition: &TopicPartition, offsets: &LogOffsetSnapshot);
}

/// A range of a segment file, to be sent by `sendfile` or read. Holding it keeps the file open, also when it
/// is deleted.
#[derive(Clone)]
pub struct FileSlice {
    pub file: FileHandle,
    /// First byte.
    pub position: u64,
    pub size_bytes: usize,
}

impl FileSlice {
    /// There is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.size_bytes == 0
    }

    /// Reads the range, for conversion, TLS or a disk without descriptors.
    ///
    /// # Errors
    /// The failed read; fewer bytes than `size_bytes` if the file was truncated meanwhile.
    pub fn read(&self) -> Result<Vec<u8>, IoError> {
        let mut bytes = vec![0; self.size_bytes];
        let read = self.file.read_at(self.position, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

impl fmt::Debug for FileSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}[{}..+{}]",
            self.file.path().display(),
            self.position,
            self.size_bytes
        )
    }
}

/// An aborted transaction that touches a fetched range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransactionRange {
    pub producer_id: ProducerId,
    /// Of its first batch in this partition.
    pub first_offset: Offset,
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct FetchInfo {
    /// Whole batches from the one that contains the offset asked for, cut anywhere at the end. `None` =
    /// nothing to read now.
    pub records: Option<FileSlice>,
    /// Where the read began.
    pub fetch_offset: LogOffsetMetadata,
    pub log_start_offset: Offset,
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    pub log_end_offset: Offset,
    /// `Some` for [`UpperBound::LastStable`] only.
    pub aborted_transactions: Option<Vec<AbortedTransactionRange>>,
    /// The first batch is larger than `max_bytes`, so that the range does not hold it whole.
    pub first_entry_incomplete: bool,
}

impl FetchInfo {
    /// Bytes of the records found; 0 if there is nothing to read now.
    pub fn size_bytes(&self) -> usize {
        self.records.as_ref().map_or(0, |slice| slice.size_bytes)
    }
}

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendInfo {
    /// Of the first record; `None` on followers for formats v0 and v1, which do not say, and for a duplicate that was written too
    /// long ago.
    pub first_offset: Option<Offset>,
    /// Inclusive.
    pub last_offset: Offset,
    pub max_timestamp: TimestampMs,
    /// `Some` if the topic stamps records with the time of the append.
    pub log_append_time: Option<TimestampMs>,
    pub log_start_offset: Offset,
    pub size_bytes: usize,
    /// The set had been written before (idempotent producer): these are its first offsets, nothing was
    /// written.
    pub is_duplicate: bool,
    /// `flush.messages` asks that the acknowledgement waits for [`Log::when_synced`] with this offset.
    pub sync_before_ack: Option<Offset>,
}

/// A record found by timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampAndOffset {
    pub timestamp: TimestampMs,
    pub offset: Offset,
    pub leader_epoch: Option<LeaderEpoch>,
}

/// One partition's log. See the module for what it promises; [`Log::open`] makes one.
pub struct Log {
    /// For the completions of syncs, which outlive the call that began them.
    me: Weak<Log>,
    partition: TopicPartition,
    place: Place,
    clock: Arc<dyn Clock>,
    config: ArcSwap<LogConfig>,
    /// In offset order, never empty; the last is active. Replaced under the append lock, read without it.
    segments: ArcSwap<Vec<Arc<LogSegment>>>,
    /// The append lock and what only appends, truncation and deletion change.
    state: Mutex<State>,
    offsets: Mutex<Offsets>,
    durability: Mutex<Durability>,
    deletions: Mutex<DelayedDeletions>,
    fence: OnceLock<Fence>,
    /// Grows with every truncation, as soon as `offsets` are lowered: a reader that met nonsense looks again if it changed meanwhile, and
    /// a sync that began before does not count.
    truncations: AtomicU64,
    listener: RwLock<Option<Arc<dyn LogListener>>>,
    /// As found when it was opened: this start cut a hole, or an earlier one did and [`names::HOLE_CUT`] was there.
    has_cut_hole: bool,
}

/// What the append lock guards.
#[derive(Debug)]
struct State {
    producers: ProducerStateManager,
    epochs: LeaderEpochCache,
}

/// Why a log serves no more.
#[derive(Debug)]
enum Fence {
    Closed,
    OutOfService(String),
}

/// The ends of a log; copied out under a lock held for moments.
#[derive(Clone, Copy, Debug)]
struct Offsets {
    log_start: Offset,
    end: LogOffsetMetadata,
    high_watermark: Offset,
    /// Bounded below by the log start offset.
    first_unstable: Option<Offset>,
    synced_end: Offset,
    recovery_point: Offset,
    /// Where the bounds above were found last, so that readers need not look them up again.
    known: [Option<LogOffsetMetadata>; 2],
}

impl Offsets {
    fn last_stable(&self) -> Offset {
        self.first_unstable
            .map_or(self.high_watermark, |first| first.min(self.high_watermark))
    }
}

impl Log {
    /// Which partition this is.
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// The log directory it lies in.
    pub fn directory(&self) -> &Arc<LogDirectory> {
        &self.place.directory
    }

    /// The partition's directory.
    pub fn path(&self) -> PathBuf {
        self.place.path()
    }

    /// The settings in force.
    pub fn config(&self) -> Arc<LogConfig> {
        self.config.load_full()
    }

    /// Takes new settings for what happens from now on. A lower message format clears the leader epochs, as
    /// in Kafka.
    ///
    /// # Errors
    /// The epoch file cannot be removed; the directory is offline then.
    pub fn update_config(&self, config: Arc<LogConfig>) -> Result<(), StorageError> {
        let format = config.message_format;
        let before = self.config.swap(config);
        if before.message_format != format {
            self.reload_epochs(format)?;
        }
        if self.is_synced_mode() {
            // Readers now wait for what was appended without.
            self.want_sync(self.log_end_offset());
            self.start_round();
        }
        Ok(())
    }

    /// Sets who is told when readable ends move; replaces the one before.
    pub fn set_listener(&self, listener: Arc<dyn LogListener>) {
        *self.listener.write() = Some(listener);
    }

    /// The first offset that may be read.
    pub fn log_start_offset(&self) -> Offset {
        self.offsets.lock().log_start
    }

    /// The offset that the next record gets.
    pub fn log_end_offset(&self) -> Offset {
        self.offsets.lock().end.offset
    }

    /// Everything below is replicated as far as it must be, so that consumers may read it.
    pub fn high_watermark(&self) -> Offset {
        self.offsets.lock().high_watermark
    }

    /// The first offset that a `read_committed` consumer may not read yet.
    pub fn last_stable_offset(&self) -> Offset {
        self.offsets.lock().last_stable()
    }

    /// Everything below is on the medium (`.log` files; see [`Log::recovery_point`] for the indexes).
    pub fn synced_end(&self) -> Offset {
        self.offsets.lock().synced_end
    }

    /// Everything below is on the medium, and no recovery is needed there: for
    /// `recovery-point-offset-checkpoint`. Never above the log end.
    pub fn recovery_point(&self) -> Offset {
        self.offsets.lock().recovery_point
    }

    /// Where the next record goes.
    pub(crate) fn log_end_metadata(&self) -> LogOffsetMetadata {
        self.offsets.lock().end
    }

    /// All ends at one moment.
    pub fn offsets(&self) -> LogOffsetSnapshot {
        let offsets = *self.offsets.lock();
        self.snapshot_of(&offsets)
    }

    fn snapshot_of(&self, offsets: &Offsets) -> LogOffsetSnapshot {
        LogOffsetSnapshot {
            log_start_offset: offsets.log_start,
            last_stable_offset: offsets.last_stable(),
            high_watermark: offsets.high_watermark,
            log_end_offset: offsets.end.offset,
            synced_end: offsets.synced_end,
            replicable_end: if self.is_synced_mode() {
                offsets.synced_end
            } else {
                offsets.end.offset
            },
        }
    }

    /// Whether a hole was cut ([`OpenOptions::cuts_holes`]), by this start or by one after which [`Self::forget_cut_hole`] was not
    /// called.
    pub(crate) fn has_cut_hole(&self) -> bool {
        self.has_cut_hole
    }

    /// The next start need not know any more that a hole was cut. Not durable at once: a power cut may bring the knowledge back.
    ///
    /// # Errors
    /// Final for the directory.
    pub(crate) fn forget_cut_hole(&self) -> Result<(), IoError> {
        match self.has_cut_hole {
            true => self.place.remove(names::HOLE_CUT),
            false => Ok(()),
        }
    }

    /// `flush.messages=1`: records are synced before they are acknowledged or read.
    pub(crate) fn is_synced_mode(&self) -> bool {
        self.config.load().flush_messages == Some(1)
    }

    /// Sets the high watermark, bounded by log start and log end, and returns it as bounded. It may go back
    /// (followers).
    pub fn set_high_watermark(&self, high_watermark: Offset) -> Offset {
        self.move_high_watermark(high_watermark, |_, _| true)
    }

    /// Moves the high watermark forward (leaders). Appends of several threads tell of it in any order: what
    /// comes late changes nothing.
    pub fn advance_high_watermark(&self, high_watermark: Offset) -> Offset {
        self.move_high_watermark(high_watermark, |from, to| to > from)
    }

    fn move_high_watermark(&self, to: Offset, may_move: impl Fn(Offset, Offset) -> bool) -> Offset {
        let needs_state = {
            let mut offsets = self.offsets.lock();
            let bounded = to.clamp(offsets.log_start, offsets.end.offset);
            if bounded == offsets.high_watermark || !may_move(offsets.high_watermark, bounded) {
                return offsets.high_watermark;
            }
            offsets.high_watermark = bounded;
            offsets.first_unstable.is_some()
        };
        if needs_state {
            // Transactions whose markers are now replicated no longer hold the last stable offset back.
            let mut state = self.state.lock();
            let high_watermark = self.offsets.lock().high_watermark;
            state.producers.on_high_watermark_updated(high_watermark);
            self.publish_first_unstable(&state);
        }
        let bounded = self.high_watermark();
        self.notify();
        bounded
    }

    /// Copies the first unstable offset out of the producer state; under the append lock.
    fn publish_first_unstable(&self, state: &State) {
        let first = state.producers.first_unstable_offset();
        let mut offsets = self.offsets.lock();
        offsets.first_unstable = first.map(|first| first.max(offsets.log_start));
    }

    /// Bytes of the batches in all segments; indexes are not counted.
    pub fn size_bytes(&self) -> u64 {
        self.segments
            .load()
            .iter()
            .map(|segment| segment.size_bytes())
            .sum()
    }

    /// At least 1.
    pub fn segment_count(&self) -> usize {
        self.segments.load().len()
    }

    /// The base offsets of all segments, in order.
    pub fn segment_base_offsets(&self) -> Vec<Offset> {
        self.segments
            .load()
            .iter()
            .map(|segment| segment.base_offset)
            .collect()
    }

    fn active(&self) -> Arc<LogSegment> {
        self.segments
            .load()
            .last()
            .cloned()
            .expect("a log always has a segment")
    }

    /// Why the partition was taken out of service, if it was.
    pub fn out_of_service(&self) -> Option<&str> {
        match self.fence.get() {
            Some(Fence::OutOfService(reason)) => Some(reason),
            _ => None,
        }
    }

    /// Whether appends and reads are still served.
    ///
    /// # Errors
    /// `Offline` if the log directory has failed, `OutOfService` if this log was closed or found damaged.
    #[inline]
    pub fn check_serving(&self) -> Result<(), StorageError> {
        self.place.directory.check_online()?;
        match self.fence.get() {
            None => Ok(()),
            Some(fence) => Err(self.fenced(fence)),
        }
    }

    #[cold]
    fn fenced(&self, fence: &Fence) -> StorageError {
        let reason = match fence {
            Fence::Closed => "the log is closed".to_owned(),
            Fence::OutOfService(reason) => reason.clone(),
        };
        StorageError::OutOfService {
            partition: self.partition.clone(),
            reason,
        }
    }

    /// Takes the partition out of service for good because its bytes are not what they must be; says so once.
    #[cold]
    fn take_out_of_service(&self, damage: &CorruptFile) -> StorageError {
        let reason = recovery::how_to_look(&damage.to_string(), &damage.path, None);
        if self.fence.set(Fence::OutOfService(reason)).is_ok() {
            tracing::error!(
                "{} is out of service: {}",
                self.partition,
                self.out_of_service().unwrap_or_default()
            );
            self.fail_waiters();
        }
        self.fenced(self.fence.get().expect("set above or before"))
    }

    /// Tells the listener where the ends are now. Not under any lock.
    fn notify(&self) {
        let listener = self.listener.read().clone();
        if let Some(listener) = listener {
            listener.offsets_moved(&self.partition, &self.offsets());
        }
    }

    /// Closes files of sealed segments that were not used since the last call; to be called every minute or
    /// so.
    pub fn release_descriptors(&self) {
        let segments = self.segments.load_full();
        let Some((active, sealed)) = segments.split_last() else {
            return;
        };
        sealed.iter().for_each(|segment| segment.release(false));
        active.release(true);
    }

    /// Forgets producers that were idle for too long; returns how many.
    pub(crate) fn remove_expired_producers(&self) -> usize {
        let now = self.clock.wall();
        self.state.lock().producers.remove_expired(now)
    }

    /// The largest producer id that this log knows of, so that new ids can be given out above it.
    pub(crate) fn largest_producer_id(&self) -> Option<ProducerId> {
        self.state.lock().producers.producers().map(|(id, _)| id).max()
    }

    /// Completes and syncs everything and closes the log, so that the next start needs no recovery.
    ///
    /// # Errors
    /// The write or sync that failed (the directory is offline then); each log is closed on its own.
    pub fn close(&self) -> Result<(), StorageError> {
        self.check_serving()?;
        {
            let mut state = self.state.lock();
            self.write_snapshot(&mut state)?;
            // The next start takes it for what it is: no batch is read again after a clean stop.
            if snapshots::sync_newest(&self.place)? {
                self.directory_changed();
            }
            self.active().complete_files(&self.place)?;
            // Nothing may be appended behind what is about to be flushed.
            let _already_fenced = self.fence.set(Fence::Closed);
        }
        let flushed = self.flush_all();
        self.fail_waiters();
        flushed.map(|_| ())
    }

    /// Stops serving without writing anything; waiters get an error.
    pub fn abandon(&self) {
        let _already_fenced = self.fence.set(Fence::Closed);
        self.fail_waiters();
    }

    /// Renames the partition's directory within its log directory (`-delete`, `-future`), durably. Readers go
    /// on.
    ///
    /// # Errors
    /// The rename or sync failed; the directory is offline then.
    pub fn rename(&self, name: &str) -> Result<(), StorageError> {
        self.place.directory.check_online()?;
        let _appends_wait = self.state.lock();
        Ok(self.place.rename_directory(name)?)
    }

    /// Removes the partition's directory with all that is in it, and stops serving.
    ///
    /// # Errors
    /// The removal failed; the directory is offline then.
    pub fn delete(&self) -> Result<(), StorageError> {
        self.abandon();
        self.place.directory.check_online()?;
        let _appends_wait = self.state.lock();
        let path = self.place.path();
        self.place
            .io
            .remove_dir_all(&path)
            .map_err(|error| self.place.fatal(error))?;
        Ok(())
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("partition", &self.partition)
            .field("path", &self.place.path())
            .field("offsets", &*self.offsets.lock())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
