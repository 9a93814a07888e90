//! Where a follower's log parts from the leader's (`AbstractFetcherThread.getOffsetTruncationState`, KIP-101, KIP-279).
//!
//! | the leader's answer | the follower's log | cut at |
//! |---|---|---|
//! | nothing known | | the high watermark |
//! | an end without an epoch (before 2.0) | | the lesser of that end and our own |
//! | epoch and end | has no epoch as small | the lesser of that end and our own |
//! | epoch and end | has that epoch | the least of that end, our end of the epoch and our own end |
//! | epoch and end | has a smaller one only | our end of that one, and the leader is asked again |

use milena_engine::units::{LeaderEpoch, Offset};

use super::FollowedLog;
use crate::planted::{self, Bug};

/// What a leader says of an epoch: the largest one not above it that it has, and where that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// `None`: the leader does not say, or has none.
    pub epoch: Option<LeaderEpoch>,
    /// `None`: unknown.
    pub end: Option<Offset>,
}

/// Where to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncation {
    /// The logs agree below.
    Final(Offset),
    /// Ask again afterwards, about an earlier epoch.
    Further(Offset),
}

impl Truncation {
    pub fn offset(self) -> Offset {
        match self {
            Truncation::Final(offset) | Truncation::Further(offset) => offset,
        }
    }
}

/// See the module's table.
pub(super) fn truncation(log: &dyn FollowedLog, high_watermark: Offset, answer: EpochEnd) -> Truncation {
    let our_end = log.log_end();
    if planted::has(Bug::CutAtHighWatermark) {
        return Truncation::Final(high_watermark.min(our_end));
    }
    let Some(their_end) = answer.end else {
        return Truncation::Final(high_watermark.min(our_end));
    };
    let ours = answer.epoch.and_then(|epoch| log.end_of_epoch(epoch));
    match (answer.epoch, ours) {
        (None, _) | (_, None) => Truncation::Final(their_end.min(our_end)),
        (Some(theirs), Some((epoch, end))) if epoch == theirs => {
            Truncation::Final(their_end.min(end).min(our_end))
        }
        (_, Some((_, end))) => Truncation::Further(end.min(our_end)),
    }
}
