//! Streams and sinks to the nodes of the graph.
//!
//! Only what a sink needs becomes nodes; each event type and each stream is computed once, however many read it.
//!
//! **Where rows are.** A source has one task per partition of its topic, and an event's partition follows from its
//! aggregate id: so rows of one aggregate are in one task. [`Placement`] tracks which columns still show that. Rows only
//! move between tasks where a window needs equal keys together and the placement does not give that already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use cornjacket_core::aggregate::{Relation, TumbleSpec};
use cornjacket_core::catalogue::{Catalogue, EventType};
use cornjacket_core::component::Registry;
use cornjacket_core::graph::{Exchange, Graph, Input, Node, NodeId, NodeKind, SinkFactory};

use crate::fingerprint::Fingerprint;
use crate::streams::Stream;

/// Position of `aggregate_id` in the table schema of every event type.
const AGGREGATE_ID: usize = 2;

/// By what rows are spread over tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Placement {
    /// By the log's partition, which follows from the aggregate id in this column.
    Aggregate(usize),
    /// By the hash of these columns, in this order.
    Hash(Vec<usize>),
    /// By nothing that still shows in the columns.
    Unknown,
}

impl Placement {
    /// The placement after columns moved; unknown if one of its own is gone.
    fn moved(&self, position: impl Fn(usize) -> Option<usize>) -> Self {
        match self {
            Self::Aggregate(column) => position(*column).map_or(Self::Unknown, Self::Aggregate),
            Self::Hash(columns) => {
                columns.iter().map(|c| position(*c)).collect::<Option<_>>().map_or(Self::Unknown, Self::Hash)
            }
            Self::Unknown => Self::Unknown,
        }
    }

    /// Whether rows that are equal in the first `keys` columns are in one task.
    fn keeps_together(&self, keys: usize) -> bool {
        match self {
            Self::Aggregate(column) => *column < keys,
            Self::Hash(columns) => columns.iter().all(|column| *column < keys),
            Self::Unknown => false,
        }
    }
}

/// A node's output, as the nodes after it need to know it.
#[derive(Clone, Debug)]
struct Flow {
    node: NodeId,
    placement: Placement,
    /// The most partitions of any topic upstream: how many tasks rows are worth spreading over.
    partitions: u32,
}

/// A sink that is checked and configured.
pub(crate) struct ReadySink {
    pub(crate) name: String,
    pub(crate) from: String,
    pub(crate) factory: Arc<dyn SinkFactory>,
}

/// A stream for which no operator is registered.
pub(crate) struct NoOperator {
    pub(crate) stream: String,
}

/// Builds the graph. Every `from` names a stream or an event type of the catalogue.
///
/// # Errors
/// When a stream holds a relation that no operator is registered for.
pub(crate) fn lower(
    pipeline: &str,
    catalogue: &Arc<Catalogue>,
    streams: &[Stream],
    sinks: Vec<ReadySink>,
    registry: &Registry,
) -> Result<Graph, NoOperator> {
    let mut lowering = Lowering { catalogue, registry, nodes: Vec::new(), tables: BTreeMap::new() };
    let needed = needed(streams, &sinks);
    for stream in streams.iter().filter(|stream| needed.contains(stream.name.as_str())) {
        lowering.stream(stream)?;
    }
    for sink in sinks {
        lowering.sink(sink)?;
    }
    prune(&mut lowering.nodes);
    Ok(Graph { pipeline: pipeline.into(), catalogue: Arc::clone(catalogue), nodes: lowering.nodes })
}

/// What the sinks read, directly or through other streams.
fn needed<'a>(streams: &'a [Stream], sinks: &'a [ReadySink]) -> BTreeSet<&'a str> {
    let mut needed: BTreeSet<&str> = sinks.iter().map(|sink| sink.from.as_str()).collect();
    for stream in streams.iter().rev() {
        if needed.contains(stream.name.as_str()) {
            needed.extend(stream.reads.iter().map(String::as_str));
        }
    }
    needed
}

/// Leaves to each source the columns that something reads.
fn prune(nodes: &mut [Node]) {
    let mut read: BTreeMap<NodeId, BTreeSet<usize>> = BTreeMap::new();
    for node in nodes.iter() {
        let columns = match &node.kind {
            NodeKind::Source { .. } => continue,
            NodeKind::Operator(factory) => factory.reads(),
            NodeKind::Sink(factory) => factory.reads(),
        };
        for input in &node.inputs {
            let all = 0..nodes[input.node].schema.fields().len();
            // What rows are spread by is looked at on the way.
            let spread_by = match &input.exchange {
                Exchange::Hash(columns) => columns.as_slice(),
                Exchange::Forward | Exchange::Gather => &[],
            };
            let columns = columns.clone().unwrap_or_else(|| all.collect());
            read.entry(input.node).or_default().extend(columns.iter().chain(spread_by));
        }
    }
    for (id, node) in nodes.iter_mut().enumerate() {
        if let NodeKind::Source { columns, .. } = &mut node.kind {
            *columns = read.remove(&id).unwrap_or_default().into_iter().collect();
        }
    }
}

