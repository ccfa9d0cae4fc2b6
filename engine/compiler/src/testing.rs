//! The section `tests:`: what is given, how time goes on, and which rows are expected.
//!
//! Everything that can be seen without running a test is checked here: names, columns, event types, times. A test runs
//! on the pipeline's own graph in which the sinks that reach outside are replaced by captures; see [`captured`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::component::SinkContext;
use cornjacket_core::diagnostic::Place;
use cornjacket_core::graph::SinkFactory;
use cornjacket_core::setting;
use cornjacket_core::time::{Micros, parse_rfc3339};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::key;
use crate::lower::ReadySink;
use crate::names::did_you_mean;
use crate::node::{self, Entry, Node, Span};
use crate::report::Report;
use crate::section::unknown_keys;
use crate::settings::{read, read_with};
use crate::streams::Streams;

/// A test of a pipeline file.
#[derive(Clone, Debug)]
pub struct TestCase {
    /// Its name, unique in the file.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// What happens, in order.
    pub steps: Vec<TestStep>,
}

/// One thing that happens in a test, and where it stands.
#[derive(Clone, Debug)]
pub struct TestStep {
    /// What.
    pub action: TestAction,
    /// Where.
    pub place: Place,
}

/// What can happen in a test.
#[derive(Clone, Debug)]
pub enum TestAction {
    /// An event comes in.
    Given {
        /// Its envelope.
        event: Value,
        /// The ingest time; the event's own unless set, and never before an earlier one's.
        at: Option<Micros>,
    },
    /// Time goes on: every window that ends by then closes.
    AdvanceTo(Micros),
    /// Nothing comes for so long, in µs.
    Silence(Micros),
    /// These rows are there.
    Expect {
        /// The stream, event type, sink or `dead_letters`.
        target: String,
        /// Where they are found.
        kind: TargetKind,
        /// Which rows.
        rows: Expected,
    },
}

/// Where expected rows are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// In the table of a projection, all of it.
    Projection,
    /// Among the rows that a stream or sink gave since it was last looked at.
    Rows,
    /// Among the deliveries of a sink since they were last looked at.
    Deliveries,
    /// Among the dead letters since they were last looked at.
    DeadLetters,
}

/// The rows that are expected. Of each only the columns that are named count, and their order does not.
#[derive(Clone, Debug)]
pub enum Expected {
    /// These and no others.
    Exactly(Vec<Map<String, Value>>),
    /// These, perhaps among others.
    Containing(Vec<Map<String, Value>>),
    /// So many.
    Count(u64),
}

/// Makes the sink that a test looks at instead of the real one.
pub type Capture<'a> = &'a dyn Fn(&SinkContext) -> Arc<dyn SinkFactory>;

/// The name that stands for what went wrong.
const DEAD_LETTERS: &str = "dead_letters";
/// What a dead letter has.
const LETTER_COLUMNS: [&str; 7] = ["reason", "source", "message", "event_id", "event_time", "body", "place"];
/// What every row of a projection has beside its columns.
const PROJECTION_COLUMNS: [&str; 2] = ["last_event_id", "last_event_timestamp"];
const KEYS: [&str; 6] = ["name", "given", "advance_to", "silence", "expect", "steps"];
const STEP_KEYS: [&str; 4] = ["given", "advance_to", "silence", "expect"];

/// What tests can name.
pub(crate) struct Targets<'a> {
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) streams: &'a Streams,
    pub(crate) sinks: &'a [ReadySink],
    /// Whether everything else in the file is right. If not, a name that is not known may be one that could not be read,
    /// which is reported where it is wrong.
    pub(crate) is_whole: bool,
}

/// What an expectation looks at.
struct Target {
    kind: TargetKind,
    columns: Vec<String>,
}

impl Targets<'_> {
    fn schema_of(&self, from: &str) -> Option<SchemaRef> {
        let stream = self.streams.get(from).map(|stream| Arc::clone(stream.relation.schema()));
        stream.or_else(|| self.catalogue.types.get(from).map(|event_type| Arc::clone(event_type.table_schema())))
    }

    fn find(&self, name: &str) -> Option<Target> {
        let names = |schema: &SchemaRef| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        if name == DEAD_LETTERS {
            let columns = LETTER_COLUMNS.map(str::to_string).to_vec();
            return Some(Target { kind: TargetKind::DeadLetters, columns });
        }
        let sink = self.sinks.iter().find(|sink| sink.name == name);
        if let Some(spec) = sink.and_then(|sink| sink.factory.projection()) {
            let columns = names(&spec.schema).into_iter().chain(PROJECTION_COLUMNS.map(str::to_string)).collect();
            return Some(Target { kind: TargetKind::Projection, columns });
        }
        let mut columns = names(&self.schema_of(sink.map_or(name, |sink| &sink.from))?);
        if sink.is_some_and(|sink| sink.factory.rehearsal().is_some()) {
            return Some(Target { kind: TargetKind::Deliveries, columns });
        }
        columns.push("op".into());
        Some(Target { kind: TargetKind::Rows, columns })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let sinks = self.sinks.iter().map(|sink| sink.name.as_str());
        let streams = self.streams.streams.iter().map(|stream| stream.name.as_str());
        sinks.chain(streams).chain(self.catalogue.types.keys().map(String::as_str)).chain([DEAD_LETTERS])
    }
}

