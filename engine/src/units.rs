//! Distinct types for the quantities of a log, so that no bare integer crosses a boundary and no two kinds are
//! mixed up.
//!
//! All are signed and as wide as on the wire and on disk; "absent" is an `Option` inside the engine and becomes −1
//! only where bytes are written.

use std::fmt;
use std::sync::Arc;

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub $int);

        impl $name {
            /// The bare integer, for the wire and the disk.
            #[inline]
            pub const fn get(self) -> $int {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

quantity! {
    /// Position of a record in its partition, from 0, without gaps at append (compaction leaves gaps).
    Offset(i64)
}
quantity! {
    /// Number of a partition leader's reign; larger is later. −1 on the wire when unknown.
    LeaderEpoch(i32)
}
quantity! {
    /// Identity of an idempotent producer, unique in the cluster.
    ProducerId(i64)
}
quantity! {
    /// Incarnation of a producer id; larger is later.
    ProducerEpoch(i16)
}
quantity! {
    /// Number of a record among those of one producer epoch and partition; after `i32::MAX` comes 0.
    Sequence(i32)
}
quantity! {
    /// Milliseconds since 1970-01-01 UTC; −1 means that the record has none (message format v0).
    TimestampMs(i64)
}

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Offset = Offset(0);

    /// The offset `count` records further on.
    #[inline]
    pub const fn plus(self, count: i64) -> Offset {
        Offset(self.0 + count)
    }

    /// How many offsets lie from `earlier` (inclusive) to `self` (exclusive).
    #[inline]
    pub const fn since(self, earlier: Offset) -> i64 {
        self.0 - earlier.0
    }
}

impl TimestampMs {
    /// What a record without a timestamp carries.
    pub const NONE: TimestampMs = TimestampMs(-1);
}

impl Sequence {
    /// The sequence `count` records later, wrapping from `i32::MAX` to 0 as Kafka's producers do.
    #[inline]
    pub const fn plus(self, count: i32) -> Sequence {
        let sum = self.0 as i64 + count as i64;
        if sum > i32::MAX as i64 {
            Sequence((sum - i32::MAX as i64 - 1) as i32)
        } else {
            Sequence(sum as i32)
        }
    }
}

/// One partition of one topic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    /// From 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Neither is checked.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> TopicPartition {
        TopicPartition {
            topic: topic.into(),
            partition,
        }
    }
}

/// `topic-partition`, the name of its directory.
impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_wraps_to_zero_after_the_largest() {
        assert_eq!(Sequence(i32::MAX).plus(1), Sequence(0));
        assert_eq!(Sequence(i32::MAX - 1).plus(3), Sequence(1));
        assert_eq!(Sequence(7).plus(2), Sequence(9));
    }
}
