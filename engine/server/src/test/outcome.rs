//! What came of tests: for people as they run, for programs as JSON lines or `JUnit` XML.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cornjacket_compiler::TestCase;
use cornjacket_core::diagnostic::Place;
use quick_junit::{NonSuccessKind, Report as JUnit, TestCase as JUnitCase, TestCaseStatus, TestSuite};
use serde_json::json;

/// What came of a test.
pub(super) struct Outcome {
    /// What was wrong, with the step it was wrong at.
    pub(super) faults: Vec<(Place, String)>,
    /// How often the process died on the way.
    pub(super) crashes: u32,
    /// The seed of the run that failed, if crashes made it fail.
    pub(super) seed: Option<u64>,
}

impl Outcome {
    pub(super) fn is_good(&self) -> bool {
        self.faults.is_empty()
    }
}

struct Done {
    file: PathBuf,
    name: String,
    fault: Option<String>,
    elapsed: Duration,
}

/// Collects outcomes and shows each as it comes.
pub(super) struct Report {
    is_json: bool,
    done: Vec<Done>,
    broken: Vec<PathBuf>,
    crashes: u32,
}

impl Report {
    pub(super) fn new(is_json: bool) -> Self {
        Self { is_json, done: Vec::new(), broken: Vec::new(), crashes: 0 }
    }

    /// A file whose tests cannot run; what is wrong with it was shown.
    pub(super) fn broken(&mut self, file: &Path) {
        if self.is_json {
            let message = "the file has errors; `cornjacket check` shows them";
            println!("{}", json!({"file": file.display().to_string(), "ok": false, "message": message}));
        }
        self.broken.push(file.to_path_buf());
    }

    pub(super) fn add(&mut self, file: &Path, test: &TestCase, outcome: &Outcome, elapsed: Duration) {
        self.crashes += outcome.crashes;
        let fault = (!outcome.is_good()).then(|| text(outcome));
        let (line, _) = test.place.file.line_column(test.place.span.start);
        if self.is_json {
            let fault = fault.as_ref();
            let row = json!({
                "file": file.display().to_string(), "line": line, "name": test.name, "ok": fault.is_none(),
                "message": fault, "crashes": outcome.crashes, "milliseconds": elapsed.as_millis(),
            });
            println!("{row}");
        } else {
            let verdict = if fault.is_none() { "ok  " } else { "FAIL" };
            println!("{verdict} {}:{line} {}", file.display(), test.name);
            for line in fault.iter().flat_map(|fault| fault.lines()) {
                println!("     {line}");
            }
        }
        self.done.push(Done { file: file.to_path_buf(), name: test.name.clone(), fault, elapsed });
    }

    pub(super) fn is_good(&self) -> bool {
        self.broken.is_empty() && self.done.iter().all(|done| done.fault.is_none())
    }

    /// Whether there was anything to run.
    pub(super) fn is_empty(&self) -> bool {
        self.done.is_empty() && self.broken.is_empty()
    }

    /// Says how many passed.
    pub(super) fn finish(&self) {
        let failed = self.done.iter().filter(|done| done.fault.is_some()).count();
        let mut parts = vec![format!("{} passed", self.done.len() - failed)];
        if failed > 0 {
            parts.push(format!("{failed} failed"));
        }
        if !self.broken.is_empty() {
            parts.push(format!("{} that cannot run", counted(self.broken.len(), "file")));
        }
        if self.crashes > 0 {
            parts.push(format!("{} survived", counted(self.crashes as usize, "crash")));
        }
        let text = parts.join(", ");
        // Programs read stdout line by line.
        if self.is_json { eprintln!("{text}") } else { println!("{text}") }
    }

    /// All of it as `JUnit` XML, a suite a file.
    pub(super) fn junit(&self) -> anyhow::Result<String> {
        let mut report = JUnit::new("cornjacket");
        let mut files: Vec<&PathBuf> = self.done.iter().map(|done| &done.file).chain(&self.broken).collect();
        files.dedup();
        for file in files {
            let name = file.display().to_string();
            let mut suite = TestSuite::new(name.clone());
            for done in self.done.iter().filter(|done| done.file == *file) {
                let status = done.fault.as_ref().map_or_else(TestCaseStatus::success, |fault| failure(fault));
                let mut case = JUnitCase::new(done.name.clone(), status);
                case.set_classname(name.clone()).set_time(done.elapsed);
                suite.add_test_case(case);
            }
            if self.broken.contains(file) {
                let fault = failure("the file has errors; `cornjacket check` shows them");
                suite.add_test_case(JUnitCase::new("the file is right", fault));
            }
            report.add_test_suite(suite);
        }
        Ok(report.to_string()?)
    }
}

fn failure(text: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_message(text.lines().next().unwrap_or_default()).set_description(text);
    status
}

fn counted(number: usize, what: &str) -> String {
    match (number, what.ends_with("sh")) {
        (1, _) => format!("1 {what}"),
        (_, true) => format!("{number} {what}es"),
        (_, false) => format!("{number} {what}s"),
    }
}

fn text(outcome: &Outcome) -> String {
    let mut parts = Vec::new();
    if let Some(seed) = outcome.seed {
        parts.push(format!("only after crashes: repeat it with --crash 1 --seed {seed}"));
    }
    for (place, text) in &outcome.faults {
        let (line, _) = place.file.line_column(place.span.start);
        parts.push(format!("line {line}: {text}"));
    }
    parts.join("\n")
}
