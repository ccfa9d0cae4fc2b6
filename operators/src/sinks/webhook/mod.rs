//! `webhook`: calls somebody for each row.
//!
//! The sink itself calls nobody. It makes each row into a trigger, which is written in the epoch's transaction as a
//! delivery; the action service sends deliveries and keeps at it. So a slow or dead receiver holds up nothing, and a
//! trigger is there exactly if its epoch is.
//!
//! **Identity.** A delivery's id is a hash of pipeline, sink and the row's identity: the event that the row is, else its
//! row time and key, or its row time and all columns where no key follows from the SQL; and its number among the rows of
//! an epoch for which all that is equal. Epochs have no part in it, so a row that is computed again, after a crash, an edit
//! or a rebuild, has the same id and is not sent a second time. The store keeps ids for as long as it keeps deliveries.

mod address;
mod body;
mod settings;

use std::any::Any;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use arrow::array::Array;
use cornjacket_core::batch::Batch;
use cornjacket_core::component::{Description, Fault, SinkContext, SinkSpec, parse_settings};
use cornjacket_core::delivery::{Action, Dedupe, Trigger};
use cornjacket_core::graph::{Doubt, Sink, SinkFactory, SinkOutput};
use cornjacket_core::id::EventId;
use cornjacket_core::print::{NonFinite, json_lines};
use cornjacket_core::time::{Micros, format_span};
use cornjacket_core::{Error, Result};
use serde_json::{Map, Value};
use url::{Host, Url};

use super::file::Start;
use super::rows::EpochRows;
use body::Template;

pub use address::{is_public, plain};
pub use settings::{DedupeSettings, Retry, Secrets, Settings};

/// Its entry in the registry.
pub const SPEC: SinkSpec = SinkSpec {
    description: Description {
        kind: "webhook",
        summary: "Calls a URL for each row, and keeps at it until it has arrived.",
        guarantee: "At least once, with an id and a body that stay the same through every retry and restart: a receiver \
                    that remembers ids has each row once. What has not arrived at its `max_age` becomes a dead letter \
                    (reason `webhook`). No receiver holds up the pipeline.",
        example: "from: hot\nurl: \"${ALERT_URL:-}\"\nsecret: \"${ALERT_SECRET:-}\"\ndedupe: { key: [device], window: 5m }",
        schema: || schemars::schema_for!(Settings),
    },
    parse: parse_settings::<Settings>,
    from: |settings| settings.downcast_ref::<Settings>().map_or("", |settings| &settings.from),
    build,
};

fn build(
    settings: &(dyn Any + Send + Sync),
    context: &SinkContext,
) -> std::result::Result<Arc<dyn SinkFactory>, Vec<Fault>> {
    let Some(settings) = settings.downcast_ref::<Settings>() else {
        return Err(vec![Fault::new("", "these are not the settings of a webhook")]);
    };
    let mut faults = Vec::new();
    if context.updating {
        let message = format!("`{}` takes rows back, and a call cannot be taken back", settings.from);
        let hint = "read from a stream that only adds rows, such as a window's; calls for rows that go (`resolve`) are not \
                    supported in this version";
        faults.push(Fault::new("from", message).with_hint(hint));
    }
    let action = action(settings, &mut faults);
    let columns: Vec<&str> = context.schema.fields().iter().map(|field| field.name().as_str()).collect();
    let template = settings.body.as_deref().map(|text| Template::parse(text, &columns, settings.is_json()));
    let body = template.transpose().map_err(|fault| faults.push(fault)).unwrap_or_default();
    let rule = settings.dedupe.as_ref().and_then(|dedupe| rule(dedupe, &columns, &mut faults));
    let Some(action) = action.filter(|_| faults.is_empty()) else { return Err(faults) };
    let identity = match &context.key {
        _ if context.event_type.is_some() => Vec::new(),
        Some(key) => key.iter().map(|at| context.schema.field(*at).name().clone()).collect(),
        None => Vec::new(),
    };
    let rows = Rows { schema: Arc::clone(&context.schema), body, rule, key: identity, is_off: action.url.is_none() };
    Ok(Arc::new(Factory { action: Arc::new(action), start: settings.start, rows }))
}

