//! `docs/diagnostics.md` lists every code that the sources use, and no other.

use std::collections::BTreeSet;
use std::path::Path;

use super::repository;

fn codes(text: &str) -> BTreeSet<String> {
    let is_code = |part: &&str| part.len() >= 3 && part.as_bytes()[..3].iter().all(u8::is_ascii_digit);
    text.split("CJ").skip(1).filter(is_code).map(|part| format!("CJ{}", &part[..3])).collect()
}

fn sources(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a text");
            found.extend(codes(&text));
        }
    }
}

#[test]
fn every_code_is_documented_and_none_is_invented() {
    let mut used = BTreeSet::new();
    for folder in ["engine/compiler/src", "engine/sql/src"] {
        sources(&repository(folder), &mut used);
    }
    let document = std::fs::read_to_string(repository("docs/diagnostics.md")).unwrap();
    let headings: String = document.lines().filter(|line| line.starts_with("### ")).collect::<Vec<_>>().join("\n");
    let documented = codes(&headings);
    let missing: Vec<_> = used.difference(&documented).collect();
    assert!(missing.is_empty(), "give these a heading `### CJxxx …` in docs/diagnostics.md: {missing:?}");
    let invented: Vec<_> = documented.difference(&used).collect();
    assert!(invented.is_empty(), "no source uses these; remove them from docs/diagnostics.md: {invented:?}");
}
