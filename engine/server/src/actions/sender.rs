//! One attempt: a delivery as an HTTP request, and what its receiver said.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use cornjacket_core::delivery::{Action, Delivery};
use cornjacket_core::time::{Micros, SECOND};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode, redirect};
use tokio::time::Instant;
use url::Url;

use super::guard::Guard;
use super::retry::Outcome;
use super::signature::signature;
use crate::retry_after::asked_for;

/// Bytes of an answer that are read: what comes after them interests nobody.
const MOST_READ: usize = 64 * 1024;
/// Characters of an answer that are kept when it says that something is wrong.
const MOST_KEPT: usize = 200;

/// What came of an attempt.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) status: Option<u16>,
    pub(super) error: Option<String>,
}

/// Sends the deliveries of one sink.
pub(super) struct Sender {
    client: Client,
    guard: Guard,
    action: Arc<Action>,
    url: Url,
    headers: HeaderMap,
}

impl Sender {
    /// For an action that is on; `None` if it is off.
    pub(super) fn new(action: &Arc<Action>, guard: &Guard) -> Result<Option<Self>> {
        let Some(url) = &action.url else { return Ok(None) };
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(guard.clone()))
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(action.concurrency as usize)
            .user_agent(concat!("Cornjacket/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("the client for webhooks cannot be made")?;
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        for (name, value) in &action.headers {
            let mut value = HeaderValue::from_str(value).context("a header's value cannot be sent")?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_bytes(name.as_bytes())?, value);
        }
        let url = url.parse().context("the URL of a webhook is none")?;
        Ok(Some(Self { client, guard: guard.clone(), action: Arc::clone(action), url, headers }))
    }

    /// Tries once. It ends within the action's timeout.
    pub(super) async fn send(&self, delivery: &Delivery, now: Micros) -> Answer {
        let timeout = Duration::from_micros(self.action.timeout.unsigned_abs());
        let deadline = Instant::now() + timeout;
        if let Err(why) = self.guard.judge(&self.url) {
            return failed(why);
        }
        match tokio::time::timeout_at(deadline, self.ask(delivery, now)).await {
            Ok(Ok(response)) => judged(response, now, deadline).await,
            Ok(Err(error)) => failed(causes(error)),
            Err(_) => failed(format!("no answer within {timeout:?}")),
        }
    }

    async fn ask(&self, delivery: &Delivery, now: Micros) -> reqwest::Result<Response> {
        let (id, seconds) = (&delivery.id, now.div_euclid(SECOND));
        let mut request = self.client.post(self.url.clone()).headers(self.headers.clone());
        request = request.header("webhook-id", id).header("webhook-timestamp", seconds);
        if let Some(signature) = signature(&self.action.keys, id, seconds, &delivery.body) {
            request = request.header("webhook-signature", signature);
        }
        request.body(delivery.body.clone()).send().await
    }
}

fn failed(error: String) -> Answer {
    Answer { outcome: Outcome::Failed(None), status: None, error: Some(error) }
}

/// The status says it all, so a body that is late or breaks off changes nothing.
async fn judged(response: Response, now: Micros, deadline: Instant) -> Answer {
    let status = response.status();
    let asked = asked_for(response.headers(), now);
    let outcome = match status {
        _ if status.is_success() => Outcome::Taken,
        StatusCode::GONE => Outcome::Gone,
        _ => Outcome::Failed(asked),
    };
    // Read to the end, the connection can be used again.
    let said = beginning(response, deadline).await;
    let error = (outcome != Outcome::Taken).then(|| {
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let moved = if status.is_redirection() { " (redirects are not followed)" } else { "" };
        format!("the receiver answered {}{moved}{said}", status.as_u16())
    });
    Answer { outcome, status: Some(status.as_u16()), error }
}

/// The beginning of an answer's text. One that breaks off has said what it has said.
async fn beginning(mut response: Response, deadline: Instant) -> String {
    let mut bytes = Vec::new();
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout_at(deadline, response.chunk()).await {
        let room = MOST_READ - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if bytes.len() == MOST_READ {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let plain = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MOST_KEPT).collect()
}

/// The causes of an error without its URL, which may hold a secret, and without those that only say that there is one.
fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        let said = texts.last().is_some_and(|last| *last == text || last.ends_with(&format!(": {text}")));
        if !said {
            texts.push(text);
        }
        source = cause.source();
    }
    let says_nothing = |text: &str| text == "error sending request" || text.starts_with("client error (");
    let first = texts.iter().position(|text| !says_nothing(text)).unwrap_or(0);
    texts.split_off(first).join(": ")
}
