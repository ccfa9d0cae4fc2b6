//! Sinks that begin now: what was stored before the pipeline knew of them is not told to them.
//!
//! When the engine meets such a sink for the first time it remembers how far the log had come. Until the engine has
//! passed that point, whatever it still has to work off, the sink's output is left out; epochs are cut there.

use std::collections::{BTreeMap, BTreeSet};

use cornjacket_core::graph::{Graph, Node, NodeKind};
use cornjacket_core::log::Positions;

#[derive(Default)]
pub(super) struct Begins(BTreeMap<String, Positions>);

impl Begins {
    /// Where each sink of the graph that begins now begins: those that are known where they did, new ones at `end`.
    pub(super) fn of(graph: &Graph, known: &BTreeMap<String, Positions>, end: &Positions) -> Self {
        let sinks = graph.nodes.iter().filter(|node| begins_now(node));
        let begin = |node: &Node| known.get(&node.name).unwrap_or(end).clone();
        Self(sinks.map(|node| (node.name.clone(), begin(node))).collect())
    }

    pub(super) fn positions(&self) -> &BTreeMap<String, Positions> {
        &self.0
    }

    /// The sinks that do not take the rows after these positions yet.
    pub(super) fn waiting(&self, at: &Positions) -> BTreeSet<String> {
        self.0.iter().filter(|(_, begin)| !at.covers(begin)).map(|(sink, _)| sink.clone()).collect()
    }

    /// Where the next epoch must end at the latest.
    pub(super) fn next_cut(&self, at: &Positions) -> Option<&Positions> {
        self.0.values().find(|begin| !at.covers(begin))
    }
}

/// Whether a node is a sink that takes only what comes from now on.
pub(super) fn begins_now(node: &Node) -> bool {
    matches!(&node.kind, NodeKind::Sink(factory) if !factory.starts_at_beginning())
}
