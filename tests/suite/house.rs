//! The house stays in order: crates depend on each other only as the architecture says, and files stay readable.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each crate may depend on of ours, outside of tests.
const EDGES: [(&str, &[&str]); 7] = [
    ("engine/core", &[]),
    ("engine/sql", &["core"]),
    ("engine/compiler", &["core", "sql"]),
    ("engine/storage", &["core"]),
    ("engine/runtime", &["core"]),
    ("operators", &["core"]),
    ("engine/server", &["core", "sql", "compiler", "storage", "runtime", "operators"]),
];
/// Lines of a file, tests included.
const MOST_LINES: usize = 500;
/// Crates whose files may hold `DataFusion` names.
const SESSION_OWNERS: [&str; 2] = ["engine/sql", "tests"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

fn sources(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a readable source");
            found.insert(path, text);
        }
    }
}

fn all_sources() -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for folder in ["engine", "operators", "tests"] {
        sources(&root().join(folder), &mut found);
    }
    found
}

#[test]
fn crates_depend_on_each_other_as_the_architecture_says() {
    for (folder, allowed) in EDGES {
        let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
        let normal = text.split("[dev-dependencies]").next().unwrap_or_default();
        for line in normal.lines().filter(|line| line.starts_with("cornjacket-")) {
            let name = line.trim_start_matches("cornjacket-").split(['.', ' ']).next().unwrap_or_default();
            assert!(
                allowed.contains(&name),
                "{folder} depends on {name}. The arrows are in docs/architecture.md: put what both need into core, or \
                 hand it in from the server."
            );
        }
    }
}

#[test]
fn only_the_sql_crate_knows_datafusion() {
    for (path, text) in all_sources() {
        let inside = path.strip_prefix(root()).expect("inside").to_path_buf();
        if SESSION_OWNERS.iter().any(|owner| inside.starts_with(owner)) {
            continue;
        }
        assert!(!text.contains("datafusion::"), "{} uses DataFusion: put it behind a trait of core", inside.display());
    }
}

#[test]
fn files_stay_readable() {
    for (path, text) in all_sources() {
        let lines = text.lines().count();
        let shown = path.strip_prefix(root()).expect("inside").display().to_string();
        assert!(lines <= MOST_LINES, "{shown} has {lines} lines: split it by meaning (at most {MOST_LINES})");
    }
}

/// Where tests lie that are not beside the code that they test.
const TESTS: [&str; 7] = [
    "tests/suite",
    "tests/end_to_end",
    "operators/tests",
    "engine/compiler/tests",
    "engine/storage/tests",
    "engine/runtime/tests",
    "engine/server/tests",
];

#[test]
fn every_file_of_tests_is_on_its_page() {
    let page = fs::read_to_string(root().join("docs/testing.md")).expect("the page");
    // A folder that is named, with its `/`, stands for all that is in it.
    let is_place = |word: &&str| word.contains("tests/") && !word.contains(' ');
    let named: BTreeSet<&str> = page.split('`').filter(is_place).collect();
    let is_named =
        |file: &str| named.iter().any(|name| *name == file || (name.ends_with('/') && file.starts_with(name)));
    let mut files = BTreeMap::new();
    for folder in TESTS {
        sources(&root().join(folder), &mut files);
    }
    let is_list = |path: &PathBuf| path.file_name().is_some_and(|name| name == "main.rs" || name == "mod.rs");
    let there: BTreeSet<String> = files
        .keys()
        .filter(|path| !is_list(path))
        .map(|path| path.strip_prefix(root()).expect("inside").display().to_string())
        .collect();
    let missing: Vec<&String> = there.iter().filter(|file| !is_named(file)).collect();
    assert!(missing.is_empty(), "docs/testing.md does not name {missing:?}: say there which feature they test");
    let gone: Vec<&&str> = named.iter().filter(|file| !root().join(file).exists()).collect();
    assert!(gone.is_empty() && !there.is_empty(), "docs/testing.md names {gone:?}, which are not there: take them out");
}
