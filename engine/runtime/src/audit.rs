//! The audit: every event and every row is accounted for, from the door to the sinks.
//!
//! What is counted in the transactions (the ledger) is held against what there is: the log's blocks, the projections'
//! rows, the deliveries, the dead letters. Each check is an equation with a name; one that does not hold names the place
//! at which something got lost or came twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use cornjacket_core::Result;
use cornjacket_core::graph::{Graph, Node, NodeKind};
use cornjacket_core::store::{Ledger, PipelineState, Storage};
use serde::{Deserialize, Serialize};

/// An equation of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Which equation.
    pub check: String,
    /// The event type, stream or sink that it is about.
    pub node: String,
    /// What must be equal, in words.
    pub equation: String,
    /// The left side.
    pub left: i64,
    /// The right side.
    pub right: i64,
    /// Whether they are.
    pub holds: bool,
}

impl Check {
    fn equal(check: &str, node: &str, equation: &str, left: i64, right: i64) -> Self {
        Self { check: check.into(), node: node.into(), equation: equation.into(), left, right, holds: left == right }
    }

    fn at_most(check: &str, node: &str, equation: &str, left: i64, right: i64) -> Self {
        Self { holds: left <= right, ..Self::equal(check, node, equation, left, right) }
    }

    /// Its key in what edits carry over. Only what depends on how nodes are joined does.
    fn carry(&self) -> Option<String> {
        matches!(&*self.check, "read" | "edge" | "operator").then(|| format!("{} {}", self.check, self.node))
    }
}

/// Holds the ledger against what there is.
///
/// # Errors
/// When the storage cannot be read.
pub fn audit(graph: &Graph, storage: &Storage) -> Result<Vec<Check>> {
    let state = storage.store.pipeline_state()?;
    let mut checks = checks(graph, storage, &state)?;
    for check in &mut checks {
        if let Some(carried) = check.carry().and_then(|key| state.carried.get(&key)) {
            check.left -= carried;
            check.holds = check.left == check.right;
        }
    }
    Ok(checks)
}

/// What the equations of nodes that an edit changed start from, beside what they started from before. The counters are
/// those of the last run.
///
/// # Errors
/// When the storage cannot be read.
pub(crate) fn carried(graph: &Graph, storage: &Storage, state: &PipelineState) -> Result<BTreeMap<String, i64>> {
    let fingerprints: BTreeMap<&str, &str> = graph.nodes.iter().map(|n| (&*n.name, &*n.fingerprint)).collect();
    let is_same = |name: &str| state.nodes.get(name).is_some_and(|old| fingerprints.get(name) == Some(&old.as_str()));
    let mut carried = BTreeMap::new();
    for check in checks(graph, storage, state)? {
        let Some(key) = check.carry() else { continue };
        let start =
            if is_same(&check.node) { state.carried.get(&key).copied() } else { Some(check.left - check.right) };
        carried.extend(start.filter(|start| *start != 0).map(|start| (key, start)));
    }
    Ok(carried)
}

fn checks(graph: &Graph, storage: &Storage, state: &PipelineState) -> Result<Vec<Check>> {
    let specs: Vec<_> = graph.nodes.iter().filter_map(projection).collect();
    let ledger = storage.store.ledger(&specs)?;
    // The log goes on meanwhile: it is asked for what it holds up to the ledger's position.
    let counts = storage.log.counts(&ledger.positions)?;
    let forgotten = &state.forgotten;
    let mut checks: Vec<Check> = counts
        .iter()
        .map(|(name, count)| {
            let equation = "stored by the door = in the log + deleted by retention";
            Check::equal("log", name, equation, whole(count.accepted), whole(count.present + count.forgotten))
        })
        .collect();
    let books = Books { graph, ledger: &ledger };
    for node in &graph.nodes {
        match &node.kind {
            NodeKind::Source { event_type, .. } => {
                let count = counts.get(&event_type.name).copied().unwrap_or_default();
                let before = forgotten.get(&event_type.name).copied().unwrap_or(0);
                let there = whole(count.reached + count.forgotten) - whole(before);
                let equation =
                    "rows read = in the log up to the last epoch + deleted by retention since they were read";
                checks.push(Check::equal("read", &node.name, equation, books.rows(&node.name, "rows_in"), there));
            }
            NodeKind::Operator(factory) => {
                checks.push(books.edge(node));
                checks.push(books.operator(node, factory.is_stateful()));
                checks.push(books.letters(node));
            }
            NodeKind::Sink(factory) => {
                checks.push(books.edge(node));
                checks.push(books.sink(node));
                if factory.projection().is_some() {
                    checks.push(books.table(node));
                }
                if factory.action().is_some() {
                    checks.push(books.deliveries(node));
                }
            }
        }
    }
    Ok(checks)
}

