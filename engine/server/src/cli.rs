//! The command line.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::actions::Nets;
use crate::memory::Memory;
use crate::mqtt_url::MqttUrl;
use crate::remote::Where;
use crate::{audit, bench, check, completions, deliveries, dlq, explain, init, schema, send, tail, test};

/// Turns a YAML file with SQL in it into a durable, event-driven system.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true, after_help = paragraphs(FIRST_STEPS))]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const FIRST_STEPS: &str = "\
Example:
  cornjacket check pipelines/iot.yaml
  cornjacket run pipelines/iot.yaml
  cornjacket query 'SELECT * FROM sensor_state'

`cornjacket run --help` has every flag, its environment variable, and what to send.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a pipeline: take events in, compute, and answer queries.
    #[command(long_about = paragraphs(RUN), after_long_help = paragraphs(RUN_EXAMPLES))]
    Run(Run),
    /// Say everything that is wrong with pipeline files, without running them.
    #[command(long_about = paragraphs(check::ABOUT), after_long_help = paragraphs(check::EXAMPLES))]
    Check(check::Arguments),
    /// Show what a pipeline compiles to, or what a running one waits for.
    #[command(long_about = paragraphs(explain::ABOUT), after_long_help = paragraphs(explain::EXAMPLES))]
    Explain(explain::Arguments),
    /// Run the tests of pipeline files, with time under their control.
    #[command(long_about = paragraphs(test::ABOUT), after_long_help = paragraphs(test::EXAMPLES))]
    Test(test::Arguments),
    /// Send events: one, a file, or an event a line on stdin.
    #[command(long_about = paragraphs(send::ABOUT), after_long_help = paragraphs(send::EXAMPLES))]
    Send(send::Arguments),
    /// Follow a projection or an event type as it changes.
    #[command(long_about = paragraphs(tail::ABOUT), after_long_help = paragraphs(tail::EXAMPLES))]
    Tail(tail::Arguments),
    /// Ask a running pipeline something in SQL.
    #[command(long_about = paragraphs(QUERY), after_long_help = paragraphs(QUERY_EXAMPLES))]
    Query(Query),
    /// Look at dead letters, put them right, and send them through the door again.
    #[command(long_about = paragraphs(dlq::ABOUT), after_long_help = paragraphs(dlq::EXAMPLES))]
    Dlq(dlq::Arguments),
    /// Say whether every event and every row is accounted for.
    #[command(long_about = paragraphs(audit::ABOUT), after_long_help = paragraphs(audit::EXAMPLES))]
    Audit(audit::Arguments),
    /// Measure what a pipeline takes on this machine.
    #[command(long_about = paragraphs(bench::ABOUT), after_long_help = paragraphs(bench::EXAMPLES))]
    Bench(bench::Arguments),
    /// Look at what is sent outside, and send it again.
    #[command(long_about = paragraphs(deliveries::ABOUT), after_long_help = paragraphs(deliveries::EXAMPLES))]
    Deliveries(deliveries::Arguments),
    /// Make a new project that runs.
    #[command(long_about = paragraphs(init::ABOUT), after_long_help = paragraphs(init::EXAMPLES))]
    Init(init::Arguments),
    /// Print the JSON Schema of the pipeline file, for editors.
    #[command(long_about = paragraphs(schema::ABOUT), after_long_help = paragraphs(schema::EXAMPLES))]
    Schema(schema::Arguments),
    /// Print a script that lets a shell complete commands.
    #[command(long_about = paragraphs(completions::ABOUT), after_long_help = paragraphs(completions::EXAMPLES))]
    Completions(completions::Arguments),
}

const RUN: &str = "\
Run a pipeline: take events in over HTTP, store every one before it is answered, run the pipeline's SQL over them, keep
its projections up to date and answer queries.

Everything is kept in one data folder; nothing else needs to be installed. The process may be killed at any moment: what
was answered with 202 is stored, and the next start goes on where this one left off. SIGTERM and Ctrl-C end it in order.";

const RUN_EXAMPLES: &str = "\
Examples:
  cornjacket run pipelines/iot.yaml
  cornjacket run pipelines/iot.yaml --data-dir /var/lib/cornjacket --ingestion-port 9000
  CJ_LOG_FORMAT=json cornjacket run pipelines/iot.yaml

Then, in another terminal:
  curl --json '{\"event_type\":\"sensor.reading\",\"aggregate_id\":\"d1\",\"payload\":{\"value\":21.5,\"unit\":\"celsius\"}}' \\
       http://127.0.0.1:8080/api/v1/events
  curl http://127.0.0.1:8081/api/v1/projections/sensor_state/d1
  cornjacket query 'SELECT * FROM sensor_state'

Exit codes: 0 ended in order, 1 the pipeline file is wrong, 2 the environment is (a port in use, a folder that is locked).";

