//! The settings of a webhook, and how the single ones are read.

use std::collections::BTreeMap;
use std::fmt;

use axum::http::{HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cornjacket_core::component::Fault;
use cornjacket_core::delivery::{RateLimit, RetryPolicy, SigningKey};
use cornjacket_core::setting::Span;
use cornjacket_core::time::{Micros, SECOND};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use url::Url;

use crate::sinks::file::Start;

/// Settings of a webhook. They hold secrets, so they cannot be printed.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The event type or stream whose rows trigger it.
    #[schemars(example = &"hot")]
    pub from: String,
    /// Where each row is sent to with POST. Empty: the sink is off.
    #[schemars(example = &"${ALERT_URL:-}")]
    pub url: String,
    /// What deliveries are signed with: `whsec_` and base64, or a list of these while one takes the place of another. Empty:
    /// they are not signed.
    #[serde(default)]
    pub secret: Secrets,
    /// Headers beside those that every delivery has.
    #[serde(default)]
    #[schemars(extend("examples" = [{ "authorization": "Bearer ${ALERT_TOKEN:-}" }]))]
    pub headers: BTreeMap<String, String>,
    /// The request's body, with `${column}` where a value goes; the row as JSON unless set.
    #[serde(default)]
    #[schemars(example = &"{\"text\": \"${device} is too hot: ${avg_celsius} °C\"}")]
    pub body: Option<String>,
    /// How long the receiver may take to answer.
    #[serde(default = "thirty_seconds")]
    #[schemars(extend("default" = "30s"))]
    pub timeout: Span,
    /// How a delivery that failed is tried again.
    #[serde(default)]
    #[schemars(extend("default" = { "first": "1s", "factor": 2, "max_age": "24h" }))]
    pub retry: Retry,
    /// Rows that are too much like one that was sent are left out.
    #[serde(default)]
    pub dedupe: Option<DedupeSettings>,
    /// How many requests are made in a time at most, as `10/m`; the others wait.
    #[serde(default)]
    #[schemars(regex(pattern = "^[0-9]+ */ *(s|m|h|d)$"), example = &"10/m")]
    pub rate_limit: Option<String>,
    /// How many requests are under way at one time at most.
    #[serde(default = "four")]
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: u32,
    /// Whether each delivery waits until the one before it has arrived or is given up.
    #[serde(default)]
    pub ordered: bool,
    /// Whether a new sink begins with the retained events or with what comes from now on.
    #[serde(default = "now")]
    #[schemars(extend("default" = "now"))]
    pub start: Start,
}

/// How a delivery that failed is tried again.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The wait after the first failure; a part of it is left to chance.
    #[serde(default = "one_second")]
    #[schemars(extend("default" = "1s"))]
    pub first: Span,
    /// By how much each wait is longer than the one before, up to an hour.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 100))]
    pub factor: f64,
    /// The age at which it is given up and becomes a dead letter.
    #[serde(default = "one_day")]
    #[schemars(extend("default" = "24h"))]
    pub max_age: Span,
}

/// Which rows are left out because one like them was sent.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DedupeSettings {
    /// The columns in which rows are alike.
    #[schemars(length(min = 1), example = ["device"])]
    pub key: Vec<String>,
    /// How far apart in row time they must be for both to be sent.
    #[schemars(example = &"5m")]
    pub window: Span,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: one_second(), factor: two(), max_age: one_day() }
    }
}

fn thirty_seconds() -> Span {
    Span(30 * SECOND)
}

fn one_second() -> Span {
    Span(SECOND)
}

fn one_day() -> Span {
    Span(86_400 * SECOND)
}

fn two() -> f64 {
    2.0
}

fn four() -> u32 {
    4
}

fn now() -> Start {
    Start::Now
}

/// One secret or several, as they stand in the file.
#[derive(Clone, Default)]
pub struct Secrets(Vec<String>);

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretsVisitor)
    }
}

struct SecretsVisitor;

/// No message repeats what was found.
const NO_SECRET: &str = "this is no secret: write whsec_ and base64, or a list of these";

