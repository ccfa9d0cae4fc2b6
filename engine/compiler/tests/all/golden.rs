//! `NAME.yaml` gives exactly the diagnostics of the `NAME.txt` beside it. `UPDATE_GOLDEN=1` writes the latter anew.
//!
//! `golden/` has whole files with many faults, which show that all are found together; `broken/` has one mistake a file,
//! as people make them, which shows that each message alone is enough to correct it.

use std::path::{Path, PathBuf};

use cornjacket_compiler::{Outcome, render, to_json};
use cornjacket_core::diagnostic::Severity;

use super::{REGISTRY, environment, load_file, load_text};

fn cases(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut cases: Vec<_> =
        std::fs::read_dir(&folder).expect("a test file").map(|entry| entry.expect("a test file").path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases.sort();
    cases
}

/// The cases whose diagnostics are not as written, with what they are.
fn differing(cases: &[PathBuf]) -> Vec<String> {
    let mut wrong = Vec::new();
    for case in cases {
        let outcome = load_file(case);
        let prefix = format!("{}/", case.parent().expect("a test file").display());
        let found = render(&outcome.diagnostics, false).replace(&prefix, "");
        let expected = case.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&expected, &found).expect("a test file");
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("{}:\n{found}", case.display()));
        }
    }
    wrong
}

#[test]
fn diagnostics_are_as_written() {
    let cases = cases("golden");
    assert!(cases.len() > 5, "the cases are gone");
    let wrong = differing(&cases);
    assert!(wrong.is_empty(), "these differ (UPDATE_GOLDEN=1 accepts them):\n{}", wrong.join("\n"));
}

#[test]
fn every_mistake_has_the_message_that_corrects_it() {
    let cases = cases("broken");
    assert!(cases.len() > 300, "the cases are gone");
    let wrong = differing(&cases);
    assert!(wrong.is_empty(), "these differ (UPDATE_GOLDEN=1 accepts them):\n{}", wrong.join("\n"));
}

/// Names of the engine's own types and phases mean nothing to who wrote the file.
pub(super) const FOREIGN: [&str; 14] = [
    "Utf8",
    "Int64",
    "Float64",
    "Timestamp(",
    "Struct(",
    "Interval(",
    "Schema error",
    "type_coercion",
    "Error during",
    "This feature",
    "Datafusion",
    "LogicalPlan",
    "Internal error",
    "Arrow error",
];

/// One mistake gives one message or few, each with a way out, in the words of the file.
#[test]
fn messages_are_few_helpful_and_in_our_words() {
    let mut wrong = Vec::new();
    for case in cases("broken") {
        let name = case.file_stem().unwrap().to_string_lossy().into_owned();
        let diagnostics = load_file(&case).diagnostics;
        for diagnostic in &diagnostics {
            let hint = diagnostic.hint.as_deref().unwrap_or_default();
            let said = format!("{name}: {}: {hint}", diagnostic.message);
            if hint.is_empty() {
                wrong.push(format!("no help: {said}"));
            }
            wrong.extend(FOREIGN.iter().filter(|word| said.contains(*word)).map(|word| format!("`{word}`: {said}")));
        }
        let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
        if diagnostics.is_empty() || errors > 3 {
            wrong.push(format!("{name}: {errors} errors"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let text = |path: &Path| render(&load_file(path).diagnostics, false);
    assert!(text(&folder.path().join("none.yaml")).contains("does not exist"));
    assert!(text(folder.path()).contains("is a folder"));
    let bytes = folder.path().join("bytes.yaml");
    std::fs::write(&bytes, b"pipeline: x\n\xff\xfe").unwrap();
    assert!(text(&bytes).contains("is not UTF-8 text (line 2)"));
    std::fs::write(&bytes, vec![b'#'; 5 << 20]).unwrap();
    assert!(text(&bytes).contains("is larger than 4 MiB"));
}

#[test]
fn variables_without_a_default_are_warned_of_by_check_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipeline.yaml");
    let text = "pipeline: x\nevents: { a.b: {} }\ntopics: { system-events: { partitions: \"${CJ_PARTITIONS}\" } }\n\
                description: \"${CJ_KEY:-none} $${CJ_KEY}\"\n";
    std::fs::write(&path, text).unwrap();
    let codes = |outcome: Outcome| outcome.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>();
    assert_eq!(codes(cornjacket_compiler::check(&path, &environment, &REGISTRY)), ["CJ407", "CJ406", "CJ013"]);
    assert_eq!(codes(load_file(&path)), ["CJ407", "CJ406"]);
}

#[test]
fn json_has_places_in_lines_and_columns() {
    let outcome = load_text("pipeline: x\nsourcez: {}\n");
    let json = to_json(&outcome.diagnostics);
    assert_eq!(json[0]["code"], "CJ006");
    assert_eq!((json[0]["line"].as_u64(), json[0]["column"].as_u64()), (Some(2), Some(1)));
    assert_eq!((json[0]["end_line"].as_u64(), json[0]["end_column"].as_u64()), (Some(2), Some(8)));
    assert!(json[0]["help"].as_str().unwrap().contains("sources"));
}

#[test]
fn colours_come_when_asked_for() {
    let outcome = load_text("pipeline: X\n");
    assert!(!render(&outcome.diagnostics, false).contains('\u{1b}'));
    assert!(render(&outcome.diagnostics, true).contains('\u{1b}'));
}
