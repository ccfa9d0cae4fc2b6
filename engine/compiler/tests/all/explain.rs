//! `explain`: each of the four forms is exactly the file under `tests/explain/`, and each is right in its own language.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cornjacket_compiler::{Explanation, Outcome, explain, render};
use serde_json::Value;

use super::{load_example, load_file, repository};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/explain")
}

fn explanation(outcome: Outcome) -> Explanation {
    let shown = render(&outcome.diagnostics, false);
    explain(&outcome.pipeline.unwrap_or_else(|| panic!("{shown}")))
}

fn cases() -> Vec<(&'static str, Explanation)> {
    let path = |name: &str| folder().join(format!("{name}.yaml"));
    vec![
        ("iot", explanation(load_example())),
        ("moves", explanation(load_file(&path("moves")))),
        ("marks", explanation(load_file(&path("marks")))),
    ]
}

#[test]
fn every_form_is_as_written() {
    let mut wrong = Vec::new();
    for (name, explanation) in cases() {
        let forms = [
            ("txt", explanation.text()),
            ("mmd", explanation.mermaid()),
            ("dot", explanation.dot()),
            ("json", explanation.json()),
        ];
        for (ending, found) in forms {
            let expected = folder().join(format!("{name}.{ending}"));
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::write(&expected, &found).expect("a test file");
            } else if std::fs::read_to_string(&expected).unwrap_or_default() != found {
                wrong.push(format!("{}:\n{found}", expected.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "these differ (UPDATE_GOLDEN=1 accepts them):\n{}", wrong.join("\n"));
}

#[test]
fn nothing_of_the_engines_own_words_comes_through() {
    for (name, explanation) in cases() {
        let text = explanation.text();
        for word in super::golden::FOREIGN {
            assert!(!text.contains(word), "{name}: `{word}` in\n{text}");
        }
        assert!(!text.contains('@'), "{name}: {text}");
        let longest = text.lines().map(|line| line.chars().count()).max();
        assert!(longest.is_some_and(|longest| longest <= 120), "{name}: {longest:?}");
    }
}

#[test]
fn json_has_what_the_reference_says_and_its_edges_lead_to_nodes() {
    for (name, explanation) in cases() {
        let document: Value = serde_json::from_str(&explanation.json()).expect("JSON");
        assert_eq!(document["version"], 1);
        let nodes = document["nodes"].as_array().expect("nodes");
        let mut before = BTreeSet::new();
        for node in nodes {
            for input in node["inputs"].as_array().expect("inputs") {
                assert!(before.contains(input["node"].as_str().expect("a name")), "{name}: {input}");
            }
            assert!(before.insert(node["name"].as_str().expect("a name")), "{name}: twice {node}");
        }
        // Every member is described.
        let reference = std::fs::read_to_string(repository("docs/api.md")).expect("docs/api.md");
        let mut members = BTreeSet::new();
        collect_members(&document, &mut members);
        let missing: Vec<_> = members.iter().filter(|member| !reference.contains(&format!("`{member}`"))).collect();
        assert!(missing.is_empty(), "docs/api.md does not describe {missing:?}");
    }
}

fn collect_members<'a>(value: &'a Value, members: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                members.insert(name);
                collect_members(value, members);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_members(item, members)),
        _ => {}
    }
}

/// What is left of a line of Mermaid after a label in quotes, and the label.
fn label(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('"')?.split_once('"')
}

/// `n1` at the beginning of a text.
fn id(text: &str) -> Option<(&str, &str)> {
    let digits = text.strip_prefix('n')?.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len() - 1);
    (digits > 0).then(|| text.split_at(digits + 1))
}

