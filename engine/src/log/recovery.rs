//! Opening a log: what is on disk becomes segments, ends, producer state and epochs again.
//!
//! After a clean stop nothing is read but directory entries, the tail of the active segment behind its last
//! index entry, the newest snapshot and the epochs. After an unclean one, batches are checked from the
//! recovery point on; the segment that contains it is walked by its headers from the newest snapshot, because
//! producer state must be rebuilt. All decisions are taken before the first of the log's own files is
//! changed, so that a log that is out of service is left as it was found.
//!
//! What a bad batch means ([`damage`]):
//!
//! | where                                                             | then                         |
//! |-------------------------------------------------------------------|------------------------------|
//! | below the recovery point or synced end, or after a clean stop     | out of service               |
//! | same boot, incomplete at the very end: a write was interrupted    | cut                          |
//! | same boot, anything else                                          | out of service               |
//! | other boot, `flush.messages=1`, torn tail: no sound batch follows | cut: it was not acknowledged |
//! | other boot, `flush.messages=1`, hole: sound batches follow        | out of service; cut where    |
//! |                                                                   | others have copies           |
//! | other boot, default flush                                         | cut, later segments too      |
//! | other boot, offsets missing between two segments above both,      | cut, later segments go       |
//! | none of them compacted                                            |                              |
//! | only zeros to the end of the file                                 | end of the log, no damage    |
//!
//! Where `flush.messages=1`, what lies above all that is known to be synced is written again in place before it is synced:
//! a sync may have failed before ([`rewrite`]).
//!
//! What is cut is kept aside first, in a plain file that Kafka ignores. A log that is out of service is cut too
//! once a person says so, by a file that names the very offset at which it is damaged
//! ([`OpenOptions::given_up_from`]).
//!
//! Source: `Log.loadSegments`, `Log.recoverLog`, `Log.rebuildProducerState`, `LogSegment.recover`.
//!
//! **Deviation:** 2.7.2 cuts at the first bad batch whatever the evidence, deletes what follows and, after a
//! clean stop, does not look. It may thereby throw away data that replicas have acknowledged.
//!
//! **Deviation:** the recovery point stays where it was until a flush; 2.7.2 sets it to the log end, which is
//! not synced.

mod damage;
mod leftovers;
mod rebuild;
mod rewrite;

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};

use crate::config::{LogConfig, Magic};
use crate::error::{CorruptFile, IoError, StorageError};
use crate::io::{Clock, Io};
use crate::log::directory::LogDirectory;
use crate::log::durability::Durability;
use crate::log::leader_epoch_cache::LeaderEpochCache;
use crate::log::place::Place;
use crate::log::producer_state::ProducerStateManager;
use crate::log::scan::{LOOKUP_WINDOW_SIZE_BYTES, SCAN_WINDOW_SIZE_BYTES, Step};
use crate::log::segment::LogSegment;
use crate::log::{
    BootEvidence, Log, LogOffsetMetadata, Offsets, OpenOptions, State, epochs, names, scan, snapshots,
};
use crate::units::{Offset, TimestampMs, TopicPartition};

use rebuild::Rebuilt;

/// Why a log cannot be opened. Its files are as they were found, up to the completion of interrupted renames.
#[derive(Debug, thiserror::Error)]
pub enum LogOpenError {
    /// Bytes that must be whole are not. The partition stays offline, its directory untouched; the others go
    /// on.
    #[error("{partition} is out of service: {reason}")]
    OutOfService {
        partition: TopicPartition,
        reason: String,
    },
    /// The log directory is offline, went offline by this, or a file cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<IoError> for LogOpenError {
    fn from(error: IoError) -> Self {
        LogOpenError::Storage(error.into())
    }
}

/// What was found, what it means, how a person looks at it, and how it comes back into service: the offset that
/// was due at the damage in the file at `path` is known once recovery has looked.
pub(super) fn how_to_look(found: &str, path: &Path, due: Option<Offset>) -> String {
    let way_back = match due {
        Some(offset) => format!(
            "To serve what lies before and give up everything from offset {offset} on (it is kept aside), create \
             the empty file {} and start again",
            path.with_file_name(names::give_up_name(offset)).display()
        ),
        None => "The next start checks the whole partition and says from which offset on it can be given up"
            .into(),
    };
    format!(
        "{found}. Nothing was changed. Look at it with: kafka-dump-log.sh --deep-iteration --files {}. {way_back}; \
         where other replicas are, move the partition's directory away and let them fill it again",
        path.display()
    )
}