/// Reads the section.
pub(crate) fn tests(section: Option<&Entry>, targets: &Targets<'_>, report: &mut Report) -> Vec<TestCase> {
    let Some(section) = section else { return Vec::new() };
    let mut reader = Reader { targets, report };
    let mut tests: Vec<TestCase> = Vec::new();
    for node in reader.items(section) {
        let Some(test) = reader.test(node, section) else { continue };
        if tests.iter().any(|other| other.name == test.name) {
            let message = format!("two tests are called `{}`", test.name);
            reader.report.error("CJ012", &test.place.span, message, Some("give each test its own name".into()));
        }
        tests.push(test);
    }
    tests
}

struct Reader<'a, 'r> {
    targets: &'a Targets<'a>,
    report: &'r mut Report,
}

impl Reader<'_, '_> {
    fn place(&self, span: &Span) -> Place {
        Place { file: self.report.file(), span: span.clone() }
    }

    /// The items of a list; reports anything else.
    fn items<'n>(&mut self, entry: &'n Entry) -> &'n [Node] {
        match &entry.value.value {
            node::Value::List(items) => items,
            node::Value::Null => &[],
            _ => {
                let message = format!("expected a list under `{}`, found {}", entry.key, entry.value.kind());
                let hint = "begin each item with `- `".to_string();
                self.report.error("CJ501", &entry.key_span, message, Some(hint));
                &[]
            }
        }
    }

    fn test(&mut self, node: &Node, section: &Entry) -> Option<TestCase> {
        let entries = self.map(node, "a test is a map with name, given and expect")?;
        unknown_keys(entries, &KEYS, self.report);
        let Some(name) = node.entry("name") else {
            let hint = Some("add `name: what it shows`".into());
            let place = entries.first().map_or(&section.key_span, |entry| &entry.key_span);
            self.report.error("CJ501", place, "a test needs a name", hint);
            return None;
        };
        let place = self.place(&name.value.span);
        let name: String = read(name, self.report)?;
        let mut steps = self.steps(node);
        if let Some(more) = node.entry("steps") {
            for node in self.items(more) {
                if let Some(entries) = self.map(node, "a step is given, advance_to, silence or expect") {
                    unknown_keys(entries, &STEP_KEYS, self.report);
                    steps.extend(self.steps(node));
                }
            }
        }
        if !steps.iter().any(|step| matches!(step.action, TestAction::Expect { .. })) && self.report.errors() == 0 {
            let hint = "add `expect:` with the rows of a stream or sink";
            self.report.warning("CJ505", &place.span, format!("the test `{name}` expects nothing"), hint);
        }
        Some(TestCase { name, place, steps })
    }

    fn map<'n>(&mut self, node: &'n Node, wanted: &str) -> Option<&'n [Entry]> {
        let entries = node.entries();
        if entries.is_none() {
            let hint = "write it as { key: value, … }, or as `key: value` lines".to_string();
            self.report.error("CJ501", &node.span, format!("{wanted}, and this is {}", node.kind()), Some(hint));
        }
        entries
    }

    /// The steps of a map, in the order in which they happen: given, advance, silence, expect.
    fn steps(&mut self, node: &Node) -> Vec<TestStep> {
        let mut steps = Vec::new();
        if let Some(given) = node.entry("given") {
            for event in self.items(given) {
                let action = self.given(event);
                self.push(&mut steps, action, &event.span);
            }
        }
        if let Some(entry) = node.entry("advance_to") {
            let action = self.time(entry).map(TestAction::AdvanceTo);
            self.push(&mut steps, action, &entry.value.span);
        }
        if let Some(entry) = node.entry("silence") {
            let action = read::<setting::Span>(entry, self.report).map(|span| TestAction::Silence(span.0));
            self.push(&mut steps, action, &entry.value.span);
        }
        for entry in node.entry("expect").map(|entry| self.expectations(entry)).unwrap_or_default() {
            let action = self.expect(entry);
            self.push(&mut steps, action, &entry.key_span);
        }
        steps
    }

    fn push(&self, steps: &mut Vec<TestStep>, action: Option<TestAction>, span: &Span) {
        steps.extend(action.map(|action| TestStep { action, place: self.place(span) }));
    }

    fn time(&mut self, entry: &Entry) -> Option<Micros> {
        let text: String = read(entry, self.report)?;
        let time = parse_rfc3339(&text);
        if time.is_none() {
            let hint = Some("write it as \"2026-01-01T00:02:00Z\"".into());
            self.report.error("CJ501", &entry.value.span, format!("`{text}` is no time"), hint);
        }
        time
    }

    fn given(&mut self, node: &Node) -> Option<TestAction> {
        self.map(node, "a given event is a map with event_type, aggregate_id and payload")?;
        let at = match node.entry("at") {
            Some(at) => Some(self.time(at)?),
            None => None,
        };
        if let Some(name) = node.entry("event_type") {
            let text: String = read(name, self.report)?;
            if !self.targets.catalogue.types.contains_key(&text) && self.targets.is_whole {
                let known = self.targets.catalogue.types.keys().map(String::as_str);
                let hint = did_you_mean(&text, known);
                self.report.error("CJ504", &name.value.span, format!("there is no event type `{text}`"), Some(hint));
                return None;
            }
        }
        let Value::Object(mut event) = self.json(node)? else { return None };
        event.remove("at");
        Some(TestAction::Given { event: Value::Object(event), at })
    }

    fn json(&mut self, node: &Node) -> Option<Value> {
        read_with(node, &node.span, self.report, |deserializer| Value::deserialize(deserializer))
    }

    fn expectations<'n>(&mut self, entry: &'n Entry) -> &'n [Entry] {
        crate::section::known_settings(Some(entry), None, self.report)
    }

    fn expect(&mut self, entry: &Entry) -> Option<TestAction> {
        let Some(target) = self.targets.find(&entry.key) else {
            if !self.targets.is_whole {
                return None;
            }
            let hint = did_you_mean(&entry.key, self.targets.names());
            let message = format!("there is no stream or sink `{}` to expect rows of", entry.key);
            self.report.error("CJ502", &entry.key_span, message, Some(hint));
            return None;
        };
        let rows = match &entry.value.value {
            node::Value::List(_) => Expected::Exactly(self.rows(entry, &target)?),
            node::Value::Map(_) => self.expected(entry, &target)?,
            _ => {
                let hint = "write [] if no row is expected, or { count: 3 } for a number of rows".to_string();
                let message = format!("expected a list of rows under `{}`, found {}", entry.key, entry.value.kind());
                self.report.error("CJ501", &entry.key_span, message, Some(hint));
                return None;
            }
        };
        Some(TestAction::Expect { target: entry.key.clone(), kind: target.kind, rows })
    }

    fn expected(&mut self, entry: &Entry, target: &Target) -> Option<Expected> {
        match entry.value.entries().unwrap_or_default() {
            [one] if one.key == "exactly" => self.rows(one, target).map(Expected::Exactly),
            [one] if one.key == "containing" => self.rows(one, target).map(Expected::Containing),
            [one] if one.key == "count" => read(one, self.report).map(Expected::Count),
            _ => {
                let message = format!("`{}` is expected in one way: a list, exactly, containing or count", entry.key);
                let hint = "rows are a list, also a single one: [ { column: value } ]".to_string();
                self.report.error("CJ501", &entry.key_span, message, Some(hint));
                None
            }
        }
    }

    fn rows(&mut self, entry: &Entry, target: &Target) -> Option<Vec<Map<String, Value>>> {
        let mut rows = Vec::new();
        for node in self.items(entry) {
            let entries = self.map(node, "an expected row is a map of columns")?;
            for column in entries.iter().filter(|entry| !target.columns.contains(&entry.key)) {
                let hint = did_you_mean(&column.key, target.columns.iter().map(String::as_str));
                let message = format!("there is no column `{}` in the rows of `{}`", column.key, entry.key);
                self.report.error("CJ503", &column.key_span, message, Some(hint));
            }
            let Value::Object(row) = self.json(node)? else { return None };
            rows.push(row);
        }
        Some(rows)
    }
}