/// A line of the part of Mermaid's language that is used: a box with a label, or an arrow.
fn check_mermaid_line<'a>(line: &'a str, boxes: &mut BTreeSet<&'a str>) -> Option<()> {
    const FORMS: [(&str, &str); 5] = [("([", "])"), ("[(", ")]"), ("[[", "]]"), ("[/", "/]"), ("[", "]")];
    let (from, rest) = id(line.strip_prefix("  ")?)?;
    if let Some(rest) = rest.strip_prefix(" -->") {
        let rest = match rest.strip_prefix('|') {
            Some(rest) => {
                let (label, rest) = label(rest)?;
                check_mermaid_label(label)?;
                rest.strip_prefix('|')?
            }
            None => rest,
        };
        let (to, end) = id(rest.strip_prefix(' ')?)?;
        return (end.is_empty() && boxes.contains(from) && boxes.contains(to)).then_some(());
    }
    let (open, close) = FORMS.iter().find(|(open, _)| rest.starts_with(&format!("{open}\"")))?;
    let (text, rest) = label(rest.strip_prefix(open)?)?;
    check_mermaid_label(text)?;
    (rest == *close && boxes.insert(from)).then_some(())
}

/// Inside of a label, `#` begins a number with a semicolon, and `<` only the break of a line.
fn check_mermaid_label(text: &str) -> Option<()> {
    let text = text.replace("<br/>", " ");
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('#') {
        check_plain(before)?;
        let (number, after) = after.split_once(';')?;
        char::from_u32(number.parse().ok()?)?;
        rest = after;
    }
    check_plain(rest)
}

fn check_plain(text: &str) -> Option<()> {
    (!text.contains(['"', '<', '>', '|', '[', ']', '{', '}', '`', '\\', '&', '\n', ';'])).then_some(())
}

#[test]
fn mermaid_is_a_flowchart_of_boxes_and_arrows() {
    for (name, explanation) in cases() {
        let text = explanation.mermaid();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("flowchart TD"));
        let mut boxes = BTreeSet::new();
        for line in lines {
            assert!(check_mermaid_line(line, &mut boxes).is_some(), "{name}: {line}");
        }
        assert_eq!(boxes.len(), explanation.sources.len() + 1 + explanation.nodes.len(), "{name}");
    }
}

/// The tokens of a dot file: words, marks, and texts in quotes (without them); `None` if one does not end.
fn dot_tokens(text: &str) -> Option<Vec<String>> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '"' => {
                let mut token = String::from("\"");
                loop {
                    match chars.next()? {
                        '\\' => token.extend(['\\', chars.next()?]),
                        '"' => break,
                        '\n' => return None,
                        other => token.push(other),
                    }
                }
                tokens.push(token);
            }
            '-' if chars.peek() == Some(&'>') => {
                chars.next();
                tokens.push("->".into());
            }
            c if c.is_alphanumeric() => {
                let mut token = String::from(c);
                while let Some(next) = chars.next_if(|c| c.is_alphanumeric()) {
                    token.push(next);
                }
                tokens.push(token);
            }
            '{' | '}' | '[' | ']' | '=' | ',' | ';' => tokens.push(c.into()),
            _ => return None,
        }
    }
    Some(tokens)
}

/// Statements of dot: `rankdir=TB`, `node [a=b, …]`, `n1 [a=b, …]`, `n1 -> n2 [a=b]`.
fn check_dot_statement(tokens: &[String]) -> Option<()> {
    let attributes = |tokens: &[String]| {
        let Some((first, rest)) = tokens.split_first() else { return Some(()) };
        let (last, inner) = rest.split_last()?;
        let all = inner.split(|token| token == ",").all(|one| matches!(one, [_, equals, _] if equals == "="));
        (first == "[" && last == "]" && all).then_some(())
    };
    match tokens {
        [_, equals, _] if equals == "=" => Some(()),
        [_, arrow, _, rest @ ..] if arrow == "->" => attributes(rest),
        [_, rest @ ..] => attributes(rest),
        [] => None,
    }
}

#[test]
fn dot_is_a_graph_of_statements() {
    for (name, explanation) in cases() {
        let text = explanation.dot();
        let tokens = dot_tokens(&text).unwrap_or_else(|| panic!("{name}: {text}"));
        let [digraph, _, open, inner @ .., close] = tokens.as_slice() else { panic!("{name}: {text}") };
        assert_eq!((digraph.as_str(), open.as_str(), close.as_str()), ("digraph", "{", "}"));
        let (last, statements) = inner.split_last().expect("statements");
        assert_eq!(last, ";");
        for statement in statements.split(|token| token == ";") {
            assert!(check_dot_statement(statement).is_some(), "{name}: {statement:?}");
        }
    }
}
