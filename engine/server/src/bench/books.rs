//! What the service itself says of the events: whether the audit balances, what is stored, what became a dead letter,
//! and whether all is computed.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use cornjacket_runtime::audit::Check;
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Failure;
use crate::remote::Remote;

/// How long the engine may take to work off what was sent.
const PATIENCE: Duration = Duration::from_mins(10);

/// The service that answers queries.
pub(super) struct Books {
    query: Remote,
}

/// What an audit says.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Audit {
    pub(super) balanced: bool,
    /// How many equations there are.
    pub(super) checks: usize,
    /// Those that do not hold.
    pub(super) wrong: Vec<Check>,
    /// Events that the door has stored; of these, by the time of the report, those since the beginning.
    pub(super) stored: u64,
}

/// Dead letters that were made meanwhile.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct DeadLetters {
    pub(super) count: u64,
    /// Where the first one comes from, and why.
    pub(super) first: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    balanced: bool,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Rows {
    rows: Vec<Value>,
}

impl Books {
    pub(super) fn new(query: Remote) -> Self {
        Self { query }
    }

    pub(super) async fn audit(&self) -> Result<Audit, Failure> {
        let Answer { balanced, checks } = self.query.json(self.query.request(Method::GET, "/api/v1/audit")).await?;
        let stored = checks.iter().filter(|check| check.check == "log").map(|check| check.left.max(0).unsigned_abs());
        let (count, stored) = (checks.len(), stored.sum());
        let wrong = checks.into_iter().filter(|check| !check.holds).collect();
        Ok(Audit { balanced, checks: count, wrong, stored })
    }

    /// The number of the newest dead letter.
    pub(super) async fn newest_letter(&self) -> Result<u64, Failure> {
        let row = self.row("SELECT max(id) AS newest FROM cornjacket.dead_letters").await?;
        Ok(number(&row["newest"]))
    }

    /// Dead letters after that one.
    pub(super) async fn letters_since(&self, newest: u64) -> Result<DeadLetters, Failure> {
        let since = format!("FROM cornjacket.dead_letters WHERE id > {newest}");
        let count = number(&self.row(&format!("SELECT count(*) AS n {since}")).await?["n"]);
        let first = self.row(&format!("SELECT source, reason, message {since} ORDER BY id LIMIT 1")).await?;
        let text = |name: &str| first[name].as_str().unwrap_or_default().to_owned();
        let first = (count > 0).then(|| format!("{} of {}: {}", text("reason"), text("source"), text("message")));
        Ok(DeadLetters { count, first })
    }

    /// Waits until the engine has worked off everything up to these events; `false` if it does not get there.
    pub(super) async fn settle(&self, ids: &[String]) -> Result<bool, Failure> {
        let began = Instant::now();
        for id in ids {
            let path = format!("/api/v1/projections?after={id}&wait=10s");
            loop {
                let response = self.query.request(Method::GET, &path).send().await;
                let response =
                    response.context("the service does not answer any more").map_err(Failure::Environment)?;
                let status = response.status();
                if status.is_success() {
                    break;
                }
                let body = response.bytes().await.context("the answer broke off").map_err(Failure::Environment)?;
                if status != StatusCode::GATEWAY_TIMEOUT {
                    return Err(self.query.failure(status, &body));
                }
                if began.elapsed() > PATIENCE {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn row(&self, sql: &str) -> Result<Value, Failure> {
        let question = self.query.request(Method::POST, "/api/v1/sql").json(&json!({"sql": sql}));
        let Rows { rows } = self.query.json(question).await?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }
}

impl Audit {
    /// What is wrong: with the equations, or as fewer events are stored than were answered with 202.
    pub(super) fn verdict(&self, accepted: u64) -> Result<(), Failure> {
        if let Some(Check { check, node, equation, left, right, .. }) = self.wrong.first() {
            return Err(Failure::Input(anyhow!(
                "the audit does not balance: {} of {} checks do not hold, the first is {check} of {node} ({equation}: \
                 {left} and {right}). Events or rows got lost there, or came twice",
                self.wrong.len(),
                self.checks
            )));
        }
        if self.stored < accepted {
            return Err(Failure::Input(anyhow!(
                "{accepted} events were answered with 202, and {} are stored: {} got lost",
                self.stored,
                accepted - self.stored
            )));
        }
        Ok(())
    }
}

/// Large numbers come as text.
fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_told() {
        let audit = Audit { balanced: true, checks: 3, wrong: Vec::new(), stored: 9 };
        assert!(audit.verdict(9).is_ok());
        // Others may have sent events too.
        assert!(audit.verdict(8).is_ok());
        let Err(Failure::Input(lost)) = audit.verdict(10) else { panic!("one is lost") };
        assert_eq!(lost.to_string(), "10 events were answered with 202, and 9 are stored: 1 got lost");
        let text = r#"{"check":"edge","node":"minutes","equation":"a = b","left":1,"right":2,"holds":false}"#;
        let wrong = vec![serde_json::from_str(text).expect("a check")];
        let Err(Failure::Input(wrong)) = (Audit { balanced: false, wrong, ..audit }).verdict(0) else {
            panic!("it does not balance")
        };
        assert!(wrong.to_string().contains("1 of 3 checks do not hold, the first is edge of minutes (a = b: 1 and 2)"));
    }
}
