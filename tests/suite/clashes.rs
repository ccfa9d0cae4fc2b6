//! Sinks and sources that get in each other's way are found before they run.

use cornjacket_compiler::{load, render};
use cornjacket_operators::REGISTRY;

fn said(sources: &str, sinks: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("clash.yaml");
    let text = format!(
        "pipeline: clash\nevents: {{ sensor.reading: {{ payload: {{ value: double }} }} }}\n\
         sources: {{ {sources} }}\nsinks: {{ {sinks} }}\n"
    );
    std::fs::write(&file, text).expect("written");
    render(&load(&file, &|_| None, &REGISTRY).diagnostics, false)
}

#[test]
fn a_file_has_one_writer_and_is_not_its_own_reader() {
    let read = "import: { file: { path: data/in-*.ndjson } }";
    let write = |name: &str, path: &str| format!("{name}: {{ file: {{ from: sensor.reading, path: {path} }} }}");
    assert_eq!(said(read, &format!("{}, {}", write("a", "a.csv"), write("b", "data/out.ndjson"))), "");
    let twice = said(read, &format!("{}, {}", write("a", "out.csv"), write("b", "out.csv")));
    assert!(twice.contains("CJ409") && twice.contains("`a` and `b`"), "{twice}");
    let own = said(read, &write("a", "data/in-2.ndjson"));
    assert!(own.contains("CJ410") && own.contains("`import`"), "{own}");
}