/// What opening works with.
struct Loader<'l> {
    place: &'l Place,
    partition: &'l TopicPartition,
    config: &'l LogConfig,
    options: &'l OpenOptions,
    now: TimestampMs,
    has_cut_hole: Cell<bool>,
}

/// What opening found.
struct Loaded {
    segments: Vec<Arc<LogSegment>>,
    log_start: Offset,
    end: Offset,
    recovery_point: Offset,
    producers: ProducerStateManager,
    epochs: LeaderEpochCache,
}

impl Log {
    /// Opens the log in the sub-directory `name` of `directory`, creating it if missing, and recovers it if
    /// need be.
    ///
    /// # Errors
    /// `OutOfService` if the bytes are not what they must be; `Storage` if a file cannot be read, or not
    /// written: then the directory is offline.
    pub fn open(
        directory: Arc<LogDirectory>,
        name: &str,
        partition: TopicPartition,
        config: Arc<LogConfig>,
        options: &OpenOptions,
        io: Arc<dyn Io>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Log>, LogOpenError> {
        directory.check_online()?;
        let place = Place::new(io, directory, name);
        let path = place.path();
        let is_new = place.io.stat(&path)?.is_none();
        if is_new {
            // A log directory that was taken away is not made again: it would lack its lock, its identity and its tree.
            if place.io.stat(place.directory.path())?.is_none() {
                let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
                return Err(place.fatal(IoError::new("mkdir", path, gone)).into());
            }
            place
                .io
                .create_dir_all(&path)
                .map_err(|error| place.fatal(error))?;
        }
        let loader = Loader {
            place: &place,
            partition: &partition,
            config: &config,
            options,
            now: clock.wall(),
            has_cut_hole: Cell::new(false),
        };
        let loaded = loader.load(is_new)?;
        let active = loaded
            .segments
            .last()
            .expect("loading creates a segment if there is none");
        let end = LogOffsetMetadata {
            offset: loaded.end,
            segment_base_offset: active.base_offset,
            position: active.size_bytes(),
        };
        let known_synced = options.synced_end.unwrap_or(Offset::ZERO).min(loaded.end);
        let synced_end = loaded.recovery_point.max(known_synced);
        let high_watermark = options
            .high_watermark
            .unwrap_or(loaded.log_start)
            .clamp(loaded.log_start, loaded.end);
        let mut state = State {
            producers: loaded.producers,
            epochs: loaded.epochs,
        };
        state.producers.on_high_watermark_updated(high_watermark);
        let first_unstable = state.producers.first_unstable_offset();
        let offsets = Offsets {
            log_start: loaded.log_start,
            end,
            high_watermark,
            first_unstable: first_unstable.map(|first| first.max(loaded.log_start)),
            synced_end,
            recovery_point: loaded.recovery_point,
            known: [None, None],
        };
        let durability = Durability::new(
            synced_end,
            is_new,
            is_new || options.clean_shutdown,
            clock.monotonic(),
        );
        let log = Arc::new_cyclic(|me| Log {
            me: me.clone(),
            partition,
            place,
            clock,
            config: ArcSwap::new(config),
            segments: ArcSwap::from_pointee(loaded.segments),
            state: Mutex::new(state),
            offsets: Mutex::new(offsets),
            durability: Mutex::new(durability),
            deletions: Mutex::default(),
            fence: OnceLock::new(),
            truncations: AtomicU64::new(0),
            listener: RwLock::new(None),
            has_cut_hole: loader.has_cut_hole.get(),
        });
        if log.is_synced_mode() && synced_end < end.offset {
            log.flush()?;
        }
        Ok(log)
    }

    /// Brings `producers` to `end`: from the newest readable snapshot at or below it, then from the batches.
    pub(super) fn rebuild_producers(
        &self,
        producers: &mut ProducerStateManager,
        segments: &[Arc<LogSegment>],
        log_start: Offset,
        end: Offset,
    ) -> Result<(), StorageError> {
        let now = self.clock.wall();
        load_snapshot(&self.place, producers, log_start, end, now)?;
        replay(&self.place, producers, segments, end)
    }
}

impl Loader<'_> {
    fn load(&self, is_new: bool) -> Result<Loaded, LogOpenError> {
        let mut segments = if is_new { Vec::new() } else { self.find_segments()? };
        let mut epochs = if is_new {
            LeaderEpochCache::new()
        } else {
            epochs::load(self.place, self.config.message_format)?
        };
        let mut epochs_before = epochs.clone();
        let first = segments.first().map(|segment| segment.base_offset);
        let asked = self.options.log_start_offset.unwrap_or(Offset::ZERO);
        let log_start = first.map_or(asked, |first| asked.max(first));
        let mut producers =
            ProducerStateManager::new(self.partition.clone(), self.options.producer_id_expiration_ms);
        producers.clear_and_start_at(log_start);

        let has_snapshot = !is_new && !snapshots::list(self.place)?.is_empty();
        self.complete_indexes(&segments, log_start)?;
        let mut recovery_point = self.options.recovery_point;
        let mut end;
        if self.options.clean_shutdown {
            end = self.end_of(&segments, log_start)?;
            // Without any snapshot a clean log was written by a version that knew no producers: they are not
            // looked for.
            if !segments.is_empty() && has_snapshot {
                self.load_producers(&mut producers, &segments, log_start, end)?;
            }
            recovery_point = end;
        } else {
            end = self.recover(&mut segments, &mut producers, &mut epochs, log_start)?;
            recovery_point = recovery_point.min(end);
        }

        if end < log_start && !segments.is_empty() {
            tracing::warn!(
                "{}: deleting all segments because the log end offset {end} is below the log \
                 start offset {log_start}; were segment files deleted from the directory?",
                self.partition
            );
            for segment in segments.drain(..) {
                segment.mark_deleted(self.place)?;
                LogSegment::remove_deleted(self.place, segment.base_offset)?;
            }
        }
        if segments.is_empty() {
            if !is_new {
                LogSegment::remove_leftovers(self.place, log_start)?;
            }
            segments.push(LogSegment::create(self.place, log_start, self.config, self.now)?);
            if !is_new && log_start > Offset::ZERO {
                // From now on the name of this segment alone tells where the log starts, and what lies below passes
                // for synced: no segment of it may come back.
                self.place.sync_dir()?;
            }
            end = log_start;
            recovery_point = log_start;
            producers.clear_and_start_at(log_start);
        }
        recovery_point = recovery_point.min(end);

        let last = segments.len() - 1;
        for (segment, next) in segments[..last].iter().zip(&segments[1..]) {
            segment.set_sealed();
            if next.base_offset <= recovery_point {
                segment.set_flushed();
            }
        }
        epochs.truncate_from_end(end);
        if !self.options.clean_shutdown && self.misses_first_epoch(&segments, &epochs, log_start)? {
            epochs.clear();
            self.note_epochs(&segments, &mut epochs)?;
        }
        epochs.truncate_from_start(log_start);
        // Of an empty log nothing is left, so that the next start finds what this one leaves.
        epochs.truncate_from_end(end);
        // What lies behind the end need not be taken off the file: the next open drops it again, and a new
        // epoch writes the whole list.
        epochs_before.truncate_from_end(end);
        if epochs != epochs_before {
            epochs::store(self.place, &epochs, true)?;
        }
        if !is_new {
            snapshots::remove(self.place, |offset| offset > end || offset <= log_start)?;
        }
        producers.set_map_end_offset(end);
        if let Some((offset, bytes)) = producers.take_snapshot() {
            snapshots::write(self.place, offset, &bytes)?;
        }
        Ok(Loaded {
            segments,
            log_start,
            end,
            recovery_point,
            producers,
            epochs,
        })
    }