impl<'de> Visitor<'de> for SecretsVisitor {
    type Value = Secrets;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret or a list of secrets")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secrets, E> {
        Ok(Secrets(vec![text.into()]))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Secrets, E> {
        Ok(Secrets::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Secrets, A::Error> {
        let mut secrets = Vec::new();
        while let Some(Secrets(inner)) = items.next_element::<Secrets>()? {
            secrets.extend(inner);
        }
        Ok(Secrets(secrets))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secrets, E> {
        Err(E::custom(NO_SECRET))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secrets, E> {
        Err(E::custom(NO_SECRET))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secrets, E> {
        Err(E::custom(NO_SECRET))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secrets, E> {
        Err(E::custom(NO_SECRET))
    }
}

impl JsonSchema for Secrets {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secrets".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = json_schema!({"type": "string", "pattern": "^(whsec_[A-Za-z0-9+/]+=*)?$"});
        let examples = ["${ALERT_SECRET:-}"];
        json_schema!({"anyOf": [one, {"type": "array", "items": one}], "examples": examples})
    }
}

impl Settings {
    /// The signing keys, those that are empty left out.
    pub(super) fn keys(&self) -> Result<Vec<SigningKey>, Fault> {
        let given = self.secret.0.iter().map(|secret| secret.trim()).filter(|secret| !secret.is_empty());
        given.map(signing_key).collect()
    }

    /// Where it calls; `None` if it is off.
    pub(super) fn target(&self) -> Result<Option<Url>, Fault> {
        let text = self.url.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let fault = |message: &str, hint: &str| Err(Fault::new("url", message).with_hint(hint));
        if text.contains("${") {
            return fault("a URL is the same for every row", "put what differs into the body, and leave ${…} out here");
        }
        let Some(url) = Url::parse(text).ok().filter(Url::has_host) else {
            return fault("this is no URL", "write a whole one, such as https://hooks.example.com/alerts");
        };
        if !matches!(url.scheme(), "http" | "https") {
            return fault("a webhook is called with http or https", "begin the URL with https://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return fault("a URL is no place for a password", "write headers: { authorization: … } instead");
        }
        Ok(Some(url))
    }

    /// The headers in lower case.
    pub(super) fn checked_headers(&self) -> Result<Vec<(String, String)>, Fault> {
        let header = |(name, value): (&String, &String)| {
            let fault = |message: String, hint: &str| Err(Fault::new("headers", message).with_hint(hint));
            let Ok(known) = HeaderName::from_bytes(name.as_bytes()) else {
                return fault(format!("`{name}` is no name for a header"), "write one such as authorization");
            };
            if is_ours(known.as_str()) {
                return fault(format!("the header `{known}` is set by every delivery itself"), "leave it out");
            }
            if HeaderValue::from_str(value).is_err() {
                return fault(format!("the value of `{known}` cannot be sent in a header"), "write it on one line");
            }
            Ok((known.as_str().to_string(), value.clone()))
        };
        self.headers.iter().map(header).collect()
    }

    /// Whether the body is JSON, as far as the headers say.
    pub(super) fn is_json(&self) -> bool {
        let named = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        named.is_none_or(|(_, value)| value.to_ascii_lowercase().contains("json"))
    }

    pub(super) fn rate(&self) -> Result<Option<RateLimit>, Fault> {
        let Some(text) = &self.rate_limit else { return Ok(None) };
        let wrong = || {
            let message = format!("`{text}` is no rate");
            Fault::new("rate_limit", message).with_hint("write a number and s, m, h or d, such as 10/m")
        };
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let seconds = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(wrong()),
        };
        let count: u32 = count.trim().parse().map_err(|_| wrong())?;
        if !(1..=100_000).contains(&count) {
            let fault = Fault::new("rate_limit", format!("`{text}` is not between 1 and 100,000"));
            return Err(fault.with_hint("write a rate such as 10/m, or leave it out"));
        }
        Ok(Some(RateLimit { count, period: seconds * SECOND }))
    }

    pub(super) fn retry_policy(&self) -> Result<RetryPolicy, Fault> {
        let Retry { first, factor, max_age } = self.retry;
        if first.0 < 1_000 {
            return Err(Fault::new("retry.first", "retries without a pause would not let the receiver recover")
                .with_hint("write at least 1ms, such as 1s"));
        }
        if !(1.0..=100.0).contains(&factor) {
            return Err(Fault::new("retry.factor", "each wait must be as long as the one before, or longer")
                .with_hint("write a number from 1 to 100, such as 2"));
        }
        Ok(RetryPolicy { first: first.0, factor, max_age: max_age.0 })
    }

    pub(super) fn checked_timeout(&self) -> Result<Micros, Fault> {
        let is_right = (1_000..=600 * SECOND).contains(&self.timeout.0);
        is_right.then_some(self.timeout.0).ok_or_else(|| {
            Fault::new("timeout", format!("`{}` is not between 1ms and 10m", self.timeout)).with_hint("write 30s")
        })
    }

    pub(super) fn checked_concurrency(&self) -> Result<u32, Fault> {
        let is_right = (1..=256).contains(&self.concurrency);
        is_right.then_some(self.concurrency).ok_or_else(|| {
            Fault::new("concurrency", format!("{} is not between 1 and 256", self.concurrency)).with_hint("write 4")
        })
    }
}

/// Set by the deliverer, or by the connection.
fn is_ours(header: &str) -> bool {
    header.starts_with("webhook-") || matches!(header, "host" | "content-length" | "transfer-encoding" | "connection")
}

fn signing_key(secret: &str) -> Result<SigningKey, Fault> {
    let bytes = secret.strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok());
    let wrong = |message: &str| {
        let hint = "write whsec_ and the base64 of 24 to 64 random bytes: echo whsec_$(openssl rand -base64 32)";
        Fault::new("secret", message).with_hint(hint)
    };
    match bytes {
        None => Err(wrong("a secret is no `whsec_` followed by base64")),
        Some(bytes) if !(24..=64).contains(&bytes.len()) => {
            Err(wrong(&format!("a secret has {} bytes, which is not between 24 and 64", bytes.len())))
        }
        Some(bytes) => Ok(SigningKey::new(bytes)),
    }
}
