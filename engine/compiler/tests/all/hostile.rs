//! Inputs made to hurt: too deep, too long, too wide, and those that random damage once found.

use std::fmt::Write as _;

use super::load_text;
use super::mutations::check;

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
