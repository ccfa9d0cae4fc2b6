//! An explanation for a terminal: first the whole as a tree, then a block per node.

use std::collections::BTreeSet;

use super::{ColumnExplanation, Explanation, InputExplanation, NodeExplanation, Role};

/// Longest line, so that it fits beside a sidebar and into a mail.
const WIDTH: usize = 110;
/// A space that no line is broken at.
const TIED: &str = "\u{a0}";
/// Where a block's values begin.
const INDENT: usize = 13;

impl Explanation {
    /// A tree of the whole, then a block per node.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("pipeline {}\n", self.pipeline);
        if !self.description.is_empty() {
            text += &wrapped("  ", &printable(&self.description), 2);
        }
        text.push('\n');
        text += &Tree { explanation: self, shown: BTreeSet::new(), lines: Vec::new() }.text();
        for node in &self.nodes {
            text.push('\n');
            text += &block(node);
        }
        text
    }
}

/// Descriptions are the user's own text; a terminal obeys control characters.
fn printable(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).collect()
}

/// The way of the rows, from the sources through the log down to the sinks.
struct Tree<'a> {
    explanation: &'a Explanation,
    /// Nodes whose outputs are shown already: what has several inputs stands under each, once with what follows.
    shown: BTreeSet<&'a str>,
    /// Left and right column.
    lines: Vec<(String, String)>,
}

impl<'a> Tree<'a> {
    fn text(mut self) -> String {
        for source in &self.explanation.sources {
            self.lines.push((source.name.clone(), format!("{}: {}", source.kind, source.does)));
        }
        self.lines.push(("the log".into(), "what the sources bring is stored here before it is answered".into()));
        let nodes = &self.explanation.nodes;
        let types: Vec<&NodeExplanation> = nodes.iter().filter(|node| node.role == Role::EventType).collect();
        for (at, node) in types.iter().enumerate() {
            self.node(node, None, "", at + 1 == types.len());
        }
        let width = self.lines.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0) + 2;
        let line = |(left, right): &(String, String)| {
            wrapped(&format!("{left}{}", " ".repeat(width - left.chars().count())), right, width)
        };
        self.lines.iter().map(line).collect()
    }

    fn node(&mut self, node: &'a NodeExplanation, edge: Option<&InputExplanation>, before: &str, is_last: bool) {
        let mut what = node.what().to_string();
        if let Some(moves) = edge.and_then(InputExplanation::moves) {
            what = format!("{what}; rows go {moves}");
        }
        if node.changelog {
            what += "; changelog";
        }
        let nodes = &self.explanation.nodes;
        let readers: Vec<(&NodeExplanation, &InputExplanation)> = nodes
            .iter()
            .flat_map(|reader| reader.inputs.iter().map(move |input| (reader, input)))
            .filter(|(_, input)| input.node == node.name)
            .collect();
        let is_new = self.shown.insert(&node.name);
        if !is_new && !readers.is_empty() {
            what += "; shown above";
        }
        self.lines.push((format!("{before}{}{}", if is_last { "└─ " } else { "├─ " }, node.name), what));
        let below = format!("{before}{}", if is_last { "   " } else { "│  " });
        for (at, (reader, input)) in readers.iter().enumerate().filter(|_| is_new) {
            self.node(reader, Some(input), &below, at + 1 == readers.len());
        }
    }
}

fn block(node: &NodeExplanation) -> String {
    let mut text = format!("{}  ({})\n", node.name, node.what());
    let mut line = |name: &str, value: &str| text += &wrapped(&format!("  {name:<11}"), value, INDENT);
    for (at, step) in node.does.iter().enumerate() {
        line(if at == 0 { "does" } else { "" }, step);
    }
    for input in &node.inputs {
        line("from", &format!("{}, {}", input.node, way(input)));
    }
    line("runs as", &tasks(node));
    line("columns", &columns(&node.columns));
    if !node.key.is_empty() {
        line("key", &node.key.join(", "));
    }
    match &node.state {
        Some(state) => {
            line("state", &state.keeps);
            line("bounded by", &state.bounded_by);
        }
        None => line("state", "none"),
    }
    line("row time", &node.time.row_time.join(", or "));
    line("watermark", &watermark(node));
    if let Some(lateness) = node.time.lateness.as_deref().filter(|lateness| *lateness != "0s") {
        line("lateness", &format!("{lateness}: so long a closed window still takes rows and gives updates"));
    }
    if node.changelog {
        line("changelog", "yes: rows that were given may be taken back or replaced");
    }
    if let Some(starts) = node.starts {
        line("begins", if starts == "now" { "with what comes after its first start" } else { "with the first event" });
    }
    text
}

fn way(input: &InputExplanation) -> String {
    input.moves().map_or_else(|| "task by task".into(), |moves| format!("rows go {moves}"))
}

fn tasks(node: &NodeExplanation) -> String {
    let count = match node.tasks {
        1 => "1 task".to_string(),
        count => format!("{count} tasks"),
    };
    match &node.topic {
        Some(topic) => format!("{count}, one a partition of the topic {topic}"),
        None => count,
    }
}

fn columns(columns: &[ColumnExplanation]) -> String {
    let column = |column: &ColumnExplanation| {
        let name: String = column.name.chars().filter(|c| !c.is_control()).collect();
        let data_type = column.data_type.replace(' ', TIED);
        format!("{}{TIED}{data_type}{}", name.replace(' ', TIED), if column.nullable { "?" } else { "" })
    };
    columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

/// How the clocks run is said where they do; what comes after goes by the least of them.
fn watermark(node: &NodeExplanation) -> String {
    match (node.role, node.time.watermark.as_slice()) {
        (Role::EventType, [clock]) => format!(
            "the least clock of its partitions. A clock is the greatest event time less {} (delay); a partition silent for {} \
             (idle) holds nothing back; an event more than {} (max_ahead) in the future is refused",
            clock.delay, clock.idle, clock.max_ahead
        ),
        (_, clocks) => {
            let names: Vec<&str> = clocks.iter().map(|clock| clock.event_type.as_str()).collect();
            if names.len() > 1 {
                format!("the least of {}", names.join(", "))
            } else {
                format!("that of {}", names.concat())
            }
        }
    }
}

/// A value behind its name, on as many lines as it takes, all of them beginning in the same column.
fn wrapped(first: &str, value: &str, indent: usize) -> String {
    let (mut text, mut line) = (String::new(), first.to_string());
    let mut is_empty = true;
    for word in value.split(' ') {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.extend([line.trim_end(), "\n"]);
            (line, is_empty) = (" ".repeat(indent), true);
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    text.extend([line.trim_end(), "\n"]);
    text.replace(TIED, " ")
}
