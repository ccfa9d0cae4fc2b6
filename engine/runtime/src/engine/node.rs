//! Nodes at work: their tasks, watermarks and counts, and how an epoch goes through them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cornjacket_core::batch::Batch;
use cornjacket_core::catalogue::stored;
use cornjacket_core::dead_letter::DeadLetter;
use cornjacket_core::graph::{Exchange, Graph, Input, Node, NodeId, NodeKind, Sink, SinkOutput};
use cornjacket_core::guard::guarded;
use cornjacket_core::log::Columns;
use cornjacket_core::operator::{Operator, Output};
use cornjacket_core::store::EpochRecord;
use cornjacket_core::time::Micros;
use cornjacket_core::{Error, Result};
use rayon::prelude::*;

use super::clocks::Watermarks;
use super::dead;
use super::exchange::exchange;

/// Below this many rows a node's tasks run one after the other: handing them out would cost more.
pub(super) const PARALLEL_ROWS: usize = 4_096;

/// Whether the work on so many rows is handed out: only to the threads of the pool that this runs in. An engine without a
/// pool does it all itself; rayon would take its own global threads for it.
pub(super) fn is_worth_sharing(rows: usize) -> bool {
    rows >= PARALLEL_ROWS && rayon::current_thread_index().is_some()
}

/// Why an epoch could not be computed. The state of the nodes may be half changed.
#[derive(Debug)]
pub(super) struct Failure {
    /// Where.
    pub(super) node: String,
    /// What was said there.
    pub(super) error: Error,
}

/// A node's work, whose errors and panics carry its name.
pub(super) fn at<T>(node: &str, work: impl FnOnce() -> Result<T>) -> Result<T, Failure> {
    guarded(work).map_err(|error| Failure { node: node.into(), error })
}

/// What an epoch makes on its way.
pub(super) struct Epoch {
    number: u64,
    one_by_one: bool,
    /// What each node gave, by task; sources' rows are put in before the run.
    outputs: Vec<Vec<Vec<Batch>>>,
    pub(super) sinks: Vec<(String, SinkOutput)>,
    pub(super) dead_letters: Vec<DeadLetter>,
    pub(super) counters: BTreeMap<(String, String), i64>,
}

impl Epoch {
    pub(super) fn new(record: &EpochRecord, nodes: usize) -> Self {
        let outputs = vec![Vec::new(); nodes];
        let (number, one_by_one) = (record.epoch, record.one_by_one);
        Self { number, one_by_one, outputs, sinks: Vec::new(), dead_letters: Vec::new(), counters: BTreeMap::new() }
    }

    /// Adds a source's rows.
    pub(super) fn put(&mut self, node: NodeId, partition: u32, batch: Batch) {
        let tasks = &mut self.outputs[node];
        let task = partition as usize;
        if tasks.len() <= task {
            tasks.resize(task + 1, Vec::new());
        }
        tasks[task].push(batch);
    }

    pub(super) fn count(&mut self, node: &str, what: &str, rows: usize) {
        if rows > 0 {
            *self.counters.entry((node.into(), what.into())).or_default() += i64::try_from(rows).unwrap_or(i64::MAX);
        }
    }
}

/// Rows since the start of the process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) rows_in: u64,
    pub(super) rows_out: u64,
    pub(super) late: u64,
}

