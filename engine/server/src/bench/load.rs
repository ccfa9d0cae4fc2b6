//! The load: connections that each send the next body when they have the answer, or bodies that each have their time.
//!
//! With a fixed rate an event's time is counted from when it was due, also where every connection was still waiting for
//! an answer then. So a service that stands still for a while pays for all events of that while, and not for one a
//! connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use axum::body::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::{Answer, Connection, Target};
use super::events::Events;
use super::figures::{Tally, Times};
use crate::Failure;

/// How long is waited at most when the service asks to come again later.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How events are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One a request.
    Single,
    /// Bodies of lines.
    Batch,
}

/// What came of a load.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) tally: Tally,
    /// How long each request took to its 202.
    pub(super) times: Times,
    /// Bytes of bodies that had one.
    pub(super) bytes: u64,
    /// From the beginning to the last answer.
    pub(super) elapsed: Duration,
}

/// Where what is sent.
#[derive(Clone)]
pub(super) struct Load {
    pub(super) target: Arc<Target>,
    pub(super) events: Arc<Events>,
    /// Which body is next.
    pub(super) next: Arc<AtomicU64>,
}

/// A rate that is kept whatever the answers do.
#[derive(Clone)]
struct Schedule {
    began: Instant,
    rate: u32,
    /// How many events there are.
    count: u64,
    /// When it is given up, as the service does not keep up.
    end: Instant,
    taken: Arc<AtomicU64>,
    /// A permit for each event that is due.
    due: Arc<Semaphore>,
}

#[derive(Deserialize)]
struct BatchAnswer {
    #[serde(default)]
    accepted: u64,
    #[serde(default)]
    rejected: Vec<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    error: String,
}

impl Form {
    fn path(self) -> (&'static str, &'static str) {
        match self {
            Self::Single => ("/api/v1/events", "application/json"),
            Self::Batch => ("/api/v1/events/batch", "application/x-ndjson"),
        }
    }
}

impl Load {
    pub(super) fn new(target: Arc<Target>, events: Arc<Events>) -> Self {
        Self { target, events, next: Arc::default() }
    }

    /// Sends bodies for some time, on each connection the next one when the last is answered.
    pub(super) async fn closed(&self, form: Form, connections: u32, time: Duration) -> Result<Outcome, Failure> {
        let opened = self.open(connections).await?;
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for mut connection in opened {
            let load = self.clone();
            tasks.spawn(async move {
                let mut outcome = Outcome::default();
                while began.elapsed() < time {
                    load.one(&mut connection, form, Instant::now(), &mut outcome).await?;
                }
                Ok(outcome)
            });
        }
        together(tasks, began).await
    }

    /// Sends single events at a fixed rate for some time.
    pub(super) async fn paced(&self, rate: u32, connections: u32, time: Duration) -> Result<Outcome, Failure> {
        let opened = self.open(connections).await?;
        let began = Instant::now();
        let count = u64::from(rate) * time.as_secs();
        let end = began + time * 2 + Duration::from_secs(5);
        let due = Arc::new(Semaphore::new(0));
        let schedule = Schedule { began, rate, count, end, taken: Arc::default(), due };
        let _stop = schedule.start(connections)?;
        let mut tasks = JoinSet::new();
        for mut connection in opened {
            let (load, schedule) = (self.clone(), schedule.clone());
            tasks.spawn(async move {
                let mut outcome = Outcome::default();
                while let Some(due) = schedule.next().await {
                    load.one(&mut connection, Form::Single, due, &mut outcome).await?;
                }
                Ok(outcome)
            });
        }
        together(tasks, began).await
    }

    /// Sends these events, each until it is taken or refused, and gives the ids of those that are stored.
    pub(super) async fn these(&self, events: &[Bytes]) -> Result<(Vec<String>, Tally), Failure> {
        #[derive(Deserialize)]
        struct Accepted {
            event_id: String,
        }
        let mut connection = Connection::open(&self.target).await?;
        let (path, content_type) = Form::Single.path();
        let (mut ids, mut outcome) = (Vec::new(), Outcome::default());
        for event in events {
            loop {
                let answer = connection.post(path, content_type, event.clone()).await?;
                ids.extend(serde_json::from_slice(&answer.body).ok().map(|Accepted { event_id }| event_id));
                let Some(wait) = self.count(Form::Single, &answer, &mut outcome)? else { break };
                tokio::time::sleep(wait).await;
            }
        }
        Ok((ids, outcome.tally))
    }