/// Where and how is called; what is wrong with it goes to the faults.
fn action(settings: &Settings, faults: &mut Vec<Fault>) -> Option<Action> {
    fn sound<T>(read: std::result::Result<T, Fault>, faults: &mut Vec<Fault>) -> Option<T> {
        read.map_err(|fault| faults.push(fault)).ok()
    }
    let url = sound(settings.target(), faults);
    let keys = sound(settings.keys(), faults);
    let headers = sound(settings.checked_headers(), faults);
    let timeout = sound(settings.checked_timeout(), faults);
    let retry = sound(settings.retry_policy(), faults);
    let rate_limit = sound(settings.rate(), faults);
    let concurrency = sound(settings.checked_concurrency(), faults);
    let url = url?;
    Some(Action {
        from: settings.from.clone(),
        endpoint: url.as_ref().map(endpoint).unwrap_or_default(),
        url: url.map(String::from),
        keys: keys?,
        headers: headers?,
        timeout: timeout?,
        retry: retry?,
        rate_limit: rate_limit?,
        concurrency: concurrency?,
        ordered: settings.ordered,
    })
}

/// Paths and queries of webhooks are often the secret itself.
fn endpoint(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

fn rule(dedupe: &DedupeSettings, columns: &[&str], faults: &mut Vec<Fault>) -> Option<Rule> {
    let before = faults.len();
    if dedupe.key.is_empty() {
        let fault = Fault::new("dedupe.key", "rows are alike in at least one column");
        faults.push(fault.with_hint("name the columns, such as key: [device]"));
    }
    for (index, name) in dedupe.key.iter().enumerate().filter(|(_, name)| !columns.contains(&name.as_str())) {
        let fault = Fault::new("dedupe.key", format!("there is no column `{name}`")).at(index);
        faults.push(fault.with_hint(format!("available: {}", columns.join(", "))));
    }
    if dedupe.window.0 == 0 {
        let fault = Fault::new("dedupe.window", "a window of no length keeps nothing away");
        faults.push(fault.with_hint("write a span such as 5m, or leave dedupe out"));
    }
    (faults.len() == before).then(|| Rule { key: dedupe.key.clone(), window: dedupe.window.0 })
}

/// Which rows keep others away.
#[derive(Clone, Debug)]
struct Rule {
    key: Vec<String>,
    window: Micros,
}

/// How rows become triggers.
#[derive(Clone, Debug)]
struct Rows {
    schema: arrow::datatypes::SchemaRef,
    body: Option<Template>,
    rule: Option<Rule>,
    /// The columns that identify a row beside its time; empty: all of them.
    key: Vec<String>,
    is_off: bool,
}

#[derive(Clone, Debug)]
struct Factory {
    action: Arc<Action>,
    start: Start,
    rows: Rows,
}

impl SinkFactory for Factory {
    fn kind(&self) -> &'static str {
        SPEC.description.kind
    }

    fn starts_at_beginning(&self) -> bool {
        self.start == Start::Beginning
    }

    fn create(&self) -> Result<Box<dyn Sink>> {
        Ok(Box::new(self.rows.clone()))
    }

    fn action(&self) -> Option<Arc<Action>> {
        Some(Arc::clone(&self.action))
    }

    fn rehearsal(&self) -> Option<Arc<dyn SinkFactory>> {
        let rows = Rows { body: None, is_off: false, ..self.rows.clone() };
        Some(Arc::new(Self { rows, ..self.clone() }))
    }

    fn doubts(&self) -> Vec<Doubt> {
        let Some(url) = &self.action.url else {
            let fault = Fault::new("url", "the URL is empty, so this sink is off: nothing is sent or kept for it");
            return vec![Doubt::Off(fault.with_hint("set the variable that it comes from where the pipeline runs"))];
        };
        let mut doubts: Vec<Doubt> = private_address(url).into_iter().collect();
        if self.action.keys.is_empty() {
            let fault = Fault::new("secret", "deliveries are not signed, so the receiver cannot tell who calls");
            let hint = "set a secret that both know: echo whsec_$(openssl rand -base64 32)";
            doubts.push(Doubt::Unsigned(fault.with_hint(hint)));
        }
        doubts
    }

    /// Nothing that is only about sending has a part in it: a change of that leaves what was computed as it is.
    fn describe(&self) -> String {
        let types = self.rows.schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type()));
        format!("a delivery per row of ({})", types.collect::<Vec<_>>().join(", "))
    }

    fn summary(&self) -> String {
        let Action { url, endpoint, keys, rate_limit, ordered, .. } = &*self.action;
        if url.is_none() {
            return "is off: its URL is empty".into();
        }
        let signed = if keys.is_empty() { ", not signed" } else { ", signed" };
        let ordered = if *ordered { ", one after the other" } else { "" };
        let rule = self.rows.rule.as_ref();
        let lines = [
            Some(format!("calls {endpoint} for each row{signed}{ordered}")),
            rule.map(|rule| format!("at most once per {} in {}", rule.key.join(", "), format_span(rule.window))),
            rate_limit.as_ref().map(|rate| format!("at most {} times in {}", rate.count, format_span(rate.period))),
        ];
        lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
    }
}

