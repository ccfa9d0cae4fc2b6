//! Hands requests in until they are answered: what is temporary is waited out, as long as the service asks for.

use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::body::Bytes;
use indicatif::ProgressBar;
use reqwest::{Method, StatusCode, header};
use tokio::time::Instant;

use crate::Failure;
use crate::environment::of_machine;
use crate::remote::{Remote, Service, Where};
use crate::retry_after::asked_for;

/// The first pause before trying again, where the service does not say how long; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The longest that a service is listened to when it asks to wait.
const LONGEST_WAIT: Duration = Duration::from_mins(5);
/// How long a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(2);

/// What is handed in.
pub(super) struct Request<'a> {
    pub path: &'a str,
    pub content_type: &'static str,
    pub encoding: Option<&'static str>,
    pub body: Bytes,
}

/// A service that events are handed in to.
pub(super) struct Post<'a> {
    place: &'a Where,
    remote: Remote,
    /// For how long to go on trying where nothing gets through.
    retry_for: Duration,
    /// Whether it has ever answered: a service that is not there at all is not waited for.
    has_answered: bool,
    bar: ProgressBar,
}

/// How an attempt ended, when not well.
enum Failed {
    /// It is no use to try again.
    Finally(Failure),
    /// Perhaps later, not before some time.
    ForNow { why: Failure, wait: Option<Duration>, is_limited: bool },
}

impl<'a> Post<'a> {
    pub fn new(place: &'a Where, retry_for: Duration, bar: ProgressBar) -> Result<Self, Failure> {
        let remote = place.service(Service::Ingest)?;
        Ok(Self { place, remote, retry_for, has_answered: false, bar })
    }

    /// Where events go.
    pub fn base(&self) -> &str {
        self.remote.base()
    }

    /// Hands a request in; the body of its answer, which is a success or says that every event was rejected.
    pub async fn send(&mut self, request: &Request<'_>) -> Result<Vec<u8>, Failure> {
        let (mut pause, mut deadline) = (FIRST_PAUSE, Instant::now() + self.retry_for);
        loop {
            let (why, wait, is_limited) = match self.attempt(request).await {
                Ok(body) => return Ok(body),
                Err(Failed::Finally(failure)) => return Err(failure),
                Err(Failed::ForNow { why, wait, is_limited }) => (why, wait, is_limited),
            };
            // Up to a quarter more, so that many senders do not come back all at once.
            let pause_now = wait.unwrap_or_else(|| pause.mul_f64(1.0 + rand::random::<f64>() / 4.0));
            if is_limited {
                // Waiting one's turn is no failure.
                deadline = Instant::now() + pause_now + self.retry_for;
            }
            if Instant::now() + pause_now > deadline {
                return Err(why);
            }
            self.say(&why, pause_now);
            tokio::time::sleep(pause_now).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            // A service that was started anew may be at another port.
            if let Ok(remote) = self.place.service(Service::Ingest) {
                self.remote = remote;
            }
        }
    }

    fn say(&self, why: &Failure, pause: Duration) {
        if let Failure::Input(error) | Failure::Environment(error) = why {
            let text = format!("trying again in {:.1} s: {error:#}", pause.as_secs_f64());
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }

    async fn attempt(&mut self, request: &Request<'_>) -> Result<Vec<u8>, Failed> {
        let mut post = self.remote.request(Method::POST, request.path).timeout(REQUEST_TIMEOUT);
        post = post.header(header::CONTENT_TYPE, request.content_type).body(request.body.clone());
        if let Some(encoding) = request.encoding {
            post = post.header(header::CONTENT_ENCODING, encoding);
        }
        let unreachable = || format!("{} does not answer: is `cornjacket run` running?", self.remote.base());
        let response = match post.send().await {
            Ok(response) => response,
            Err(error) => {
                // Nobody is there, and nobody was: that is no interruption.
                let was_never_there = error.is_connect() && !self.has_answered;
                let why = Failure::Environment(anyhow!(error).context(unreachable()));
                return Err(if was_never_there { Failed::Finally(why) } else { Failed::for_now(why) });
            }
        };
        let status = response.status();
        let wait = asked_for(response.headers(), of_machine().clock.now());
        let body = match response.bytes().await.context("the answer broke off") {
            Ok(body) => body,
            Err(error) => return Err(Failed::for_now(Failure::Environment(error))),
        };
        self.has_answered = true;
        let is_limited = status == StatusCode::TOO_MANY_REQUESTS;
        if status.is_success() || has_counted(status, &body) {
            return Ok(body.to_vec());
        }
        let why = self.remote.failure(status, &body);
        if is_limited || status == StatusCode::REQUEST_TIMEOUT || status.is_server_error() {
            let wait = wait.map(|span| Duration::from_micros(span.unsigned_abs()).min(LONGEST_WAIT));
            return Err(Failed::ForNow { why, wait, is_limited });
        }
        Err(Failed::Finally(why))
    }
}

impl Failed {
    fn for_now(why: Failure) -> Self {
        Self::ForNow { why, wait: None, is_limited: false }
    }
}

/// Whether an answer says of every event why it was rejected.
fn has_counted(status: StatusCode, body: &[u8]) -> bool {
    let code = || serde_json::from_slice::<serde_json::Value>(body).ok()?.get("code")?.as_str().map(str::to_owned);
    status == StatusCode::UNPROCESSABLE_ENTITY && code().as_deref() == Some("all_rejected")
}
