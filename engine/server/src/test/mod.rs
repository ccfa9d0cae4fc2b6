//! `cornjacket test`: runs the `tests:` of pipeline files.
//!
//! A test runs on the real door, engine and operators, over storage in memory, with time under its control; see [`world`].
//! With `--crash` each test runs again and again with the process dying at storage calls that a seed chooses, and has to
//! come out the same.

mod compare;
mod outcome;
mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use clap::Args;
use cornjacket_compiler::{Pipeline, TestAction, TestCase, TestStep, load_for_tests, render};
use cornjacket_operators::REGISTRY;
use cornjacket_operators::sinks::capture::Captured;

use crate::check::Chosen;
use crate::{Failure, INPUT_IS_WRONG};
use outcome::{Outcome, Report};
use world::World;

pub const ABOUT: &str = "\
Run the tests of pipeline files: their section `tests:`.

Each test has a clock of its own, so a test about hours takes milliseconds: it gives events, lets time go on or lets
devices fall silent, and says which rows it expects of streams, sinks, projections and dead letters. Tests run on the
same engine as `run`, over storage in memory; nothing outside is read, written or called.";

pub const EXAMPLES: &str = "\
Examples:
  cornjacket test pipelines/iot.yaml
  cornjacket test pipelines --filter hot
  cornjacket test pipelines/iot.yaml --crash 50    # each test also with 50 runs that die and recover at random points
  cornjacket test pipelines --junit report.xml

A test in the pipeline file:
  tests:
    - name: a minute is averaged
      given:
        - { event_type: sensor.reading, aggregate_id: d1, event_time: \"2026-01-01T00:00:10Z\", payload: { value: 20 } }
        - { event_type: sensor.reading, aggregate_id: d1, event_time: \"2026-01-01T00:00:50Z\", payload: { value: 30 } }
      advance_to: \"2026-01-01T00:01:00Z\"
      expect:
        minutes: [ { device: d1, avg_celsius: 25.0 } ]

Exit codes: 0 all passed, 1 a test failed or a file is wrong, 2 the environment is.";

/// Arguments of `test`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Pipeline files, or folders to look for them in.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Only tests with this text in their name.
    #[arg(long)]
    pub filter: Option<String>,
    /// Run each test this often more with crashes at random points, and expect the same.
    #[arg(long, value_name = "RUNS", num_args = 0..=1, default_missing_value = "20")]
    pub crash: Option<u32>,
    /// The seed of the random points; a failure names the one it had.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Write the results to this file as well, as `JUnit` XML.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// One JSON object a test on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Runs the tests of the files.
pub fn test(arguments: &Arguments) -> Result<(), Failure> {
    let mut report = Report::new(arguments.json);
    let Chosen { files, complaints, .. } = Chosen::by(&arguments.paths);
    if let Some(complaint) = complaints.into_iter().next() {
        return Err(Failure::Environment(anyhow!(complaint)));
    }
    for file in files {
        test_file(&file, arguments, &mut report)?;
    }
    if report.is_empty() {
        return Err(Failure::Input(match &arguments.filter {
            Some(filter) => anyhow!("no test has `{filter}` in its name"),
            None => anyhow!("there are no tests: add a section `tests:` to the pipeline file (--help shows one)"),
        }));
    }
    report.finish();
    if let Some(path) = &arguments.junit {
        std::fs::write(path, report.junit().map_err(Failure::Environment)?)
            .with_context(|| format!("{} cannot be written", path.display()))
            .map_err(Failure::Environment)?;
    }
    if report.is_good() { Ok(()) } else { Err(Failure::Told(INPUT_IS_WRONG)) }
}

fn test_file(file: &Path, arguments: &Arguments, report: &mut Report) -> Result<(), Failure> {
    let captured = Captured::default();
    let capture = |context: &_| captured.sink(context);
    let outcome = load_for_tests(file, &|name| std::env::var(name).ok(), &REGISTRY, &capture);
    let Some(pipeline) = outcome.pipeline else {
        let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
        eprintln!("{}", render(&outcome.diagnostics, colour));
        report.broken(file);
        return Ok(());
    };
    let wanted = |test: &&TestCase| arguments.filter.as_ref().is_none_or(|filter| test.name.contains(filter.as_str()));
    for test in pipeline.tests.iter().filter(wanted) {
        let started = Instant::now();
        let outcome = run_test(&pipeline, test, &captured, arguments).map_err(Failure::Environment)?;
        report.add(file, test, &outcome, started.elapsed());
    }
    Ok(())
}

/// Runs a test once as it is, and then as often as asked with crashes.
fn run_test(
    pipeline: &Pipeline,
    test: &TestCase,
    captured: &Captured,
    arguments: &Arguments,
) -> anyhow::Result<Outcome> {
    let sound = run_once(pipeline, test, captured, None)?;
    if !sound.is_good() {
        return Ok(sound);
    }
    let mut crashes = 0;
    let base = arguments.seed.unwrap_or_else(rand::random);
    for run in 0..arguments.crash.unwrap_or(0) {
        // The first run has the given seed itself, so that the one a failure names repeats it.
        let seed = base.wrapping_add(u64::from(run));
        let outcome = run_once(pipeline, test, captured, Some(seed))?;
        crashes += outcome.crashes;
        if !outcome.is_good() {
            return Ok(Outcome { seed: Some(seed), crashes, ..outcome });
        }
    }
    Ok(Outcome { crashes, ..sound })
}

fn run_once(
    pipeline: &Pipeline,
    test: &TestCase,
    captured: &Captured,
    crashes: Option<u64>,
) -> anyhow::Result<Outcome> {
    captured.clear();
    let mut world = World::new(pipeline, captured.clone(), crashes);
    let mut faults = Vec::new();
    for step in &test.steps {
        let found = take_step(&mut world, step).with_context(|| format!("the test `{}`", test.name))?;
        faults.extend(found.into_iter().map(|text| (step.place.clone(), text)));
    }
    let expects_letters = test.steps.iter().any(|step| {
        matches!(&step.action, TestAction::Expect { kind: cornjacket_compiler::TargetKind::DeadLetters, .. })
    });
    if !expects_letters {
        faults.extend(world.unexpected_letters()?.into_iter().map(|text| (test.place.clone(), text)));
    }
    Ok(Outcome { faults, crashes: world.crashes(), seed: None })
}

/// Takes a step; what is wrong, for people.
fn take_step(world: &mut World<'_>, step: &TestStep) -> anyhow::Result<Vec<String>> {
    match &step.action {
        TestAction::Given { event, at } => world.give(event, *at).map(|()| Vec::new()),
        TestAction::AdvanceTo(time) => world.advance_to(*time).map(|()| Vec::new()),
        TestAction::Silence(span) => world.silence(*span).map(|()| Vec::new()),
        TestAction::Expect { target, kind, rows } => {
            let found = world.rows(target, *kind)?;
            let Some(mut difference) = compare::difference(rows, &found) else { return Ok(Vec::new()) };
            if found.len() < compare::wanted(rows) {
                difference += &world.open_windows()?;
            }
            Ok(vec![format!("{target}: {difference}")])
        }
    }
}

/// What a test needs of its pipeline.
fn graph(pipeline: &Pipeline) -> Arc<cornjacket_core::graph::Graph> {
    Arc::clone(&pipeline.graph)
}

fn impossible(what: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{what}")
}
