//! What is promised where acknowledgements are not synced and the power fails: nothing is lost while another in-sync replica lives
//! (`docs/durability.md`). Faults keep within that where they can; a run that gets beyond it ends there, because what comes after
//! shows nothing.

use std::cell::RefCell;
use std::collections::BTreeSet;

use tokio::sync::Notify;

use super::World;
use super::checker::state_in_tree;
use crate::coordination::{Coordination, znodes};

#[derive(Default)]
pub(super) struct Promise {
    /// Brokers that lost power, until they are registered again.
    doubted: RefCell<BTreeSet<i32>>,
    is_void: Notify,
}

impl Promise {
    pub(super) fn doubt(&self, id: i32) {
        self.doubted.borrow_mut().insert(id);
    }

    pub(super) fn registered(&self, id: i32) {
        self.doubted.borrow_mut().remove(&id);
    }

    /// Waits until more is lost than is promised to be kept.
    pub(super) async fn is_void(&self) {
        self.is_void.notified().await;
    }
}

/// Looks whether another lives for whoever lost power.
pub(super) fn look(world: &World) {
    if !holds(world, None, None) {
        world.promise.is_void.notify_one();
    }
}

/// Whether the broker may end now.
pub(super) fn may_end(world: &World, id: i32) -> bool {
    holds(world, Some(id), None)
}

/// Whether the broker may lose power now.
pub(super) fn may_lose_power(world: &World, id: i32) -> bool {
    world.shape.is_synced || holds(world, Some(id), Some(id))
}

/// Whether every partition that counts on one who lost power, or is about to, has another in sync that lives and does not end.
fn holds(world: &World, ends: Option<i32>, loses_power: Option<i32>) -> bool {
    let doubted = world.promise.doubted.borrow();
    let is_doubted = |id: &i32| doubted.contains(id) || loses_power == Some(*id);
    if doubted.is_empty() && loses_power.is_none() {
        return true;
    }
    let states = world
        .all_partitions()
        .into_iter()
        .filter_map(|at| state_in_tree(world, &at));
    states.into_iter().all(|state| {
        let is_named = state.leader.iter().chain(state.isr.iter()).any(is_doubted);
        let lives = |id: &&i32| ends != Some(**id) && !is_doubted(id) && is_registered(world, **id);
        !is_named || state.isr.iter().any(|id| lives(&id))
    })
}

fn is_registered(world: &World, id: i32) -> bool {
    let owner = world
        .ensemble
        .look(&znodes::broker_id(id))
        .and_then(|node| node.stat.ephemeral_owner);
    world
        .running(id)
        .is_some_and(|running| owner == Some(running.session.session_id()))
}
