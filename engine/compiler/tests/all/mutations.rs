//! No input makes the compiler panic or hang, and every place it names lies in its file.
//!
//! Good and broken pipelines are damaged at random: characters, lines, words and SQL. `RUNS=1000000` makes it long, `SEED=n`
//! repeats a run. What it found stands in `hostile.rs`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cornjacket_compiler::{Outcome, render, to_json};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::golden::FOREIGN;
use super::{load_text, repository};

/// Pieces that mean something to YAML, to SQL or to the compiler.
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

/// Words and signs of SQL.
const SQL: [&str; 48] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "HAVING",
    "ORDER BY 1",
    "LIMIT 1",
    "UNION ALL",
    "UNION",
    "EXCEPT",
    "JOIN",
    "ON",
    "CROSS JOIN",
    "AS",
    "AS x",
    "DISTINCT",
    "CASE WHEN",
    "THEN",
    "ELSE",
    "END",
    "NULL",
    "IS NULL",
    "NOT",
    "AND",
    "OR",
    "IN (1, 2)",
    "BETWEEN 1 AND 2",
    "LIKE '%'",
    "count(*)",
    "avg(value)",
    "first_value(unit ORDER BY value)",
    "OVER ()",
    "tumble(interval '1 minute')",
    "window.start",
    "interval '1 month'",
    "CAST(value AS",
    "WITH a AS (SELECT 1)",
    "*",
    ",",
    "(",
    ")",
    "+",
    "||",
    "->>",
    "'a'",
    "1e999",
    "-9223372036854775808",
    "unnest(make_array(1))",
];

/// The files that are damaged.
fn seeds() -> Vec<String> {
    let sql = std::fs::read_to_string(repository("sql/device_minute.sql")).expect("a test file");
    let indented: String = sql.lines().map(|line| format!("    {line}\n")).collect();
    let mut seeds = Vec::new();
    for folder in ["pipelines", "engine/compiler/tests/golden", "engine/compiler/tests/broken"] {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(repository(folder))
            .expect("a test file")
            .map(|entry| entry.expect("a test file").path())
            .collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        paths.sort();
        seeds.extend(paths.iter().filter_map(|path| std::fs::read_to_string(path).ok()));
    }
    for seed in &mut seeds {
        *seed = seed.replace("{ sql_file: ../sql/device_minute.sql }", &format!("|\n{indented}"));
    }
    // The whole example is worth as much as many small files.
    let example = seeds.iter().find(|seed| seed.contains("pipeline: iot")).expect("the example").clone();
    seeds.extend(std::iter::repeat_n(example, 40));
    seeds
}

fn damaged(seeds: &[String], random: &mut ChaCha8Rng) -> String {
    let mut text = seeds.choose(random).cloned().unwrap_or_default();
    for _ in 0..random.random_range(1..4) {
        text = match random.random_range(0..4) {
            0 => characters(&text, random),
            1 => lines(&text, seeds, random),
            2 => words(&text, random),
            _ => sql(&text, random),
        };
    }
    text
}

/// Takes out, puts in or copies a few characters.
fn characters(text: &str, random: &mut ChaCha8Rng) -> String {
    let mut text: Vec<char> = text.chars().collect();
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
    text.into_iter().collect()
}

/// Drops, doubles, moves or shifts a line, or takes one from another file.
fn lines(text: &str, seeds: &[String], random: &mut ChaCha8Rng) -> String {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    if lines.is_empty() {
        return text.to_string();
    }
    let at = random.random_range(0..lines.len());
    let line = lines[at];
    let shifted = format!("{}{}", " ".repeat(random.random_range(0..5)), line.trim_start_matches(' '));
    match random.random_range(0..5) {
        0 => {
            lines.remove(at);
        }
        1 => lines.insert(at, line),
        2 => {
            let other = random.random_range(0..lines.len());
            lines.swap(at, other);
        }
        3 => lines[at] = &shifted,
        _ => {
            let other: Vec<&str> = seeds.choose(random).map_or("", String::as_str).split_inclusive('\n').collect();
            lines.insert(at, other.choose(random).copied().unwrap_or("\n"));
        }
    }
    lines.concat()
}

