//! `cornjacket`: one binary that turns a YAML file with SQL in it into a durable, event-driven CQRS system.

/// Threads that give memory to each other and take it from each other all the time, as doors and engine do, wait for each
/// other in the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod actions;
mod audit;
mod bench;
mod check;
mod cli;
mod client;
mod completions;
mod dead_letters;
mod deliveries;
mod dlq;
mod environment;
mod explain;
mod folder;
mod http;
mod init;
mod keys;
mod logging;
mod memory;
mod metrics;
mod mqtt_url;
mod query;
mod remote;
mod retry_after;
mod run;
mod schema;
mod send;
mod tail;
mod test;

use std::process::ExitCode;

use clap::Parser;

/// The input is wrong: a pipeline file, SQL, a flag's value.
const INPUT_IS_WRONG: u8 = 1;
/// The environment is: a port in use, a folder that cannot be written, a process that is not there.
const ENVIRONMENT_IS_WRONG: u8 = 2;

/// How a command ended, when not well.
#[derive(Debug)]
enum Failure {
    /// Already told to the user.
    Told(u8),
    /// The input is wrong.
    Input(anyhow::Error),
    /// The environment is wrong.
    Environment(anyhow::Error),
}

/// A panic that costs a row and no more is told with the row, and alarms nobody.
fn keep_quiet_about_guarded_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !cornjacket_core::guard::is_guarded() {
            usual(panic);
        }
    }));
}

fn main() -> ExitCode {
    keep_quiet_about_guarded_panics();
    // Not a command for people, so it is neither in the help nor in completions.
    if std::env::args_os().nth(1).is_some_and(|command| command == query::worker::COMMAND) {
        return ended(query::worker::run());
    }
    let arguments = match cli::Cli::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help is asked for; everything else is wrong input. Printing fails only where nobody reads.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { INPUT_IS_WRONG } else { 0 });
        }
    };
    let outcome = match arguments.command {
        cli::Command::Run(arguments) => run::run(&arguments),
        cli::Command::Check(arguments) => check::check(&arguments),
        cli::Command::Explain(arguments) => explain::explain(&arguments),
        cli::Command::Test(arguments) => test::test(&arguments),
        cli::Command::Send(arguments) => send::send(&arguments),
        cli::Command::Tail(arguments) => tail::tail(&arguments),
        cli::Command::Query(arguments) => client::query(&arguments),
        cli::Command::Dlq(arguments) => dlq::dlq(&arguments),
        cli::Command::Audit(arguments) => audit::command(&arguments),
        cli::Command::Bench(arguments) => bench::bench(&arguments),
        cli::Command::Deliveries(arguments) => deliveries::deliveries(&arguments),
        cli::Command::Init(arguments) => init::init(&arguments),
        cli::Command::Schema(arguments) => schema::schema(&arguments),
        cli::Command::Completions(arguments) => {
            completions::completions(&arguments);
            Ok(())
        }
    };
    ended(outcome)
}

fn ended(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Told(code)) => ExitCode::from(code),
        Err(Failure::Input(error)) => fail(&error, INPUT_IS_WRONG),
        Err(Failure::Environment(error)) => fail(&error, ENVIRONMENT_IS_WRONG),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    // Whoever reads the output has seen enough (`| head`).
    let gone = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::BrokenPipe;
    if error.chain().any(|cause| cause.downcast_ref().is_some_and(gone)) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {error:#}");
    ExitCode::from(code)
}
