//! No input makes the compiler panic, and every place it names lies in its file.

use std::fmt::Write as _;

use cornjacket_compiler::{Outcome, render, to_json};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{load_text, repository};

/// Pieces that mean something to YAML, to SQL or to the compiler.
const PIECES: [&str; 32] = [
    "\n",
    "  ",
    "\t",
    ":",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "'",
    "\"",
    "|",
    ">-",
    "&a ",
    "*a",
    "<<: *a",
    "#",
    "!!int ",
    "${",
    "${X}",
    "${CJ_KEY}",
    "null",
    "~",
    "é",
    "\u{feff}",
    "\0",
    "---\n",
    "SELECT",
    "tumble(interval '1 minute')",
    "list<",
    "-1",
    ".nan",
];

fn mutated(text: &str, random: &mut ChaCha8Rng) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=text.len());
        let until = (at + random.random_range(0..12)).min(text.len());
        match random.random_range(0..3) {
            0 => {
                text.drain(at..until);
            }
            1 => {
                let piece = PIECES.choose(random).copied().unwrap_or_default();
                text.splice(at..at, piece.chars());
            }
            _ => {
                let copy: Vec<char> = text[at..until].to_vec();
                let to = random.random_range(0..=text.len());
                text.splice(to..to, copy);
            }
        }
    }
    text.into_iter().collect()
}

fn check(outcome: &Outcome) {
    for diagnostic in &outcome.diagnostics {
        assert!(!diagnostic.message.is_empty());
        let Some(place) = &diagnostic.place else { continue };
        assert!(place.span.start <= place.span.end && place.span.end <= place.file.text.len(), "{diagnostic:?}");
        assert!(place.file.text.get(place.span.clone()).is_some(), "whole characters: {diagnostic:?}");
    }
    assert!(!render(&outcome.diagnostics, true).is_empty() || outcome.diagnostics.is_empty());
    assert!(to_json(&outcome.diagnostics).is_array());
}

#[test]
fn mutated_files_never_panic() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("SEED={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let sql = std::fs::read_to_string(repository("sql/device_minute.sql")).unwrap();
    let indented = sql.lines().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "    {line}");
        text
    });
    let example = std::fs::read_to_string(repository("pipelines/iot.yaml")).unwrap();
    let example = example.replace("{ sql_file: ../sql/device_minute.sql }", &format!("|\n{indented}"));
    check(&load_text(&example));
    for _ in 0..600 {
        check(&load_text(&mutated(&example, &mut random)));
    }
}

#[test]
fn hostile_files_are_refused_in_bounded_time_and_stack() {
    let deep = |open: &str, close: &str| format!("pipeline: {}{}\n", open.repeat(20_000), close.repeat(20_000));
    let laughs = (1..12).fold("a0: &a0 [x, x]\n".to_string(), |mut text, n| {
        let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
        let _ = writeln!(text, "a{n}: &a{n} [{aliases}]");
        text
    });
    let lists = format!(
        "pipeline: x\nevents: {{ a.b: {{ payload: {{ v: '{}int{}' }} }} }}\n",
        "list<".repeat(50_000),
        ">".repeat(50_000)
    );
    let block = (0..3_000).fold("pipeline: x\nsinks:\n".to_string(), |mut text, depth| {
        let _ = writeln!(text, "{}a:", " ".repeat(depth + 1));
        text
    });
    let wide = (0..30_000).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "x{n}: 1");
        text
    });
    for text in [
        deep("[", "]"),
        deep("{a: ", "}"),
        laughs,
        lists,
        block,
        wide,
        String::new(),
        "\u{feff}".into(),
        "- a\n".into(),
    ] {
        let outcome = load_text(&text);
        assert!(outcome.pipeline.is_none() && !outcome.diagnostics.is_empty());
        check(&outcome);
    }
}

/// Whatever becomes of such SQL, the compiler is still there afterwards.
#[test]
fn hostile_sql_does_not_exhaust_the_stack() {
    let head = "pipeline: x\nevents: { a.b: { payload: { v: int } } }\nstreams:\n  s: ";
    let parentheses = format!("SELECT {}v{} AS v FROM a.b", "(".repeat(5_000), ")".repeat(5_000));
    let sum = format!("SELECT v{} AS v FROM a.b", " + v".repeat(500));
    let queries = format!("SELECT v FROM {}a.b{}", "(SELECT v FROM ".repeat(300), ")".repeat(300));
    let unions = format!("SELECT v FROM a.b{}", " UNION ALL SELECT v FROM a.b".repeat(1_000));
    let long = format!("SELECT v FROM a.b WHERE v = 1{}", "0".repeat(40_000));
    for sql in [parentheses, sum, queries, unions, long] {
        check(&load_text(&format!("{head}{sql}\n")));
    }
}