/// Exchanges two words of the file, or puts one in place of another.
fn words(text: &str, random: &mut ChaCha8Rng) -> String {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
    let mut spans = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (is_word(c), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                spans.push(from..at);
                start = None;
            }
            _ => {}
        }
    }
    let (Some(a), Some(b)) = (spans.choose(random).cloned(), spans.choose(random).cloned()) else {
        return text.to_string();
    };
    let (first, second) = if a.start <= b.start { (a, b) } else { (b, a) };
    if first == second {
        return text.to_string();
    }
    let back = if random.random_bool(0.5) { &text[first.clone()] } else { &text[second.clone()] };
    let parts =
        [&text[..first.start], &text[second.clone()], &text[first.end..second.start], back, &text[second.end..]];
    parts.concat()
}

/// Puts a piece of SQL before or in place of a word.
fn sql(text: &str, random: &mut ChaCha8Rng) -> String {
    let spaces: Vec<usize> = text.match_indices(' ').map(|(at, _)| at).collect();
    let Some(at) = spaces.choose(random).copied() else { return text.to_string() };
    let rest = &text[at + 1..];
    let end = if random.random_bool(0.5) { rest.find([' ', '\n']).unwrap_or(0) } else { 0 };
    let space = if end > 0 { "" } else { " " };
    format!("{} {}{space}{}", &text[..at], SQL.choose(random).copied().unwrap_or_default(), &rest[end..])
}

/// What holds of every outcome.
pub(super) fn check(outcome: &Outcome) {
    for diagnostic in &outcome.diagnostics {
        assert!(!diagnostic.message.is_empty());
        let Some(place) = &diagnostic.place else { continue };
        assert!(place.span.start <= place.span.end && place.span.end <= place.file.text.len(), "{diagnostic:?}");
        assert!(place.file.text.get(place.span.clone()).is_some(), "whole characters: {diagnostic:?}");
    }
    assert!(outcome.pipeline.is_some() || !outcome.diagnostics.is_empty(), "wrong, and nobody says why");
    assert!(!render(&outcome.diagnostics, true).is_empty() || outcome.diagnostics.is_empty());
    assert!(to_json(&outcome.diagnostics).is_array());
}

/// Ends the process when one input takes too long, and shows the input.
struct Watch(Arc<Mutex<(Instant, String)>>);

/// The input that is worked on, if that takes too long. The lock is free again afterwards.
fn late(current: &Mutex<(Instant, String)>) -> Option<String> {
    let current = current.lock().expect("a test file");
    (current.0.elapsed() > PATIENCE).then(|| current.1.clone())
}

const PATIENCE: Duration = Duration::from_mins(1);

impl Watch {
    fn start() -> Self {
        let current = Arc::new(Mutex::new((Instant::now(), String::new())));
        let watched = Arc::downgrade(&current);
        std::thread::spawn(move || {
            while let Some(current) = watched.upgrade() {
                if let Some(input) = late(&current) {
                    eprintln!("an input takes longer than {PATIENCE:?}:\n{input}");
                    std::process::abort();
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        Self(current)
    }

    fn now_at(&self, input: &str) {
        *self.0.lock().expect("a test file") = (Instant::now(), input.to_string());
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn damaged_files_never_panic_or_hang() {
    let seed = number("SEED").unwrap_or_else(rand::random);
    let runs = number("RUNS").unwrap_or(600);
    println!("SEED={seed} RUNS={runs}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let seeds = seeds();
    let watch = Watch::start();
    let mut codes: BTreeMap<&str, u64> = BTreeMap::new();
    let mut slowest = Duration::ZERO;
    for run in 0..runs {
        let input = damaged(&seeds, &mut random);
        watch.now_at(&input);
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let outcome = load_text(&input);
            check(&outcome);
            outcome
        }));
        let outcome = outcome.unwrap_or_else(|_| panic!("run {run} of seed {seed} panics on:\n{input}"));
        slowest = slowest.max(began.elapsed());
        for diagnostic in &outcome.diagnostics {
            *codes.entry(diagnostic.code).or_default() += 1;
            // The engine behind the SQL panicked, which is contained, or speaks for itself: worth a look.
            let foreign = FOREIGN.iter().any(|word| diagnostic.message.contains(word));
            if diagnostic.code == "CJ308" || foreign {
                println!("{}: {}", diagnostic.code, diagnostic.message);
            }
            if diagnostic.code == "CJ308" {
                println!("{input}\n");
            }
        }
        if run % 10_000 == 9_999 {
            println!("{} files, slowest {slowest:?}", run + 1);
        }
    }
    println!("{codes:?}");
}
