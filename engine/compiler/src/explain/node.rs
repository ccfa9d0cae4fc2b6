//! A node of the graph in words.
//!
//! What is true of a node follows from what is true of its inputs, so nodes are explained in the order of the graph.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use cornjacket_core::catalogue::{ENVELOPE, EventType, FieldType};
use cornjacket_core::graph::{Exchange, Graph, Input, Node, NodeKind, SinkFactory};
use cornjacket_core::operator::{OperatorFactory, Windows};
use cornjacket_core::time::format_span;
use cornjacket_sql::stream::{plain_column, plain_types};

use super::{
    ClockExplanation, ColumnExplanation, ExchangeKind, InputExplanation, NodeExplanation, Role, StateExplanation,
    TimeExplanation,
};

/// Explains every node.
pub(super) fn explain(graph: &Graph) -> Vec<NodeExplanation> {
    let mut known: Vec<Known> = Vec::with_capacity(graph.nodes.len());
    let mut explained = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let facts = Known::of(node, &known);
        explained.push(explanation(node, graph, &facts));
        known.push(facts);
    }
    explained
}

/// What follows for a node from what comes before it.
struct Known {
    /// Positions of the columns that identify a row.
    key: Option<Vec<usize>>,
    row_time: Vec<String>,
    types: BTreeMap<String, Arc<EventType>>,
    changelog: bool,
}

impl Known {
    fn of(node: &Node, before: &[Self]) -> Self {
        let mut facts = Self { key: None, row_time: Vec::new(), types: BTreeMap::new(), changelog: false };
        for input in node.inputs.iter().map(|input| &before[input.node]) {
            facts.types.extend(input.types.iter().map(|(name, found)| (name.clone(), Arc::clone(found))));
            facts.changelog |= input.changelog;
            let new = input.row_time.iter().filter(|time| !facts.row_time.contains(time));
            let new: Vec<String> = new.cloned().collect();
            facts.row_time.extend(new);
        }
        let first = node.inputs.first().map(|input| &before[input.node]);
        match &node.kind {
            NodeKind::Source { event_type, .. } => facts.begin(event_type),
            NodeKind::Operator(operator) => facts.compute(&**operator, node, first),
            NodeKind::Sink(sink) => facts.end(&**sink, first),
        }
        facts
    }

    fn begin(&mut self, event_type: &Arc<EventType>) {
        self.key = Some(vec![0]);
        self.row_time = vec![format!("event_time of {}", event_type.name)];
        self.types.insert(event_type.name.clone(), Arc::clone(event_type));
    }

    fn compute(&mut self, operator: &dyn OperatorFactory, node: &Node, input: Option<&Self>) {
        if let Some(windows) = operator.windows() {
            self.changelog |= windows.lateness > 0;
            self.row_time =
                vec![format!("end of the {} window of {}, less 1 µs", format_span(windows.width), node.name)];
            self.key = Some(windows.key);
            return;
        }
        let moved = |key: usize| {
            // A window's start says which it is, and so does its end.
            let part = |field| operator.position_of(key, Some(field));
            operator.position_of(key, None).or_else(|| part("start")).or_else(|| part("end"))
        };
        self.key = input.and_then(|input| input.key.as_ref()?.iter().map(|key| moved(*key)).collect());
    }

    /// A table has columns and a key of its own.
    fn end(&mut self, sink: &dyn SinkFactory, input: Option<&Self>) {
        self.key = match sink.projection() {
            Some(table) => Some(table.key.clone()),
            None => input.and_then(|input| input.key.clone()),
        };
    }
}

fn explanation(node: &Node, graph: &Graph, facts: &Known) -> NodeExplanation {
    let (role, kind, does) = match &node.kind {
        NodeKind::Source { event_type, .. } => {
            let does = format!("the stored events of the type, from the topic {}", event_type.topic);
            (Role::EventType, "source", does)
        }
        NodeKind::Operator(operator) => (Role::Operator, operator.kind(), operator.summary()),
        NodeKind::Sink(sink) => (Role::Sink, sink.kind(), sink.summary()),
    };
    let windows = match &node.kind {
        NodeKind::Operator(operator) => operator.windows(),
        _ => None,
    };
    let (table, starts) = match &node.kind {
        NodeKind::Sink(sink) => (sink.projection(), Some(if sink.starts_at_beginning() { "beginning" } else { "now" })),
        NodeKind::Source { .. } | NodeKind::Operator(_) => (None, None),
    };
    let schema = table.as_ref().map_or(&node.schema, |table| &table.schema);
    let event_type = events_of(node);
    // A sink that reads events takes them with the types that they were declared with.
    let read = node.inputs.first().and_then(|input| events_of(&graph.nodes[input.node]));
    let declaring = event_type.or_else(|| read.filter(|_| role == Role::Sink));
    NodeExplanation {
        name: node.name.clone(),
        role,
        kind: kind.into(),
        does: does.lines().map(str::to_string).collect(),
        inputs: node.inputs.iter().map(|edge| input(edge, graph)).collect(),
        tasks: node.tasks,
        topic: event_type.map(|event_type| event_type.topic.clone()),
        columns: columns(schema, declaring),
        key: names(facts.key.as_deref().unwrap_or_default(), schema),
        state: state(node, windows.as_ref()),
        time: TimeExplanation {
            row_time: facts.row_time.clone(),
            watermark: facts.types.values().map(|event_type| clock(event_type)).collect(),
            window: windows.as_ref().map(|windows| format_span(windows.width)),
            lateness: windows.as_ref().map(|windows| format_span(windows.lateness)),
        },
        changelog: facts.changelog,
        starts,
    }
}

