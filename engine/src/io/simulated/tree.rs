//! The directories of the simulated disk: names that are live, names that are durable, and the changes
//! between them.
//!
//! A change (creation, removal, rename) is whole or absent after a power cut; a rename is one change even
//! across directories. Changes of the same name or of the same file keep their order; others may overtake
//! each other, as they may on a file system that is not journalled.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Component, Path};

use super::content::Content;
use super::random::Random;
use crate::units::TimestampMs;

pub(super) type NodeId = u64;

/// The root directory: always there, always durable.
pub(super) const ROOT: NodeId = 0;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: NodeKind,
    pub(super) modified: TimestampMs,
    pub(super) durable_modified: TimestampMs,
    /// Whether a live name leads to it.
    pub(super) linked: bool,
    pub(super) handles: usize,
}

#[derive(Clone, Debug)]
pub(super) enum NodeKind {
    Directory(Directory),
    File(Content),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    pub(super) live: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
}

/// A change of names that no sync has covered yet.
#[derive(Clone, Debug)]
struct Change {
    slots: Vec<Slot>,
    subject: NodeId,
}

/// What one name of one directory means after a change.
#[derive(Clone, Debug)]
struct Slot {
    directory: NodeId,
    name: String,
    child: Option<NodeId>,
}

#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    next_id: NodeId,
    /// In the order in which they were made.
    changes: Vec<Change>,
    /// Nodes after the last sweep.
    swept: usize,
}

impl Tree {
    pub(super) fn new() -> Tree {
        let root = Node {
            kind: NodeKind::Directory(Directory::default()),
            modified: TimestampMs(0),
            durable_modified: TimestampMs(0),
            linked: true,
            handles: 0,
        };
        Tree {
            nodes: BTreeMap::from([(ROOT, root)]),
            next_id: ROOT + 1,
            changes: Vec::new(),
            swept: 1,
        }
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        self.nodes
            .get(&id)
            .expect("a node lives while a name or a handle leads to it")
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes
            .get_mut(&id)
            .expect("a node lives while a name or a handle leads to it")
    }

    pub(super) fn directory(&self, id: NodeId) -> Option<&Directory> {
        match &self.node(id).kind {
            NodeKind::Directory(directory) => Some(directory),
            NodeKind::File(_) => None,
        }
    }

    pub(super) fn content(&self, id: NodeId) -> Option<&Content> {
        match &self.node(id).kind {
            NodeKind::File(content) => Some(content),
            NodeKind::Directory(_) => None,
        }
    }

    pub(super) fn content_mut(&mut self, id: NodeId) -> Option<&mut Content> {
        match &mut self.node_mut(id).kind {
            NodeKind::File(content) => Some(content),
            NodeKind::Directory(_) => None,
        }
    }

    pub(super) fn contents_mut(&mut self) -> impl Iterator<Item = &mut Content> {
        self.nodes.values_mut().filter_map(|node| match &mut node.kind {
            NodeKind::File(content) => Some(content),
            NodeKind::Directory(_) => None,
        })
    }

    /// Sum of the sizes of the files that a name or a handle leads to.
    pub(super) fn used_bytes(&self) -> u64 {
        let files = self.nodes.values().filter(|node| node.linked || node.handles > 0);
        files
            .map(|node| match &node.kind {
                NodeKind::File(content) => content.size() as u64,
                NodeKind::Directory(_) => 0,
            })
            .sum()
    }

    pub(super) fn find(&self, path: &Path) -> Option<NodeId> {
        let mut at = ROOT;
        for name in names(path) {
            at = *self.directory(at)?.live.get(&name)?;
        }
        Some(at)
    }

    /// The directory that holds `path`, and the last name of `path`. Fails as a system call on such a path
    /// would.
    pub(super) fn find_parent(&self, path: &Path) -> Result<(NodeId, String), ErrorKind> {
        let mut names = names(path);
        let last = names.pop().ok_or(ErrorKind::ResourceBusy)?;
        let mut at = ROOT;
        for name in names {
            let directory = self.directory(at).ok_or(ErrorKind::NotADirectory)?;
            at = *directory.live.get(&name).ok_or(ErrorKind::NotFound)?;
        }
        self.directory(at).ok_or(ErrorKind::NotADirectory)?;
        Ok((at, last))
    }

