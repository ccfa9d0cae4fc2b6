//! `golden/NAME.yaml` gives exactly the diagnostics of `golden/NAME.txt`. `UPDATE_GOLDEN=1` writes the latter anew.

use std::path::Path;

use cornjacket_compiler::{render, to_json};

use super::{load_file, load_text};

#[test]
fn diagnostics_are_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases.sort();
    assert!(cases.len() > 5, "the cases are gone");
    let mut wrong = Vec::new();
    for case in cases {
        let outcome = load_file(&case);
        let prefix = format!("{}/", folder.display());
        let found = render(&outcome.diagnostics, false).replace(&prefix, "");
        let expected = case.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&expected, &found).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("{}:\n{found}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "these differ (UPDATE_GOLDEN=1 accepts them):\n{}", wrong.join("\n"));
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