enum Work {
    Source { event_type: String, columns: Vec<usize> },
    Operator { tasks: Vec<Box<dyn Operator>>, kind: &'static str },
    Sink { sink: Box<dyn Sink>, kind: &'static str },
}

/// A node at work.
pub(super) struct Running {
    name: Arc<str>,
    inputs: Vec<Input>,
    tasks: usize,
    work: Work,
    pub(super) watermark: Option<Micros>,
    pub(super) counts: Counts,
}

impl Running {
    fn new(node: &Node) -> Result<Self> {
        let tasks = node.tasks.max(1) as usize;
        let work = match &node.kind {
            NodeKind::Source { event_type, columns } => {
                Work::Source { event_type: event_type.name.clone(), columns: columns.clone() }
            }
            NodeKind::Operator(factory) => {
                let operators = (0..tasks).map(|_| factory.create()).collect::<Result<_>>()?;
                Work::Operator { tasks: operators, kind: factory.kind() }
            }
            NodeKind::Sink(factory) => Work::Sink { sink: factory.create()?, kind: factory.kind() },
        };
        let (name, inputs) = (Arc::from(node.name.as_str()), node.inputs.clone());
        Ok(Self { name, inputs, tasks, work, watermark: None, counts: Counts::default() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn kind(&self) -> &'static str {
        match &self.work {
            Work::Source { .. } => "source",
            Work::Operator { kind, .. } | Work::Sink { kind, .. } => kind,
        }
    }

    pub(super) fn operators(&mut self) -> &mut [Box<dyn Operator>] {
        match &mut self.work {
            Work::Operator { tasks, .. } => tasks,
            _ => &mut [],
        }
    }

    /// Whether it is an operator that reads nothing but this node, task by task.
    fn follows(&self, node: NodeId) -> bool {
        let is_forward = |input: &Input| input.node == node && matches!(input.exchange, Exchange::Forward);
        matches!(self.work, Work::Operator { .. }) && matches!(self.inputs.as_slice(), [only] if is_forward(only))
    }

    /// Whether it emits now that its watermark has risen.
    fn is_due(&self) -> bool {
        self.next_timer().zip(self.watermark).is_some_and(|(timer, now)| timer <= now)
    }

    pub(super) fn state_bytes(&self) -> usize {
        match &self.work {
            Work::Operator { tasks, .. } => tasks.iter().map(|task| task.size()).sum(),
            _ => 0,
        }
    }

    pub(super) fn next_timer(&self) -> Option<Micros> {
        match &self.work {
            Work::Operator { tasks, .. } => tasks.iter().filter_map(|task| task.next_timer()).min(),
            _ => None,
        }
    }
}

/// Every node of the graph.
pub(super) struct Nodes {
    pub(super) running: Vec<Running>,
}

impl Nodes {
    pub(super) fn new(graph: &Graph) -> Result<Self> {
        Ok(Self { running: graph.nodes.iter().map(Running::new).collect::<Result<_>>()? })
    }

    /// Makes every node anew, without state; the counts go on.
    pub(super) fn renew(&mut self, graph: &Graph) -> Result<()> {
        let counts: Vec<Counts> = self.running.iter().map(|node| node.counts).collect();
        *self = Self::new(graph)?;
        for (node, counts) in self.running.iter_mut().zip(counts) {
            node.counts = counts;
        }
        Ok(())
    }

    pub(super) fn source_of(&self, name: &str) -> Option<NodeId> {
        let is_it = |node: &Running| matches!(&node.work, Work::Source { event_type, .. } if event_type == name);
        self.running.iter().position(is_it)
    }

    pub(super) fn columns_of(&self, node: NodeId) -> &[usize] {
        match &self.running[node].work {
            Work::Source { columns, .. } => columns,
            _ => &[],
        }
    }

    pub(super) fn watermark(&self, node: NodeId) -> Option<Micros> {
        self.running[node].watermark
    }

    /// Every node's watermark, from the event types'.
    fn watermarks(&self, types: &Watermarks) -> Vec<Option<Micros>> {
        let mut watermarks: Vec<Option<Micros>> = Vec::with_capacity(self.running.len());
        for node in &self.running {
            let from_inputs = match &node.work {
                Work::Source { event_type, .. } => types.get(event_type).copied(),
                _ => node.inputs.iter().filter_map(|input| watermarks[input.node]).min(),
            };
            // A watermark never falls, even when an input begins to count that had no rows before.
            watermarks.push(from_inputs.max(node.watermark));
        }
        watermarks
    }

    /// The least watermark at which some operator would emit, and its node.
    pub(super) fn next_timer(&self) -> Option<(NodeId, Micros)> {
        let timers = self.running.iter().enumerate().filter_map(|(node, running)| Some((node, running.next_timer()?)));
        timers.min_by_key(|(_, timer)| *timer)
    }

    /// Every node that waits for time to go on, and until when.
    pub(super) fn waits(&self) -> Vec<(String, Micros)> {
        self.running.iter().filter_map(|node| Some((node.name.to_string(), node.next_timer()?))).collect()
    }

    /// The event types that a node's rows come from.
    pub(super) fn types_of(&self, node: NodeId) -> BTreeSet<&str> {
        match &self.running[node].work {
            Work::Source { event_type, .. } => BTreeSet::from([event_type.as_str()]),
            _ => self.running[node].inputs.iter().flat_map(|input| self.types_of(input.node)).collect(),
        }
    }

    /// Whether with these watermarks some operator would emit.
    pub(super) fn would_fire(&self, types: &Watermarks) -> bool {
        let fires = |(node, watermark): (&Running, Option<Micros>)| match (node.next_timer(), watermark) {
            (Some(timer), Some(watermark)) => timer <= watermark,
            _ => false,
        };
        self.running.iter().zip(self.watermarks(types)).any(fires)
    }

    /// Whether some operator emits now that its watermark has risen: far more rows than came in, perhaps.
    pub(super) fn is_due(&self) -> bool {
        self.running.iter().any(Running::is_due)
    }

    pub(super) fn advance(&mut self, types: &Watermarks) {
        let watermarks = self.watermarks(types);
        for (node, watermark) in self.running.iter_mut().zip(watermarks) {
            node.watermark = watermark;
        }
    }

    /// Runs the epoch's rows through every node. Watermarks have been advanced.
    pub(super) fn run(&mut self, epoch: &mut Epoch) -> Result<(), Failure> {
        let mut id = 0;
        while id < self.running.len() {
            let inputs = at(&self.running[id].name, || self.gather(id, epoch))?;
            let (node, rows_in) = (&mut self.running[id], rows_of(&inputs));
            match &mut node.work {
                Work::Source { .. } => {
                    let rows = epoch.outputs[id].iter().flatten().map(Batch::num_rows).sum();
                    node.counts.rows_out += rows as u64;
                    epoch.count(&node.name, "rows_in", rows);
                }
                Work::Operator { .. } => {
                    id += self.run_chain(id, inputs, epoch)?;
                    continue;
                }
                Work::Sink { sink, .. } => {
                    let batches = inputs.into_iter().flatten().map(|(_, batch)| batch).collect();
                    let output = at(&node.name, || sink.on_epoch(epoch.number, batches))?;
                    node.counts.rows_in += rows_in as u64;
                    epoch.count(&node.name, "rows_in", rows_in);
                    epoch.sinks.push((node.name.to_string(), output));
                }
            }
            id += 1;
        }
        Ok(())
    }

    /// Runs an operator, and with it those behind it that read, task by task, nothing but the one before them: a task takes
    /// its rows through all of them while they are at hand. Says how many nodes that were.
    fn run_chain(&mut self, first: NodeId, inputs: Vec<TaskInput>, epoch: &mut Epoch) -> Result<usize, Failure> {
        let followers = (first..)
            .zip(&self.running[first + 1..])
            .take_while(|(before, node)| node.follows(*before) && node.tasks == self.running[first].tasks);
        let length = 1 + followers.count();
        let mut rows_in = rows_of(&inputs);
        let blank = || Output { one_by_one: epoch.one_by_one, ..Output::new(epoch.number) };
        let outputs = run_tasks(&mut self.running[first..first + length], inputs, &blank)?;
        for (id, outputs) in (first..).zip(outputs) {
            let rows_out = outputs.iter().flat_map(|output| &output.batches).map(Batch::num_rows).sum();
            let running = &mut self.running[id];
            let name = running.name.clone();
            at(&name, || running.take_outputs(id, rows_in, outputs, epoch))?;
            rows_in = rows_out;
        }
        Ok(length)
    }

    /// What each task of a node takes: batches with the number of the input they come from.
    fn gather(&self, id: NodeId, epoch: &Epoch) -> Result<Vec<Vec<(usize, Batch)>>> {
        let node = &self.running[id];
        let mut inputs: Vec<Vec<(usize, Batch)>> = vec![Vec::new(); node.tasks];
        for (port, input) in node.inputs.iter().enumerate() {
            let batches = exchange(&input.exchange, &epoch.outputs[input.node], node.tasks)?;
            for (task, batches) in inputs.iter_mut().zip(batches) {
                task.extend(batches.into_iter().map(|batch| (port, batch)));
            }
        }
        Ok(inputs)
    }
}

impl Running {
    fn take_outputs(&mut self, id: NodeId, rows_in: usize, outputs: Vec<Output>, epoch: &mut Epoch) -> Result<()> {
        let (mut rows_out, mut late, mut failed) = (0, 0, 0);
        let (mut filtered, mut absorbed, mut lost) = (0, 0, 0);
        for output in outputs {
            rows_out += output.batches.iter().map(Batch::num_rows).sum::<usize>();
            late += output.late.iter().map(Batch::num_rows).sum::<usize>();
            failed += output.failed.iter().map(|(batch, _)| batch.num_rows()).sum::<usize>();
            filtered += to_rows(output.filtered);
            absorbed += to_rows(output.absorbed);
            lost += output.lost.iter().map(|(batch, _)| batch.num_rows()).sum::<usize>();
            dead::letters(&self.name, &output, self.watermark, &mut epoch.dead_letters)?;
            epoch.outputs[id].push(output.batches);
        }
        self.counts.rows_in += rows_in as u64;
        self.counts.rows_out += rows_out as u64;
        self.counts.late += late as u64;
        let counted = [("rows_in", rows_in), ("rows_out", rows_out), ("late", late), ("failed", failed)];
        let counted = counted.into_iter().chain([("filtered", filtered), ("absorbed", absorbed), ("lost", lost)]);
        for (what, rows) in counted {
            epoch.count(&self.name, what, rows);
        }
        Ok(())
    }
}

fn to_rows(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

type TaskInput = Vec<(usize, Batch)>;

fn rows_of(inputs: &[TaskInput]) -> usize {
    inputs.iter().flatten().map(|(_, batch)| batch.num_rows()).sum()
}

/// One task of an operator in a chain.
struct Link<'a> {
    name: Arc<str>,
    operator: &'a mut Box<dyn Operator>,
    watermark: Option<Micros>,
}

impl Link<'_> {
    /// Takes an epoch's rows, then the watermark.
    fn run(self, input: TaskInput, mut output: Output) -> Result<Output, Failure> {
        at(&self.name, || {
            for (port, batch) in input {
                self.operator.on_batch(port, batch, &mut output)?;
            }
            if let Some(watermark) = self.watermark {
                self.operator.on_watermark(watermark, &mut output)?;
            }
            Ok(output)
        })
    }
}

/// Takes each task's rows through the operators of a chain; gives what each of them made of them, by task.
fn run_tasks(
    chain: &mut [Running],
    inputs: Vec<TaskInput>,
    blank: &(dyn Fn() -> Output + Sync),
) -> Result<Vec<Vec<Output>>, Failure> {
    // A window that closes may give far more rows than came in.
    let rows = rows_of(&inputs);
    let rows = if chain.iter().any(Running::is_due) { rows.max(PARALLEL_ROWS) } else { rows };
    let length = chain.len();
    let mut tasks: Vec<Vec<Link<'_>>> = inputs.iter().map(|_| Vec::new()).collect();
    for node in chain {
        let (watermark, name) = (node.watermark, node.name.clone());
        for (task, operator) in tasks.iter_mut().zip(node.operators()) {
            task.push(Link { name: name.clone(), operator, watermark });
        }
    }
    let run = |(links, mut input): (Vec<Link<'_>>, TaskInput)| {
        let mut outputs = Vec::with_capacity(length);
        for link in links {
            let output = link.run(input, blank())?;
            input = output.batches.iter().map(|batch| (0, batch.clone())).collect();
            outputs.push(output);
        }
        Ok(outputs)
    };
    let by_task: Vec<Vec<Output>> = if inputs.len() > 1 && is_worth_sharing(rows) {
        tasks.into_par_iter().zip(inputs).map(run).collect::<Result<_, Failure>>()?
    } else {
        tasks.into_iter().zip(inputs).map(run).collect::<Result<_, Failure>>()?
    };
    let mut by_node: Vec<Vec<Output>> = (0..length).map(|_| Vec::new()).collect();
    for outputs in by_task {
        for (node, output) in by_node.iter_mut().zip(outputs) {
            node.push(output);
        }
    }
    Ok(by_node)
}

/// The stored columns that a graph's sources need.
pub(super) fn columns_read(graph: &Graph) -> Columns {
    let source = |node: &Node| match &node.kind {
        NodeKind::Source { event_type, columns } => {
            let mut needed = event_type.stored_columns(columns);
            needed.extend([stored::EVENT_ID, stored::EVENT_TIME]);
            needed.sort_unstable();
            needed.dedup();
            Some((event_type.name.clone(), needed))
        }
        _ => None,
    };
    Columns::Only(graph.nodes.iter().filter_map(source).collect())
}