    /// The error of a log whose bytes are not what they must be; `due` is the offset that should be there.
    fn out_of_service(&self, damage: &CorruptFile, because: &str, due: Option<Offset>) -> LogOpenError {
        let reason = how_to_look(&format!("{damage}; {because}"), &damage.path, due);
        LogOpenError::OutOfService {
            partition: self.partition.clone(),
            reason,
        }
    }

    /// Damage where everything must be whole, as an error of opening.
    fn must_be_whole(&self, error: StorageError, because: &str) -> LogOpenError {
        match error {
            StorageError::Corrupt(damage) => self.out_of_service(&damage, because, None),
            other => other.into(),
        }
    }

    /// The end of a cleanly closed log. Index ends that are not sound are built anew.
    fn end_of(&self, segments: &[Arc<LogSegment>], log_start: Offset) -> Result<Offset, LogOpenError> {
        let because = "the log was closed cleanly";
        let Some((active, older)) = segments.split_last() else {
            return Ok(log_start);
        };
        let is_sound = match active.has_sound_index_ends(self.place) {
            Ok(is_sound) => is_sound,
            Err(StorageError::Corrupt(_)) => false,
            Err(error) => return Err(error.into()),
        };
        if !is_sound {
            return self.rebuild_in_place(active, older, log_start, because, "its last entries are wrong");
        }
        match active.next_offset(self.place) {
            Ok(end) => Ok(end),
            Err(StorageError::Corrupt(damage)) => {
                let file = active.file(self.place)?;
                if !scan::is_zero(file.as_ref(), damage.position, active.size_bytes())? {
                    return Err(self.out_of_service(&damage, because, None));
                }
                // Preallocated space that the close did not trim.
                active.set_preallocated(damage.position);
                active
                    .next_offset(self.place)
                    .map_err(|error| self.must_be_whole(error, because))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Producer state of a cleanly closed log.
    fn load_producers(
        &self,
        producers: &mut ProducerStateManager,
        segments: &[Arc<LogSegment>],
        log_start: Offset,
        end: Offset,
    ) -> Result<(), LogOpenError> {
        load_snapshot(self.place, producers, log_start, end, self.now)?;
        if self.config.message_format == Magic::V2 {
            replay(self.place, producers, segments, end)
                .map_err(|error| self.must_be_whole(error, "the log was closed cleanly"))?;
        }
        Ok(())
    }

    /// Whether the list was lost, or its beginning went with a log start that was not kept.
    fn misses_first_epoch(
        &self,
        segments: &[Arc<LogSegment>],
        epochs: &LeaderEpochCache,
        log_start: Offset,
    ) -> Result<bool, LogOpenError> {
        let Some(noted) = epochs.earliest() else {
            return Ok(true);
        };
        if noted.start_offset <= log_start {
            return Ok(false);
        }
        let first = &segments[0];
        let file = first.file(self.place)?;
        let mut scanner =
            scan::BatchScanner::new(file.as_ref(), 0, first.size_bytes(), LOOKUP_WINDOW_SIZE_BYTES);
        Ok(match scanner.step()? {
            // Older formats have no epochs to note.
            Step::Batch { header, .. } => {
                header.leader_epoch.is_some() && header.base_offset < noted.start_offset
            }
            Step::End | Step::Bad { .. } => false,
        })
    }

    /// Notes the epochs of all batches by their headers.
    fn note_epochs(
        &self,
        segments: &[Arc<LogSegment>],
        epochs: &mut LeaderEpochCache,
    ) -> Result<(), LogOpenError> {
        if self.config.message_format != Magic::V2 {
            return Ok(());
        }
        for segment in segments {
            let file = segment.file(self.place)?;
            let size = segment.size_bytes();
            let mut scanner = scan::BatchScanner::new(file.as_ref(), 0, size, LOOKUP_WINDOW_SIZE_BYTES);
            while let Step::Batch { header, .. } = scanner.step()? {
                if let (Magic::V2, Some(epoch)) = (header.magic, header.leader_epoch)
                    && epochs.latest_epoch().is_none_or(|latest| epoch > latest)
                {
                    epochs.assign(epoch, header.base_offset);
                }
            }
        }
        Ok(())
    }

    /// Checks what may not be whole, decides, and then puts the files in order. Returns the log end.
    fn recover(
        &self,
        segments: &mut Vec<Arc<LogSegment>>,
        producers: &mut ProducerStateManager,
        epochs: &mut LeaderEpochCache,
        log_start: Offset,
    ) -> Result<Offset, LogOpenError> {
        let recovery_point = self.options.recovery_point;
        if segments.is_empty() {
            return Ok(log_start);
        }
        let first = segments
            .partition_point(|segment| segment.base_offset <= recovery_point)
            .saturating_sub(1);
        // What lies below the recovery point in its segment is synced with its index, so that a part of it
        // can be kept.
        let kept = match self.trusted_prefix(&segments[first], recovery_point) {
            Err(StorageError::Corrupt(_)) => None,
            kept => kept?,
        };
        let snapshot_limit = if kept.is_some() {
            recovery_point
        } else {
            segments[first].base_offset
        };
        load_snapshot(
            self.place,
            producers,
            log_start,
            snapshot_limit.max(log_start),
            self.now,
        )?;
        let walked_from = kept
            .as_ref()
            .map_or(segments[first].base_offset, |kept| kept.from);
        replay(self.place, producers, &segments[..=first], walked_from)
            .map_err(|error| self.must_be_whole(error, "it lies below the recovery point"))?;

        // The epochs of what is walked are noted anew: an entry there may have been moved by a log start that
        // was not kept. The one that covers the log start stays, as there may be no batch to tell of it.
        let behind_start = Offset(log_start.get().saturating_add(1));
        epochs.truncate_from_end(walked_from.max(behind_start));

        let whole_until = recovery_point.max(self.options.synced_end.unwrap_or(Offset::ZERO));
        let mut rebuilt: Vec<Rebuilt> = Vec::new();
        let mut next_offset = segments[first].base_offset;
        let mut damage = None;
        for (index, segment) in segments.iter().enumerate().skip(first) {
            // A later segment may have reached the disk without the end of the one before.
            let is_gap =
                index > first && segment.base_offset > next_offset && segment.base_offset >= whole_until;
            if is_gap && self.gap_tells_of_loss(segment.base_offset) {
                damage = Some(self.judge_gap(segments, index, &rebuilt)?);
                break;
            }
            tracing::info!(
                "[Log partition={}, dir={}] Recovering unflushed segment {} ({} bytes)",
                self.partition,
                self.place.directory.path().display(),
                segment.base_offset,
                segment.size_bytes()
            );
            let kept = if index == first { kept.clone() } else { None };
            let result = self.walk(
                segment,
                kept,
                recovery_point,
                next_offset,
                producers,
                Some(epochs),
            )?;
            next_offset = result.next_offset;
            let bad = result.bad.clone();
            rebuilt.push(result);
            if let Some(bad) = bad {
                damage = self.judge(segments, index, &bad, next_offset, whole_until)?;
                if damage.is_some() {
                    break;
                }
            }
        }
        if let Some(cut) = &damage {
            self.keep_aside(segments, cut)?;
            segments.truncate(cut.segment_index + 1);
        }
        if next_offset < whole_until && self.options.synced_end.is_some_and(|synced| synced > next_offset) {
            tracing::warn!(
                "{}: the log ends at offset {next_offset}, but it was synced up to {whole_until} before; \
                 it was truncated in between, or segment files are missing",
                self.partition
            );
        }
        for (segment, rebuilt) in segments[first..].iter().zip(&rebuilt) {
            self.apply(segment, rebuilt)?;
            if self.config.flush_messages == Some(1) {
                self.rewrite(segment, rebuilt, whole_until)?;
            }
        }
        if segments[first].base_offset < recovery_point {
            // Built anew below the recovery point too, where the next start takes them for synced.
            for file in segments[first].index_files(self.place)? {
                file.sync().map_err(|error| self.place.fatal(error))?;
            }
        }
        if let Some(cut) = &damage {
            // What was cut must not come back behind what is written in its place.
            let file = segments[cut.segment_index].file(self.place)?;
            file.sync().map_err(|error| self.place.fatal(error))?;
        }
        Ok(next_offset)
    }

    /// Whether offsets that are missing before a segment were lost with a write. Compaction leaves segments
    /// without records: there nothing is cut for it.
    fn gap_tells_of_loss(&self, base_offset: Offset) -> bool {
        let is_compacted = self.config.cleanup_policy.compact
            || self.options.cleaned_end.is_some_and(|end| base_offset <= end);
        may_have_lost_writes(self.options.boot) && !is_compacted
    }

    /// The segments on disk, after leftovers of interrupted operations were dealt with.
    fn find_segments(&self) -> Result<Vec<Arc<LogSegment>>, LogOpenError> {
        let names = self.settle_leftovers()?;
        let mut segments = Vec::new();
        for parsed in names.iter().filter(|parsed| parsed.kind == names::LOG) {
            let path = self.place.file(&names::file_name(parsed.offset, names::LOG));
            let Some(stat) = self.place.io.stat(&path)? else {
                continue;
            };
            let has_transactions = names
                .iter()
                .any(|other| other.offset == parsed.offset && other.kind == names::TRANSACTION_INDEX);
            let segment = LogSegment::on_disk(parsed.offset, stat.size_bytes, has_transactions, self.now);
            segments.push(Arc::new(segment));
        }
        segments.sort_unstable_by_key(|segment| segment.base_offset);
        Ok(segments)
    }
}

/// Loads the newest readable snapshot in `log_start < offset <= limit`; unreadable ones are removed. Without
/// one the state is empty and starts at `log_start`.
fn load_snapshot(
    place: &Place,
    producers: &mut ProducerStateManager,
    log_start: Offset,
    limit: Offset,
    now: TimestampMs,
) -> Result<(), StorageError> {
    producers.clear_and_start_at(log_start);
    for offset in snapshots::list(place)?.into_iter().rev() {
        if offset > limit || offset <= log_start {
            continue;
        }
        let name = names::file_name(offset, names::SNAPSHOT);
        let bytes = place
            .read_small(&name, snapshots::SNAPSHOT_SIZE_BYTES_MAX)?
            .unwrap_or_default();
        match producers.load_snapshot(offset, &bytes, now) {
            Ok(()) => return Ok(()),
            Err(error) => {
                tracing::warn!(
                    "{}: {error}; removed, an older one is used",
                    place.file(&name).display()
                );
                place.remove(&name)?;
            }
        }
    }
    Ok(())
}

/// Applies the batches from where `producers` stands up to `end`, by their headers.
fn replay(
    place: &Place,
    producers: &mut ProducerStateManager,
    segments: &[Arc<LogSegment>],
    end: Offset,
) -> Result<(), StorageError> {
    let from = producers.map_end_offset();
    if from >= end {
        return Ok(());
    }
    let first = segments
        .partition_point(|segment| segment.base_offset <= from)
        .saturating_sub(1);
    for segment in segments
        .iter()
        .skip(first)
        .filter(|segment| segment.base_offset < end)
    {
        let size = segment.size_bytes();
        let Some(located) = segment.locate(place, from, size)? else {
            continue;
        };
        let file = segment.file(place)?;
        let mut scanner =
            scan::BatchScanner::new(file.as_ref(), located.position, size, LOOKUP_WINDOW_SIZE_BYTES);
        loop {
            match scanner.step()? {
                Step::End => break,
                Step::Bad { position, error } => {
                    return Err(segment
                        .corrupt(place, position, "a batch header", error.to_string())
                        .into());
                }
                Step::Batch { header, .. } if header.base_offset >= end => break,
                Step::Batch { position, header } => {
                    // The log may start inside a batch.
                    if header.producer.is_some() && header.last_offset >= from {
                        rebuild::apply_producer(producers, &mut scanner, position, &header)?;
                    }
                }
            }
        }
    }
    producers.set_map_end_offset(end);
    Ok(())
}

/// Whether the machine was restarted, as far as anyone can tell.
fn may_have_lost_writes(boot: BootEvidence) -> bool {
    boot != BootEvidence::SameBoot
}

/// Size of one read while checking batches.
const CHECK_WINDOW_SIZE_BYTES: usize = SCAN_WINDOW_SIZE_BYTES;