struct Lowering<'a> {
    catalogue: &'a Arc<Catalogue>,
    registry: &'a Registry,
    nodes: Vec<Node>,
    /// Event types and streams that are nodes already.
    tables: BTreeMap<String, Flow>,
}

impl Lowering<'_> {
    fn stream(&mut self, stream: &Stream) -> Result<(), NoOperator> {
        let mut names = Names { stream: &stream.name, inner: 0 };
        let first = self.nodes.len();
        let flow = self.relation(&stream.relation, &mut names)?;
        // The last node carries the stream's own name, unless the stream is another table as it is.
        if flow.node >= first && self.nodes[flow.node].name == names.last() {
            self.nodes[flow.node].name.clone_from(&stream.name);
        }
        self.tables.insert(stream.name.clone(), flow);
        Ok(())
    }

    fn sink(&mut self, sink: ReadySink) -> Result<(), NoOperator> {
        let flow = self.table(&sink.from, &Names { stream: &sink.name, inner: 0 })?;
        let (schema, tasks) = (Arc::clone(&self.nodes[flow.node].schema), self.nodes[flow.node].tasks);
        let inputs = vec![Input { node: flow.node, exchange: Exchange::Forward }];
        let (kind, what) = (sink.factory.kind(), sink.factory.describe());
        let fingerprint = self.fingerprint(kind, &what, &schema, tasks, &inputs);
        let kind = NodeKind::Sink(sink.factory);
        self.nodes.push(Node { name: sink.name, kind, inputs, schema, tasks, fingerprint });
        Ok(())
    }

    fn relation(&mut self, relation: &Relation, names: &mut Names<'_>) -> Result<Flow, NoOperator> {
        match relation {
            Relation::Table { name, .. } => self.table(name, names),
            Relation::Transform { input, transform } => {
                let input = self.relation(input, names)?;
                let placement = input.placement.moved(|column| transform.position_of(column));
                let tasks = self.nodes[input.node].tasks;
                let inputs = vec![Input { node: input.node, exchange: Exchange::Forward }];
                let node = self.operator(relation, inputs, tasks, names)?;
                Ok(Flow { node, placement, partitions: input.partitions })
            }
            Relation::Union { inputs } => self.union(relation, inputs, names),
            Relation::Tumble { input, window } => {
                let input = self.relation(input, names)?;
                self.tumble(relation, &input, window, names)
            }
        }
    }

    /// The node of an event type, made at its first use, or of a stream, which is there already.
    fn table(&mut self, name: &str, names: &Names<'_>) -> Result<Flow, NoOperator> {
        if let Some(flow) = self.tables.get(name) {
            return Ok(flow.clone());
        }
        let Some(event_type) = self.catalogue.types.get(name) else {
            return Err(NoOperator { stream: names.stream.into() });
        };
        let partitions = self.catalogue.partitions(event_type);
        let flow = Flow { node: self.nodes.len(), placement: Placement::Aggregate(AGGREGATE_ID), partitions };
        self.nodes.push(source(event_type, partitions));
        self.tables.insert(name.to_string(), flow.clone());
        Ok(flow)
    }

    fn tumble(
        &mut self,
        relation: &Relation,
        input: &Flow,
        window: &TumbleSpec,
        names: &mut Names<'_>,
    ) -> Result<Flow, NoOperator> {
        let keys = window.aggregation.keys();
        let input_tasks = self.nodes[input.node].tasks;
        let (exchange, tasks, placement) = if input_tasks == 1 || input.placement.keeps_together(keys) {
            (Exchange::Forward, input_tasks, input.placement.clone())
        } else if keys == 0 {
            (Exchange::Gather, 1, Placement::Unknown)
        } else {
            let columns: Vec<usize> = (0..keys).collect();
            (Exchange::Hash(columns.clone()), input.partitions, Placement::Hash(columns))
        };
        let node = self.operator(relation, vec![Input { node: input.node, exchange }], tasks, names)?;
        // The window's column goes in among the keys and aggregates and moves those behind it.
        let shifted = |column: usize| (column < keys).then_some(column + usize::from(column >= window.window_at));
        Ok(Flow { node, placement: placement.moved(shifted), partitions: input.partitions })
    }

    fn union(&mut self, relation: &Relation, parts: &[Relation], names: &mut Names<'_>) -> Result<Flow, NoOperator> {
        let flows = parts.iter().map(|part| self.relation(part, names)).collect::<Result<Vec<_>, _>>()?;
        let tasks_of: Vec<u32> = flows.iter().map(|flow| self.nodes[flow.node].tasks).collect();
        let tasks = tasks_of.iter().copied().max().unwrap_or(1);
        let partitions = flows.iter().map(|flow| flow.partitions).max().unwrap_or(1);
        if tasks_of.iter().all(|count| *count == tasks) {
            let placement = common_placement(&flows);
            let inputs = flows.iter().map(|flow| Input { node: flow.node, exchange: Exchange::Forward }).collect();
            let node = self.operator(relation, inputs, tasks, names)?;
            return Ok(Flow { node, placement, partitions });
        }
        let (exchange, tasks, placement) = spread(relation.schema(), tasks);
        let inputs = flows.iter().map(|flow| Input { node: flow.node, exchange: exchange.clone() }).collect();
        let node = self.operator(relation, inputs, tasks, names)?;
        Ok(Flow { node, placement, partitions })
    }

    fn operator(
        &mut self,
        relation: &Relation,
        inputs: Vec<Input>,
        tasks: u32,
        names: &mut Names<'_>,
    ) -> Result<NodeId, NoOperator> {
        let factory = self.registry.operators.iter().find_map(|operator| (operator.build)(relation));
        let factory = factory.ok_or_else(|| NoOperator { stream: names.stream.into() })?;
        let schema = factory.schema();
        let fingerprint = self.fingerprint(factory.kind(), &factory.describe(), &schema, tasks, &inputs);
        let kind = NodeKind::Operator(factory);
        self.nodes.push(Node { name: names.next(), kind, inputs, schema, tasks, fingerprint });
        Ok(self.nodes.len() - 1)
    }

    fn fingerprint(&self, kind: &str, what: &str, schema: &Schema, tasks: u32, inputs: &[Input]) -> String {
        let start = Fingerprint::of(kind).with(what).with(&tasks.to_string()).with_schema(schema);
        let with_input = |all: Fingerprint, input: &Input| {
            all.with(&exchange_text(&input.exchange)).with(&self.nodes[input.node].fingerprint)
        };
        inputs.iter().fold(start, with_input).finish()
    }
}