/// The sinks of a graph for tests: projections as they are, rehearsals of those that have one, and a capture for everything
/// else that a test looks at.
pub(crate) fn captured(
    sinks: Vec<ReadySink>,
    tests: &[TestCase],
    (catalogue, streams): (&Catalogue, &Streams),
    folder: &Path,
    capture: Capture<'_>,
) -> Vec<ReadySink> {
    let mut from_of: BTreeMap<&str, String> = BTreeMap::new();
    for step in tests.iter().flat_map(|test| &test.steps) {
        if let TestAction::Expect { target, kind: TargetKind::Rows, .. } = &step.action {
            let sink = sinks.iter().find(|sink| sink.name == *target);
            from_of.insert(target, sink.map_or(target, |sink| &sink.from).clone());
        }
    }
    let captures = from_of.into_iter().filter_map(|(target, from)| {
        let stream = streams.get(&from);
        let event_type = catalogue.types.get(&from);
        let schema = stream.map(|stream| stream.relation.schema()).or(event_type.map(|t| t.table_schema()))?;
        let context = SinkContext {
            name: target.into(),
            schema: Arc::clone(schema),
            event_type: event_type.filter(|_| stream.is_none()).cloned(),
            updating: stream.is_some_and(|stream| stream.updating),
            key: stream.and_then(|stream| key::of(&stream.relation, streams)),
            folder: folder.to_path_buf(),
        };
        Some(ReadySink { name: format!("expect/{target}"), from, factory: capture(&context) })
    });
    let captures: Vec<ReadySink> = captures.collect();
    let stands_in = |sink: ReadySink| match sink.factory.rehearsal() {
        Some(factory) => Some(ReadySink { factory, ..sink }),
        None => sink.factory.projection().is_some().then_some(sink),
    };
    sinks.into_iter().filter_map(stands_in).chain(captures).collect()
}