fn private_address(url: &str) -> Option<Doubt> {
    let url = Url::parse(url).ok()?;
    let address: Option<IpAddr> = match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(name) if name == "localhost" || name.ends_with(".localhost") => None,
        Host::Domain(_) => return None,
    };
    if address.is_some_and(is_public) {
        return None;
    }
    let host = url.host_str().unwrap_or_default();
    let fault = Fault::new("url", format!("`{host}` is an address of this machine or network only"));
    let hint = "`run` calls such addresses only where CJ_ACTIONS_ALLOW_NETS allows it (loopback by default)";
    Some(Doubt::PrivateAddress(fault.with_hint(hint)))
}

impl Sink for Rows {
    fn on_epoch(&mut self, _: u64, batches: Vec<Batch>) -> Result<SinkOutput> {
        if self.is_off {
            let suppressed = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            return Ok(SinkOutput { suppressed, ..SinkOutput::default() });
        }
        if batches.is_empty() {
            return Ok(SinkOutput::default());
        }
        let columns: Vec<usize> = (0..self.schema.fields().len()).collect();
        let epoch = EpochRows::concat(&batches, &columns, &self.schema)?;
        let mut equal: HashMap<String, u64> = HashMap::new();
        let mut triggers = Vec::with_capacity(epoch.rows.num_rows());
        for (row, line) in json_lines(&epoch.rows, NonFinite::Text)?.into_iter().enumerate() {
            let event_id = event_id(&epoch, row);
            let trigger = self.trigger(line, epoch.time.value(row), event_id)?;
            let number = equal.entry(trigger.identity.clone()).or_default();
            let identity = format!("{} {number}", trigger.identity);
            *number += 1;
            triggers.push(Trigger { identity, ..trigger });
        }
        Ok(SinkOutput { triggers, ..SinkOutput::default() })
    }
}

fn event_id(epoch: &EpochRows, row: usize) -> Option<String> {
    let ids = epoch.event_id.as_ref().filter(|ids| ids.is_valid(row))?;
    ids.value(row).try_into().ok().map(|bytes| EventId(bytes).to_string())
}

impl Rows {
    fn trigger(&self, line: String, row_time: Micros, event_id: Option<String>) -> Result<Trigger> {
        let needs_values = self.body.is_some() || self.rule.is_some() || (event_id.is_none() && !self.key.is_empty());
        let values: Map<String, Value> = if needs_values {
            serde_json::from_str(&line).map_err(|error| Error::Compute(error.to_string()))?
        } else {
            Map::new()
        };
        let identity = match &event_id {
            Some(id) => format!("event {id}"),
            None if self.key.is_empty() => format!("row {row_time} {line}"),
            None => format!("key {row_time} {}", key_text(&self.key, &values)),
        };
        let dedupe = self.rule.as_ref();
        let dedupe = dedupe.map(|rule| Dedupe { key: key_text(&rule.key, &values), window: rule.window });
        let body = self.body.as_ref().map_or(line, |template| template.fill(&values)).into_bytes();
        Ok(Trigger { identity, body, row_time, event_id, dedupe })
    }
}

/// The values of columns as a JSON list.
fn key_text(columns: &[String], values: &Map<String, Value>) -> String {
    let value = |name: &String| values.get(name).cloned().unwrap_or_default();
    Value::Array(columns.iter().map(value).collect()).to_string()
}