/// Names of the nodes of one stream: `name/1`, `name/2`, …
struct Names<'a> {
    stream: &'a str,
    inner: usize,
}

impl Names<'_> {
    fn next(&mut self) -> String {
        self.inner += 1;
        self.last()
    }

    fn last(&self) -> String {
        format!("{}/{}", self.stream, self.inner)
    }
}

fn exchange_text(exchange: &Exchange) -> String {
    match exchange {
        Exchange::Forward => "forward".into(),
        Exchange::Hash(columns) => format!("hash {columns:?}"),
        Exchange::Gather => "gather".into(),
    }
}

fn source(event_type: &Arc<EventType>, partitions: u32) -> Node {
    let schema = Arc::clone(event_type.table_schema());
    let watermark = &event_type.watermark;
    let time = format!("{} {} {}", watermark.delay, watermark.idle, watermark.max_ahead);
    let fingerprint = Fingerprint::of("source")
        .with(&event_type.name)
        .with(&event_type.topic)
        .with(&partitions.to_string())
        .with(&time)
        .with_schema(event_type.stored_schema())
        .finish();
    let columns = (0..schema.fields().len()).collect();
    let kind = NodeKind::Source { event_type: Arc::clone(event_type), columns };
    Node { name: event_type.name.clone(), kind, inputs: Vec::new(), schema, tasks: partitions, fingerprint }
}

/// The placement that all have, if they have the same. Topics with as many partitions place an aggregate alike.
fn common_placement(flows: &[Flow]) -> Placement {
    match flows {
        [first, rest @ ..] if rest.iter().all(|flow| flow.placement == first.placement) => first.placement.clone(),
        _ => Placement::Unknown,
    }
}

/// Spreads rows evenly by their plain columns; nested ones are no use for that.
fn spread(schema: &SchemaRef, tasks: u32) -> (Exchange, u32, Placement) {
    let plain = |(_, field): &(usize, &Arc<arrow::datatypes::Field>)| !field.data_type().is_nested();
    let columns: Vec<usize> = schema.fields().iter().enumerate().filter(plain).map(|(at, _)| at).collect();
    if columns.is_empty() {
        return (Exchange::Gather, 1, Placement::Unknown);
    }
    (Exchange::Hash(columns.clone()), tasks, Placement::Hash(columns))
}