    /// Why nothing was found at `path`.
    pub(super) fn why_missing(&self, path: &Path) -> ErrorKind {
        self.find_parent(path).err().unwrap_or(ErrorKind::NotFound)
    }

    pub(super) fn create(
        &mut self,
        directory: NodeId,
        name: &str,
        kind: NodeKind,
        now: TimestampMs,
    ) -> NodeId {
        let id = self.next_id;
        self.next_id += 1;
        let node = Node {
            kind,
            modified: now,
            durable_modified: now,
            linked: true,
            handles: 0,
        };
        self.nodes.insert(id, node);
        self.change(
            id,
            vec![Slot {
                directory,
                name: name.to_owned(),
                child: Some(id),
            }],
        );
        id
    }

    pub(super) fn remove(&mut self, directory: NodeId, name: &str) {
        let Some(id) = self
            .directory(directory)
            .and_then(|found| found.live.get(name).copied())
        else {
            return;
        };
        self.change(
            id,
            vec![Slot {
                directory,
                name: name.to_owned(),
                child: None,
            }],
        );
        self.node_mut(id).linked = false;
    }

    pub(super) fn rename(&mut self, id: NodeId, from: (NodeId, String), to: (NodeId, String)) {
        if let Some(replaced) = self
            .directory(to.0)
            .and_then(|found| found.live.get(&to.1).copied())
        {
            self.node_mut(replaced).linked = false;
        }
        self.change(
            id,
            vec![
                Slot {
                    directory: from.0,
                    name: from.1,
                    child: None,
                },
                Slot {
                    directory: to.0,
                    name: to.1,
                    child: Some(id),
                },
            ],
        );
        self.node_mut(id).linked = true;
    }

    fn change(&mut self, subject: NodeId, slots: Vec<Slot>) {
        for slot in &slots {
            if let NodeKind::Directory(directory) = &mut self.node_mut(slot.directory).kind {
                set(&mut directory.live, slot);
            }
        }
        self.changes.push(Change { slots, subject });
    }

    /// Makes the names of a directory durable.
    pub(super) fn sync_directory(&mut self, id: NodeId) {
        let wanted = self
            .changes
            .iter()
            .map(|change| change.slots.iter().any(|slot| slot.directory == id))
            .collect::<Vec<_>>();
        let chosen = self.with_predecessors(wanted);
        self.apply(&chosen);
        self.sweep();
    }

    /// Some of the changes that are not durable yet become so: a state in which the power may be cut.
    pub(super) fn settle_names(&mut self, random: &mut Random) {
        let count = self.changes.len();
        let wanted = match random.below(4) {
            0 => vec![false; count],
            1 => vec![true; count],
            2 => {
                let until = random.below(count as u64 + 1);
                (0..count as u64).map(|index| index < until).collect()
            }
            _ => (0..count).map(|_| random.coin()).collect(),
        };
        let chosen = self.with_predecessors(wanted);
        self.apply(&chosen);
        self.changes.clear();
    }

    /// Adds to the chosen changes the earlier ones of the same names and the same files.
    fn with_predecessors(&self, mut chosen: Vec<bool>) -> Vec<bool> {
        let mut names = BTreeSet::new();
        let mut subjects = BTreeSet::new();
        for (index, change) in self.changes.iter().enumerate().rev() {
            let touches = |slot: &Slot| names.contains(&(slot.directory, slot.name.as_str()));
            if chosen[index] || subjects.contains(&change.subject) || change.slots.iter().any(touches) {
                chosen[index] = true;
                subjects.insert(change.subject);
                names.extend(
                    change
                        .slots
                        .iter()
                        .map(|slot| (slot.directory, slot.name.as_str())),
                );
            }
        }
        chosen
    }