fn projection(node: &Node) -> Option<Arc<cornjacket_core::projection::ProjectionSpec>> {
    match &node.kind {
        NodeKind::Sink(factory) => factory.projection(),
        _ => None,
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

struct Books<'a> {
    graph: &'a Graph,
    ledger: &'a Ledger,
}

impl Books<'_> {
    fn rows(&self, node: &str, what: &str) -> i64 {
        self.ledger.counters.get(&(node.to_string(), what.to_string())).copied().unwrap_or(0)
    }

    fn sum(&self, node: &str, what: &[&str]) -> i64 {
        what.iter().map(|what| self.rows(node, what)).sum()
    }

    /// What the nodes before it gave, it took. A sink that was kept through a rebuild took its rows before.
    fn edge(&self, node: &Node) -> Check {
        let given = node.inputs.iter().map(|input| {
            let before = &self.graph.nodes[input.node];
            match before.kind {
                NodeKind::Source { .. } => self.rows(&before.name, "rows_in") - self.rows(&before.name, "set_aside"),
                _ => self.rows(&before.name, "rows_out"),
            }
        });
        let taken = self.rows(&node.name, "rows_in") - self.rows(&node.name, "base") + self.rows(&node.name, "kept");
        Check::equal("edge", &node.name, "rows given by its inputs = rows taken", given.sum(), taken)
    }

    fn operator(&self, node: &Node, is_stateful: bool) -> Check {
        let (passed, equation) = if is_stateful {
            ("absorbed", "rows in = taken into state + filtered + late + failed")
        } else {
            ("rows_out", "rows in = passed + filtered + late + failed")
        };
        let out = self.sum(&node.name, &[passed, "filtered", "late", "failed"]);
        Check::equal("operator", &node.name, equation, self.rows(&node.name, "rows_in"), out)
    }

    /// What could not be used has a dead letter. There may be more of them: an earlier version of the file made some.
    fn letters(&self, node: &Node) -> Check {
        let there: i64 = self.letters_of(&node.name);
        let equation = "late + failed + lost ≤ dead letters there are + deleted by retention";
        let made = self.sum(&node.name, &["late", "failed", "lost"]);
        Check::at_most("dead letters", &node.name, equation, made, there + self.rows(&node.name, "letters_forgotten"))
    }

    fn letters_of(&self, node: &str) -> i64 {
        let own = self.ledger.letters.iter().filter(|((source, _), _)| source == node);
        own.map(|(_, count)| whole(*count)).sum()
    }

    fn sink(&self, node: &Node) -> Check {
        let equation = "rows in = written + superseded + suppressed + dead + pending";
        let out = self.sum(&node.name, &["written", "superseded", "suppressed", "dead", "pending"]);
        Check::equal("sink", &node.name, equation, self.rows(&node.name, "rows_in"), out)
    }

    fn table(&self, node: &Node) -> Check {
        let there = self.ledger.rows.get(&node.name).copied().unwrap_or(0);
        let counted = self.rows(&node.name, "inserted") - self.sum(&node.name, &["deleted", "forgotten"]);
        Check::equal(
            "projection",
            &node.name,
            "inserted − deleted − past retention = rows there are",
            counted,
            whole(there),
        )
    }

    fn deliveries(&self, node: &Node) -> Check {
        let there = self.ledger.pending.get(&node.name).copied().unwrap_or(0);
        let counted = self.rows(&node.name, "pending");
        Check::equal("deliveries", &node.name, "pending = deliveries that wait", counted, whole(there))
    }
}
