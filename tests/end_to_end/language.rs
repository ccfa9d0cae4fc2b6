//! The examples of the documents, as they stand there.

use std::path::{Path, PathBuf};

use crate::process::output;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The YAML blocks of a document that are whole pipelines.
fn examples(document: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository(document)).expect("a document");
    let blocks = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_string());
    blocks.filter(|block| block.starts_with("pipeline:")).collect()
}

/// Writes each example into a file of its own.
fn written(documents: &[&str]) -> (tempfile::TempDir, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let all: Vec<String> = documents.iter().flat_map(|document| examples(document)).collect();
    for (number, text) in all.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{number:02}.yaml")), text).expect("written");
    }
    (folder, all.len())
}

#[test]
fn every_example_is_right_and_passes_its_tests_over_crashes_too() {
    let (folder, count) = written(&["docs/language.md", "README.md"]);
    assert!(count >= 7, "the language page has its examples");
    let path = folder.path().to_str().expect("UTF-8");
    let check = output(&["check", path]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!(check.status.code(), Some(0), "{said}");
    assert!(!said.contains("warning"), "{said}");
    for arguments in [vec!["test", path], vec!["test", path, "--crash", "5"]] {
        let test = output(&arguments);
        let said = String::from_utf8_lossy(&test.stdout).into_owned() + &String::from_utf8_lossy(&test.stderr);
        assert_eq!(test.status.code(), Some(0), "{said}");
    }
}

#[test]
fn the_example_pipelines_pass_their_tests() {
    let test = output(&["test", repository("pipelines").to_str().expect("UTF-8"), "--crash", "5"]);
    let said = String::from_utf8_lossy(&test.stdout).into_owned() + &String::from_utf8_lossy(&test.stderr);
    assert_eq!(test.status.code(), Some(0), "{said}");
    assert!(said.contains("crashes survived"), "{said}");
}

/// A test that should fail does, says why at its line, and in `JUnit`'s form as well.
#[test]
fn a_failing_test_names_its_line_and_what_differs() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, junit) = (folder.path().join("wrong.yaml"), folder.path().join("report.xml"));
    let text = examples("docs/language.md")
        .remove(0)
        .replace("{ aggregate_id: kitchen, celsius: 21 }", "{ aggregate_id: kitchen, celsius: 99 }");
    std::fs::write(&file, text).expect("written");
    let (path, report) = (file.to_str().expect("UTF-8"), junit.to_str().expect("UTF-8"));
    let test = output(&["test", path, "--junit", report]);
    let said = String::from_utf8_lossy(&test.stdout).into_owned();
    assert_eq!(test.status.code(), Some(1), "{said}");
    assert!(said.contains("line 25: newest:") && said.contains("celsius: expected 99, found 21.0"), "{said}");
    let report = std::fs::read_to_string(junit).expect("a report");
    assert!(report.contains("failures=\"1\"") && report.contains("the newest reading stays"), "{report}");
    let json = output(&["test", path, "--json"]);
    let row: serde_json::Value = serde_json::from_slice(&json.stdout).expect("a line of JSON");
    assert_eq!((&row["ok"], &row["line"]), (&false.into(), &19.into()), "{row}");
}
