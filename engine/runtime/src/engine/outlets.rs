//! The outlets of a graph's sinks, with how much of each is committed.

use std::collections::BTreeMap;

use cornjacket_core::Result;
use cornjacket_core::graph::{Graph, NodeKind, Outlet};

#[derive(Default)]
pub(super) struct Outlets {
    /// By sink.
    open: BTreeMap<String, (Box<dyn Outlet>, u64)>,
}

impl Outlets {
    /// Opens every outlet and cuts off what no epoch committed.
    pub(super) fn open(graph: &Graph, committed: &BTreeMap<String, u64>) -> Result<Self> {
        let mut open = BTreeMap::new();
        for node in &graph.nodes {
            let NodeKind::Sink(factory) = &node.kind else { continue };
            let length = committed.get(&node.name).copied();
            if let Some(outlet) = factory.outlet(length)? {
                open.insert(node.name.clone(), (outlet, length.unwrap_or(0)));
            }
        }
        Ok(Self { open })
    }

    /// The sinks that have one.
    pub(super) fn sinks(&self) -> impl Iterator<Item = &str> {
        self.open.keys().map(String::as_str)
    }

    pub(super) fn has(&self, sink: &str) -> bool {
        self.open.contains_key(sink)
    }

    /// Puts an epoch's lines behind what is committed, and says how long the outlet is with them; `None` if that is not
    /// news. May be called again for the same epoch.
    pub(super) fn write(&mut self, sink: &str, lines: &[String]) -> Result<Option<u64>> {
        let Some((outlet, length)) = self.open.get_mut(sink).filter(|_| !lines.is_empty()) else { return Ok(None) };
        outlet.write(*length, lines).map(Some)
    }

    /// Learns that an epoch with these lengths is committed.
    pub(super) fn committed(&mut self, lengths: &BTreeMap<String, u64>) {
        for (sink, committed) in lengths {
            if let Some((_, length)) = self.open.get_mut(sink) {
                *length = *committed;
            }
        }
    }
}