    fn apply(&mut self, chosen: &[bool]) {
        let changes = std::mem::take(&mut self.changes);
        for (change, chosen) in changes.into_iter().zip(chosen) {
            if !chosen {
                self.changes.push(change);
                continue;
            }
            for slot in &change.slots {
                if let Some(node) = self.nodes.get_mut(&slot.directory)
                    && let NodeKind::Directory(directory) = &mut node.kind
                {
                    set(&mut directory.durable, slot);
                }
            }
        }
    }

    /// The tree that the medium holds, files included, when nothing else is written back.
    pub(super) fn after_power_cut(&self, random: &mut Random) -> Tree {
        let mut image = self.clone();
        image.settle_names(random);
        let reachable = image.reachable([ROOT], |directory| &directory.durable);
        image.nodes.retain(|id, _| reachable.contains(id));
        for node in image.nodes.values_mut() {
            node.linked = true;
            node.handles = 0;
            match &mut node.kind {
                NodeKind::Directory(directory) => directory.live = directory.durable.clone(),
                NodeKind::File(content) => *content = content.after_power_cut(random),
            }
            if random.coin() {
                node.durable_modified = node.modified;
            }
            node.modified = node.durable_modified;
        }
        image
    }

    /// The tree as the next process finds it when this one was killed.
    pub(super) fn after_process_kill(&self) -> Tree {
        let mut image = self.clone();
        for node in image.nodes.values_mut() {
            node.handles = 0;
        }
        image
    }

    /// What the names lead to from these nodes on, themselves included.
    fn reachable(
        &self,
        from: impl IntoIterator<Item = NodeId>,
        names: impl Fn(&Directory) -> &BTreeMap<String, NodeId>,
    ) -> BTreeSet<NodeId> {
        let mut open: Vec<NodeId> = from.into_iter().collect();
        let mut found: BTreeSet<NodeId> = open.iter().copied().collect();
        while let Some(id) = open.pop() {
            if let Some(NodeKind::Directory(directory)) = self.nodes.get(&id).map(|node| &node.kind) {
                open.extend(
                    names(directory)
                        .values()
                        .copied()
                        .filter(|child| found.insert(*child)),
                );
            }
        }
        found
    }

    /// Forgets files to which nothing leads any more, now and then.
    fn sweep(&mut self) {
        if self.nodes.len() < 2 * self.swept + 64 {
            return;
        }
        let mut roots = vec![ROOT];
        for change in &self.changes {
            roots.push(change.subject);
            roots.extend(change.slots.iter().map(|slot| slot.directory));
        }
        let mut needed = self.reachable(roots.iter().copied(), |directory| &directory.live);
        needed.extend(self.reachable(roots, |directory| &directory.durable));
        self.nodes
            .retain(|id, node| node.handles > 0 || needed.contains(id));
        self.swept = self.nodes.len();
    }

    pub(super) fn is_all_durable(&self) -> bool {
        self.changes.is_empty()
            && self
                .nodes
                .values()
                .filter(|node| node.linked)
                .all(|node| match &node.kind {
                    NodeKind::File(content) => content.is_clean(),
                    NodeKind::Directory(_) => true,
                })
    }

    /// Every path with its node, parents before children.
    pub(super) fn walk(&self) -> Vec<(String, NodeId)> {
        let mut found = Vec::new();
        let mut open = vec![(String::new(), ROOT)];
        while let Some((path, id)) = open.pop() {
            if let Some(directory) = self.directory(id) {
                open.extend(
                    directory
                        .live
                        .iter()
                        .map(|(name, child)| (format!("{path}/{name}"), *child)),
                );
            }
            found.push((path, id));
        }
        found.sort();
        found
    }
}

fn set(names: &mut BTreeMap<String, NodeId>, slot: &Slot) {
    match slot.child {
        Some(child) => names.insert(slot.name.clone(), child),
        None => names.remove(&slot.name),
    };
}

/// The names of a path from the root; a relative path begins there too.
fn names(path: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => {
                names.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    names
}
