//! The process that answers queries: `cornjacket run` starts it and speaks with it over its stdin and stdout
//! ([`wire`](super::workers::wire)). It ends when its stdin does, so it does not outlive who started it.

mod answer;
mod limits;
mod link;
mod tables;

use std::io::BufReader;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use anyhow::{Context, anyhow};
use cornjacket_core::guard;
use cornjacket_sql::query::{Budget, QueryEngine, QueryError, QueryOptions, STACK_BYTES};
use tokio::runtime::Runtime;

use self::limits::Watch;
use self::link::{Link, Told};
use super::format::Format;
use super::workers::wire::{self, FromWorker, Question, ToWorker};
use crate::Failure;

/// The command that it is started with.
pub const COMMAND: &str = "query-worker";

/// Answers queries until stdin ends, with the priority of who started it.
pub fn run() -> Result<(), Failure> {
    limits::give_way();
    let mut input = BufReader::new(std::io::stdin());
    let Ok(Some((ToWorker::Begin(options), _))) = wire::read(&mut input) else {
        return Err(Failure::Input(anyhow!("`cornjacket run` starts this command for its queries; nobody else need")));
    };
    // What comes later is heard beside the computation, which may ask and wait for it.
    let (link, questions) = Link::start(input).map_err(|error| Failure::Environment(error.into()))?;
    let computing = move || serve(options, &link, &questions);
    // Plans are trees, and computed by recursion.
    let thread = std::thread::Builder::new().name("query".into()).stack_size(STACK_BYTES).spawn(computing);
    let thread = thread.context("it has no thread").map_err(Failure::Environment)?;
    let outcome = thread.join().map_err(|panic| anyhow!("a bug was met: {}", guard::words_of(&*panic)));
    outcome.and_then(|outcome| outcome).map_err(Failure::Environment)
}

fn serve(options: QueryOptions, link: &Arc<Link>, told: &Receiver<Told>) -> anyhow::Result<()> {
    let engine = QueryEngine::new(options, Arc::clone(link) as Arc<dyn Budget>)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for table in 0.. {
        match told.recv()? {
            Told::Table { schema, name, columns } => {
                let table = tables::RemoteTable::new(table, columns, Arc::clone(link));
                engine.register(schema.as_deref(), &name, Arc::new(table))?;
            }
            Told::Tables => break,
            Told::Query(_) => return Err(anyhow!("a question came before the tables")),
        }
    }
    warm_up(options, &runtime)?;
    let watch = Watch::start(options.memory_bytes)?;
    while let Ok(told) = told.recv() {
        let Told::Query(question) = told else { continue };
        let watched = watch.begin();
        let (error, is_sound) = outcome_of(&engine, &runtime, &question, link);
        drop(watched);
        link.say(&FromWorker::Done { error, is_fit: is_sound && watch.is_small() }, &[]);
    }
    Ok(())
}

/// Computes an answer; gives why it is not whole, and whether nothing unforeseen has happened.
fn outcome_of(engine: &QueryEngine, runtime: &Runtime, question: &Question, link: &Link) -> (Option<QueryError>, bool) {
    let give = |piece: &[u8]| link.say(&FromWorker::Piece, piece);
    let answering = AssertUnwindSafe(|| runtime.block_on(answer::answer(engine, question, &give)));
    match catch_unwind(answering) {
        Ok(outcome) => (outcome.err(), true),
        Err(panic) => {
            let message = format!("this cannot be computed; a bug was met: {}", guard::words_of(&*panic));
            (Some(QueryError::Invalid { message, hint: None }), false)
        }
    }
}

/// What is made when it is first used is made before anyone waits for it. Nobody listens yet, so nobody is asked for memory.
fn warm_up(options: QueryOptions, runtime: &Runtime) -> Result<(), QueryError> {
    struct Plenty;

    impl Budget for Plenty {
        fn take(&self, _: usize) -> bool {
            true
        }

        fn give(&self, _: usize) {}
    }

    let engine = QueryEngine::new(options, Arc::new(Plenty))?;
    let sql = "SELECT a, count(*) AS n FROM (VALUES (1), (2)) t(a) WHERE a > 1 GROUP BY a ORDER BY a".to_string();
    let question = Question { sql, params: Vec::new(), format: Format::Json, limit: 10 };
    runtime.block_on(answer::answer(&engine, &question, &|_| {}))
}