    async fn open(&self, connections: u32) -> Result<Vec<Connection>, Failure> {
        let mut opened = Vec::new();
        for _ in 0..connections {
            opened.push(Connection::open(&self.target).await?);
        }
        Ok(opened)
    }

    /// Sends the next body, whose time counts from then.
    async fn one(
        &self,
        connection: &mut Connection,
        form: Form,
        since: Instant,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let body = self.body(form);
        let bytes = body.len() as u64;
        let (path, content_type) = form.path();
        let answer = connection.post(path, content_type, body).await?;
        if answer.status == StatusCode::ACCEPTED {
            outcome.times.add(since.elapsed());
            outcome.bytes += bytes;
        }
        if let Some(wait) = self.count(form, &answer, outcome)? {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    fn body(&self, form: Form) -> Bytes {
        let bodies = match form {
            Form::Single => &self.events.single,
            Form::Batch => &self.events.bodies,
        };
        let number = usize::try_from(self.next.fetch_add(1, Ordering::Relaxed)).unwrap_or_default();
        // There are always some.
        bodies.get(number % bodies.len().max(1)).cloned().unwrap_or_default()
    }

    /// Counts what an answer says; how long to wait if it says so.
    fn count(&self, form: Form, answer: &Answer, outcome: &mut Outcome) -> Result<Option<Duration>, Failure> {
        let tally = &mut outcome.tally;
        let is_later = matches!(answer.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let is_wrong = matches!(
            answer.status,
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
        );
        if !is_later && !is_wrong && answer.status != StatusCode::ACCEPTED {
            return Err(self.target.failure(answer));
        }
        if form == Form::Batch {
            let told: BatchAnswer = serde_json::from_slice(&answer.body)
                .context("the answer to a batch cannot be read")
                .map_err(Failure::Environment)?;
            if is_wrong && told.rejected.is_empty() {
                return Err(self.target.failure(answer));
            }
            tally.accepted += told.accepted;
            tally.rejected += told.rejected.len() as u64;
            let reason = told.rejected.into_iter().next().map(|problem| problem.error);
            tally.first_reason = tally.first_reason.take().or(reason);
        } else if answer.status == StatusCode::ACCEPTED {
            tally.accepted += 1;
        } else if is_wrong {
            tally.rejected += 1;
            let reason = || Some(serde_json::from_slice::<Problem>(&answer.body).ok()?.error);
            tally.first_reason = tally.first_reason.take().or_else(reason);
        }
        tally.put_off += u64::from(is_later);
        Ok(is_later.then(|| answer.wait.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)))
    }
}

/// Ends a schedule's thread.
struct Stop(Arc<Semaphore>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Schedule {
    /// Says when events are due, on a thread: it sleeps more exactly than the runtime, which counts milliseconds.
    fn start(&self, connections: u32) -> Result<Stop, Failure> {
        let schedule = self.clone();
        let telling = move || {
            for number in 0..schedule.count {
                let due = schedule.due_at(number);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if schedule.due.is_closed() {
                    return;
                }
                schedule.due.add_permits(1);
            }
            // Everyone who still waits learns that there are no more.
            schedule.due.add_permits(usize::try_from(connections).unwrap_or_default());
        };
        let started = std::thread::Builder::new().name("pace".into()).spawn(telling);
        started.context("the process cannot start its threads").map_err(Failure::Environment)?;
        Ok(Stop(Arc::clone(&self.due)))
    }

    fn due_at(&self, number: u64) -> Instant {
        self.began + Duration::from_nanos(number * 1_000_000_000 / u64::from(self.rate.max(1)))
    }

    /// When the next event was due, once it is; `None` if there are no more.
    async fn next(&self) -> Option<Instant> {
        self.due.acquire().await.ok()?.forget();
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        (number < self.count && Instant::now() < self.end).then(|| self.due_at(number))
    }
}

async fn together(mut tasks: JoinSet<Result<Outcome, Failure>>, began: Instant) -> Result<Outcome, Failure> {
    let mut all = Outcome::default();
    while let Some(task) = tasks.join_next().await {
        let one = task.map_err(|error| Failure::Environment(anyhow!(error).context("a connection broke off")))??;
        all.tally.add(one.tally);
        all.times.extend(one.times);
        all.bytes += one.bytes;
    }
    all.elapsed = began.elapsed();
    Ok(all)
}
