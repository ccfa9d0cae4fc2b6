//! An explanation as a drawing: Mermaid's flowchart, which GitHub draws inside Markdown, and Graphviz' dot.
//!
//! Labels hold names, SQL and texts of the user, so each language's special characters are written as its escapes.

use std::fmt::Write;

use super::{Explanation, InputExplanation, NodeExplanation, Role};

/// Longest line of a label, and most lines of what a node does.
const LINE: usize = 56;
const LINES: usize = 5;

/// What is drawn: boxes by number, and arrows between them.
struct Drawing {
    boxes: Vec<Box>,
    arrows: Vec<(usize, usize, Option<String>)>,
}

/// A box: its form and the lines of its label, the first of which is its name.
struct Box {
    form: Form,
    lines: Vec<String>,
}

#[derive(Clone, Copy)]
enum Form {
    Source,
    Log,
    EventType,
    Operator,
    /// A sink that keeps a table.
    Table,
    Sink,
}

impl Explanation {
    /// A flowchart in Mermaid's language.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let drawing = Drawing::of(self);
        let mut text = String::from("flowchart TD\n");
        for (at, drawn) in drawing.boxes.iter().enumerate() {
            let (open, close) = mermaid_form(drawn.form);
            let lines: Vec<String> = drawn.lines.iter().map(|line| mermaid_text(line)).collect();
            let _ = writeln!(text, "  n{at}{open}\"{}\"{close}", lines.join("<br/>"));
        }
        for (from, to, label) in &drawing.arrows {
            let label = label.as_ref().map_or_else(String::new, |label| format!("|\"{}\"|", mermaid_text(label)));
            let _ = writeln!(text, "  n{from} -->{label} n{to}");
        }
        text
    }

    /// A graph in Graphviz' language.
    #[must_use]
    pub fn dot(&self) -> String {
        let drawing = Drawing::of(self);
        let mut text = format!("digraph {} {{\n", dot_text(&self.pipeline));
        text += "  rankdir=TB;\n  node [fontname=\"Helvetica\", fontsize=10, shape=box, margin=\"0.15,0.08\"];\n";
        text += "  edge [fontname=\"Helvetica\", fontsize=9];\n";
        for (at, drawn) in drawing.boxes.iter().enumerate() {
            let label = dot_label(&drawn.lines);
            let _ = writeln!(text, "  n{at} [label={label}, {}];", dot_form(drawn.form));
        }
        for (from, to, label) in &drawing.arrows {
            // The space keeps it off its arrow.
            let label =
                label.as_ref().map_or_else(String::new, |label| format!(" [label={}]", dot_text(&format!(" {label}"))));
            let _ = writeln!(text, "  n{from} -> n{to}{label};");
        }
        text + "}\n"
    }
}

impl Drawing {
    fn of(explanation: &Explanation) -> Self {
        let sources = explanation.sources.iter().map(|source| Box {
            form: Form::Source,
            lines: std::iter::once(format!("{} ({})", source.name, source.kind)).chain(folded(&source.does)).collect(),
        });
        let mut boxes: Vec<Box> = sources.collect();
        let log = boxes.len();
        let mut arrows: Vec<_> = (0..log).map(|source| (source, log, None)).collect();
        boxes.push(Box { form: Form::Log, lines: vec!["the log".into(), "every event, stored".into()] });
        let number = |name: &str| explanation.nodes.iter().position(|node| node.name == name).map(|at| log + 1 + at);
        for node in &explanation.nodes {
            let own = boxes.len();
            boxes.push(Box { form: form(node), lines: lines(node) });
            if let Some(topic) = &node.topic {
                arrows.push((log, own, Some(topic.clone())));
            }
            let arrow = |input: &InputExplanation| Some((number(&input.node)?, own, input.moves()));
            arrows.extend(node.inputs.iter().filter_map(arrow));
        }
        Self { boxes, arrows }
    }
}

fn form(node: &NodeExplanation) -> Form {
    match (node.role, &node.state) {
        (Role::EventType, _) => Form::EventType,
        (Role::Operator, _) => Form::Operator,
        (Role::Sink, Some(_)) => Form::Table,
        (Role::Sink, None) => Form::Sink,
    }
}

fn lines(node: &NodeExplanation) -> Vec<String> {
    let mut lines = vec![format!("{} ({})", node.name, node.what())];
    if node.role != Role::EventType {
        let mut does: Vec<String> = node.does.iter().flat_map(|step| folded(step)).collect();
        if does.len() > LINES {
            does.truncate(LINES);
            does.push("…".into());
        }
        lines.extend(does);
    }
    let tasks = if node.tasks == 1 { "1 task".into() } else { format!("{} tasks", node.tasks) };
    let changelog = if node.changelog { ", changelog" } else { "" };
    lines.push(format!("{tasks}{changelog}"));
    let clock = |clock: &super::ClockExplanation| format!("delay {}, idle {}", clock.delay, clock.idle);
    match (node.role, &node.time.lateness) {
        (Role::EventType, _) => lines.extend(node.time.watermark.iter().map(clock)),
        (_, Some(lateness)) if lateness != "0s" => lines.push(format!("lateness {lateness}")),
        _ => {}
    }
    lines
}

/// A text in lines that are short enough for a box; a word that is longer stands alone.
fn folded(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].chars().count() + 1 + word.chars().count() > LINE {
            lines.push(word.to_string());
        } else {
            let space = if lines[last].is_empty() { "" } else { " " };
            lines[last].extend([space, word]);
        }
    }
    lines
}

fn mermaid_form(form: Form) -> (&'static str, &'static str) {
    match form {
        Form::Source => ("([", "])"),
        Form::Log | Form::Table => ("[(", ")]"),
        Form::EventType => ("[/", "/]"),
        Form::Operator => ("[", "]"),
        Form::Sink => ("[[", "]]"),
    }
}

/// Letters, digits and harmless marks as they are, everything else by its number.
fn mermaid_text(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if c.is_alphanumeric() || " .,:_-+/=()'…µ".contains(c) {
            out.push(c);
        } else {
            let _ = write!(out, "#{};", u32::from(c));
        }
    }
    out
}

fn dot_form(form: Form) -> &'static str {
    match form {
        Form::Source => "style=rounded",
        Form::Log => "shape=cylinder, style=filled, fillcolor=\"#eeeeee\"",
        Form::EventType => "shape=parallelogram, style=filled, fillcolor=\"#e8f0fe\"",
        Form::Operator => "style=solid",
        Form::Table => "shape=cylinder, style=filled, fillcolor=\"#e6f4ea\"",
        Form::Sink => "shape=box, style=filled, fillcolor=\"#e6f4ea\"",
    }
}

fn dot_escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            // Graphviz reads entities, as HTML has them, in every label.
            '&' => out.push_str("&amp;"),
            other => out.push(other),
        }
    }
    out
}

fn dot_text(text: &str) -> String {
    format!("\"{}\"", dot_escaped(text))
}

/// Lines below each other, centred.
fn dot_label(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| dot_escaped(line)).collect();
    format!("\"{}\"", lines.join("\\n"))
}
