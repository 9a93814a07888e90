//! Bugs planted on purpose, one at a time and in tests only: a simulation that cannot find them shows nothing (`docs/hacking.md`).

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// `acks=all` is answered once the leader has the record.
    AcknowledgedBeforeReplicated,
    /// A follower cuts its log at its high watermark instead of where the epochs part.
    CutAtHighWatermark,
    /// A word of the controller is obeyed whatever its leader epoch.
    LeaderEpochIgnored,
    /// What a leader sent is applied whatever role the replica has by now.
    FetchedBeforeRoleChangeApplied,
    /// A leader serves and believes a follower that asks in an older epoch, which takes what it gets.
    OldEpochFetchAccepted,
    /// A leader that returns believes what it heard of others in its former reign.
    FormerReignBelieved,
    /// A replica joins the in-sync ones before it has what the reign began with.
    JoinsBeforeReignStart,
    /// Who is about to join the in-sync ones does not hold the high watermark.
    PendingJoinDoesNotCount,
    /// Who is about to leave them does not hold it any more.
    PendingLeaveCounts,
    /// In-sync replicas are written whatever the version of the state.
    IsrWrittenWithoutVersion,
    /// A controller's write is not fenced by its epoch.
    OldControllerWrites,
    /// A broker obeys a controller that another has followed.
    OldControllerObeyed,
    /// A broker obeys a command to its former life.
    StaleBrokerEpochAccepted,
    /// A new controller takes a broker that went and came back for one that was there all the time.
    UnseenBounceTakenForOnline,
    /// In synced mode the high watermark counts what is not on the medium.
    UnsyncedCounted,
    /// Who is in sync and no replica any more is not waited for, and stays in sync with a new epoch.
    StrangersDoNotCount,
    /// What a leader said in vain it is not made to say again.
    SaidInVain,
    /// A broker whose logs may have lost writes registers at once.
    LostWritesNotWaitedFor,
    /// A replica that came back unseen hears nothing where it left the in-sync set meanwhile.
    DistrustedHearNothing,
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether a bug is there.
#[cfg(test)]
pub(crate) fn has(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Never in a broker.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn has(_: Bug) -> bool {
    false
}

/// Runs with a bug.
#[cfg(test)]
pub(crate) fn with<T>(bug: Bug, run: impl FnOnce() -> T) -> T {
    struct Sound;
    impl Drop for Sound {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
    PLANTED.set(Some(bug));
    let _sound = Sound;
    run()
}