fn events_of(node: &Node) -> Option<&EventType> {
    match &node.kind {
        NodeKind::Source { event_type, .. } => Some(event_type),
        NodeKind::Operator(_) | NodeKind::Sink(_) => None,
    }
}

fn input(edge: &Input, graph: &Graph) -> InputExplanation {
    let from = &graph.nodes[edge.node];
    let (exchange, by) = match &edge.exchange {
        Exchange::Forward => (ExchangeKind::Forward, Vec::new()),
        Exchange::Hash(columns) => (ExchangeKind::Hash, names(columns, &from.schema)),
        Exchange::Gather => (ExchangeKind::Gather, Vec::new()),
    };
    InputExplanation { node: from.name.clone(), exchange, by }
}

fn names(columns: &[usize], schema: &Schema) -> Vec<String> {
    columns.iter().map(|at| column_name(schema.field(*at))).collect()
}

fn column_name(field: &Field) -> String {
    plain_column(field.name())
}

fn clock(event_type: &EventType) -> ClockExplanation {
    let policy = &event_type.watermark;
    ClockExplanation {
        event_type: event_type.name.clone(),
        delay: format_span(policy.delay),
        idle: format_span(policy.idle),
        max_ahead: format_span(policy.max_ahead),
    }
}

fn columns(schema: &Schema, event_type: Option<&EventType>) -> Vec<ColumnExplanation> {
    let column = |field: &Arc<Field>| ColumnExplanation {
        name: column_name(field),
        data_type: declared(field.name(), event_type).unwrap_or_else(|| type_name(field.data_type())),
        nullable: field.is_nullable(),
    };
    schema.fields().iter().map(column).collect()
}

/// The type as the file declares it, where text and JSON still differ.
fn declared(name: &str, event_type: Option<&EventType>) -> Option<String> {
    let event_type = event_type?;
    if ["metadata", "payload"].contains(&name) {
        return Some("json".into());
    }
    if ENVELOPE.contains(&name) {
        return None;
    }
    let field = event_type.fields.iter().find(|field| field.name == name)?;
    Some(declared_type(&field.data_type))
}

fn declared_type(data_type: &FieldType) -> String {
    match data_type {
        FieldType::List(item) => format!("list<{}>", declared_type(item)),
        FieldType::Struct(fields) => {
            let fields = fields.iter().map(|field| format!("{} {}", field.name, declared_type(&field.data_type)));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.name(),
    }
}

fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) => format!("list<{}>", type_name(item.data_type())),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| format!("{} {}", field.name(), type_name(field.data_type())));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        other => plain_types(&other.to_string()),
    }
}

fn state(node: &Node, windows: Option<&Windows>) -> Option<StateExplanation> {
    match (&node.kind, windows) {
        (NodeKind::Operator(_), Some(windows)) => Some(window_state(windows, &node.schema)),
        (NodeKind::Operator(operator), None) if operator.is_stateful() => Some(StateExplanation {
            keeps: "what it needs of earlier rows".into(),
            bounded_by: "nothing that is known".into(),
        }),
        (NodeKind::Sink(sink), _) => {
            let table = sink.projection()?;
            let key = names(&table.key, &table.schema).join(", ");
            let keeps = format!("the table {} in the store: a row per {key}", table.name);
            Some(StateExplanation { keeps, bounded_by: "the number of keys: no row goes because of its age".into() })
        }
        _ => None,
    }
}

fn window_state(windows: &Windows, schema: &Schema) -> StateExplanation {
    let groups = names(windows.key.get(1..).unwrap_or_default(), schema);
    let groups = if groups.is_empty() { String::new() } else { format!(" and {}", groups.join(", ")) };
    let keeps = format!("a row of aggregates per open window of {}{groups}", format_span(windows.width));
    let bounded_by = match windows.lateness {
        0 => "the watermark: a window goes when it reaches the window's end".to_string(),
        late => {
            format!("the watermark: a window goes when it is {} (lateness) past the window's end", format_span(late))
        }
    };
    StateExplanation { keeps, bounded_by }
}