/// Arguments of `run`.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct Run {
    /// The pipeline file.
    pub file: PathBuf,
    /// The folder that everything is kept in; made if it is not there.
    #[arg(long, env = "CJ_DATA_DIR", default_value = "data")]
    pub data_dir: PathBuf,
    /// The address that the services listen on. Other than loopback only with --api-keys-file or --insecure.
    #[arg(long, env = "CJ_HOST", default_value = "127.0.0.1", value_parser = host)]
    pub host: IpAddr,
    /// The port that takes events in; 0 takes any that is free.
    #[arg(long, env = "CJ_INGESTION_PORT", default_value_t = 8080)]
    pub ingestion_port: u16,
    /// The port that answers queries; 0 takes any that is free.
    #[arg(long, env = "CJ_QUERY_PORT", default_value_t = 8081)]
    pub query_port: u16,
    /// The port that says what became of deliveries; 0 takes any that is free.
    #[arg(long, env = "CJ_ACTIONS_PORT", default_value_t = 8082)]
    pub actions_port: u16,
    /// Networks that webhooks may reach beside public addresses, such as 10.0.0.0/8; loopback unless said, as long as the
    /// services listen there only.
    #[arg(long, env = "CJ_ACTIONS_ALLOW_NETS", value_name = "NETS")]
    pub actions_allow_nets: Option<Nets>,
    /// The port of the embedded MQTT broker, which runs if the pipeline has an mqtt source; 0 takes any that is free.
    #[arg(long, env = "CJ_MQTT_PORT", default_value_t = 1883)]
    pub mqtt_port: u16,
    /// Who may connect to the embedded MQTT broker: a file as `mosquitto_passwd` writes it; everybody unless set.
    #[arg(long, env = "CJ_MQTT_PASSWORD_FILE", value_name = "FILE")]
    pub mqtt_password_file: Option<OsString>,
    /// The MQTT broker that mqtt sources subscribe to, such as `mqtt://user:password@host:1883` or
    /// `mqtts://host` (see docs/mqtt-broker.md); the embedded broker unless set.
    #[arg(
        long,
        env = "CJ_MQTT_URL",
        value_name = "URL",
        default_value = "",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub mqtt_url: MqttUrl,
    /// How much memory the process may take, such as 2GiB: half of it is for the state of streams and a quarter for queries.
    /// A quarter of the machine's unless said.
    #[arg(long, env = "CJ_MEMORY", value_name = "BYTES", default_value = "", hide_default_value = true)]
    pub memory: Memory,
    /// The least severe messages to log: error, warn, info, debug or trace.
    #[arg(long, env = "CJ_LOG_LEVEL", default_value = "info")]
    pub log_level: tracing::Level,
    /// How to log.
    #[arg(long, env = "CJ_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Take the file up anew whenever it changes, without losing an event, or say why that cannot be.
    #[arg(long)]
    pub watch: bool,
    /// When every source has ended, go on answering queries until told to end.
    #[arg(long)]
    pub stay: bool,
    /// Listen beyond loopback although nobody is asked who they are.
    #[arg(long)]
    pub insecure: bool,
    /// End in order when stdin ends: whoever starts this process as a part of its own work does not leave it behind.
    #[arg(long, hide = true)]
    pub until_stdin_ends: bool,
    /// The keys that the services ask for, one a line: a name, the SHA-256 of the key in hex, and its scopes out of ingest,
    /// query, actions and admin (see docs/http.md). Without it everybody may do everything.
    #[arg(long, env = "CJ_API_KEYS_FILE", value_name = "FILE")]
    pub api_keys_file: Option<OsString>,
}

impl Run {
    /// The keys' file. Compose files set variables to nothing where there is nothing to set.
    pub fn keys_file(&self) -> Option<&Path> {
        self.api_keys_file.as_deref().filter(|file| !file.is_empty()).map(Path::new)
    }

    /// The file with the passwords of the embedded broker.
    pub fn passwords_file(&self) -> Option<&Path> {
        self.mqtt_password_file.as_deref().filter(|file| !file.is_empty()).map(Path::new)
    }
}

/// Reads an address to listen on.
pub fn host(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.parse().map_err(|_| "write an IP address, such as 127.0.0.1, or localhost".into())
}

/// How to log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

const QUERY: &str = "\
Ask a running pipeline something in SQL.

Tables are the pipeline's projections by their names, its event types (sensor.reading), and the system tables in the
schema cornjacket: pipelines, operators, clocks, checkpoints, dead_letters, topics. Rows come as a table on a terminal
and as lines of JSON otherwise.";

const QUERY_EXAMPLES: &str = "\
Examples:
  cornjacket query 'SELECT * FROM device_minute ORDER BY window_start DESC LIMIT 10'
  cornjacket query 'SELECT reason, count(*) AS n FROM cornjacket.dead_letters GROUP BY reason'
  cornjacket query --json 'SELECT * FROM sensor.reading' | jq .value

Exit codes: 0 answered, 1 the SQL is wrong, 2 no pipeline answers.";

/// Arguments of `query`.
#[derive(Debug, Args)]
pub struct Query {
    /// The SQL: one SELECT.
    pub sql: String,
    /// Where the pipeline is.
    #[command(flatten)]
    pub place: Where,
    /// How many rows at most.
    #[arg(long, default_value_t = 10_000)]
    pub limit: u64,
    /// Lines of JSON, on a terminal too.
    #[arg(long)]
    pub json: bool,
}

/// Help texts stand in lines in the source; a paragraph is one line to whoever wraps it. Lines that are set off stay.
fn paragraphs(text: &str) -> String {
    let mut wrapped = String::with_capacity(text.len());
    let is_set_off = |line: &str| line.is_empty() || line.starts_with([' ', '-', '|']);
    let mut before: Option<&str> = None;
    for line in text.lines() {
        if let Some(before) = before {
            let goes_on = !is_set_off(before) && !is_set_off(line) && !before.ends_with(':');
            wrapped.push(if goes_on { ' ' } else { '\n' });
        }
        wrapped.push_str(line);
        before = Some(line);
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn hosts_are_addresses_or_localhost() {
        assert!(host("localhost").is_ok_and(|host| host.is_loopback()));
        assert!(host("::1").is_ok_and(|host| host.is_loopback()));
        assert!(host("0.0.0.0").is_ok_and(|host| !host.is_loopback()));
        assert!(host("example.com").is_err());
    }
}
