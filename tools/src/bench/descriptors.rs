//! File descriptors: whether the system grants as many as a load takes is asked before anything begins.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::error::BenchError;
use super::scenario::{Scenario, Workload};

/// Those of the process itself, and of each thread's runtime.
const OWN: u64 = 32;
const OF_A_THREAD: u64 = 8;

/// Raises the soft limit to the hard one; what is allowed then, `None` without a limit.
pub(super) fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        // Then it is as it was.
        Err(_) => limit.current,
    }
}

/// What a scenario takes, if one broker leads all partitions; several take more.
fn needed(scenario: &Scenario) -> u64 {
    let readers = match scenario.workload {
        Workload::Produce => 0,
        Workload::Consume | Workload::E2e => scenario.fan_out,
        Workload::Mixed => scenario.fan_out + 1,
    };
    // A producer has a timer beside its connection.
    let clients = 2 * u64::from(scenario.producers) + u64::from(readers) * u64::from(scenario.consumers);
    clients + OF_A_THREAD * u64::from(scenario.threads) + OWN
}

/// Makes sure that there are enough.
///
/// # Errors
/// The hard limit is too low.
pub(super) fn reserve(scenario: &Scenario) -> Result<(), BenchError> {
    let needed = needed(scenario);
    match raise() {
        Some(limit) if limit < needed => Err(BenchError::Usage(format!(
            "{}: needs {needed} open files, of which the system allows {limit}; raise the limit (ulimit -n), or take \
             fewer producers and consumers",
            scenario.name
        ))),
        _ => Ok(()),
    }
}
