//! A source at work: which messages are its own, and the bundles that they are handed to the door in.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::component::{Fault, SourceContext};
use cornjacket_core::door::{Bundle, EnvelopeTemplate, Known, Message, Rejects};

use super::Settings;
use super::filter::Filter;

/// A configured mqtt source.
#[derive(Clone, Debug)]
pub struct Source {
    pub(super) name: Arc<str>,
    pub(super) filters: Vec<Filter>,
    pub(super) qos: u8,
    pub(super) takes_retained: bool,
    envelope: Option<Arc<EnvelopeTemplate>>,
}

impl Source {
    /// Checks settings and makes them a source.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn new(name: &str, settings: &Settings, catalogue: &Arc<Catalogue>) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let filters = filters(&settings.topics, &mut faults);
        if settings.qos > 1 {
            let message = format!("the quality of service is 0 or 1, not {}", settings.qos);
            let hint = "1: a device that publishes with 2 is served all the same, and nothing is lost";
            faults.push(Fault::new("qos", message).with_hint(hint));
        }
        // What one filter does not have cannot be filled for its topics.
        let count = filters.iter().map(Filter::wildcards).min().unwrap_or(0);
        let variables: Vec<String> = (1..=count).map(|number| format!("topic.{number}")).collect();
        let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
        let context = SourceContext { name: name.into(), catalogue: Arc::clone(catalogue), folder: PathBuf::new() };
        let envelope = settings.event.as_ref().map(|event| event.template(&context, &variables)).transpose();
        let envelope = envelope.map_err(|found| faults.extend(found));
        match (envelope, faults.is_empty()) {
            (Ok(envelope), true) => Ok(Self {
                name: name.into(),
                filters,
                qos: settings.qos,
                takes_retained: settings.retained,
                envelope: envelope.map(Arc::new),
            }),
            _ => Err(faults),
        }
    }

    /// How its messages become events; `None` if each is a whole envelope.
    pub fn envelope(&self) -> Option<Arc<EnvelopeTemplate>> {
        self.envelope.clone()
    }

    /// What is known of a message by its topic; `None` if it is not this source's.
    pub(super) fn known(&self, topic: &str) -> Option<Known> {
        let captures = self.filters.iter().find_map(|filter| filter.captures(topic))?;
        let mut known = Known { origin: Some(topic.into()), ..Known::default() };
        known.metadata.push(("topic", topic.to_owned()));
        if self.envelope.is_some() {
            let variables =
                captures.iter().zip(1..).map(|(text, number)| (format!("topic.{number}"), (*text).to_owned()));
            known.variables = variables.collect();
        }
        Some(known)
    }

    /// A bundle without messages.
    pub(super) fn bundle(&self) -> Bundle {
        Bundle {
            source: Arc::clone(&self.name),
            origin: Arc::clone(&self.name),
            bytes: Vec::new(),
            messages: Vec::new(),
            known: Vec::new(),
            envelope: self.envelope.clone(),
            position: None,
            receipts: Vec::new(),
            rejects: Rejects::DeadLetters,
            chain: None,
        }
    }
}

/// Puts a message at the end of a bundle.
pub(super) fn add(bundle: &mut Bundle, payload: &[u8], known: Known) {
    let start = bundle.bytes.len();
    bundle.bytes.extend_from_slice(payload);
    let number = bundle.messages.len() as u64 + 1;
    bundle.messages.push(Message { bytes: start..bundle.bytes.len(), number, fault: None });
    bundle.known.push(known);
}

fn filters(topics: &[String], faults: &mut Vec<Fault>) -> Vec<Filter> {
    if topics.is_empty() {
        faults.push(Fault::new("topics", "there is no topic").with_hint("topics: [\"devices/+/reading\"]"));
    }
    let mut seen = BTreeSet::new();
    let mut filters = Vec::new();
    for (index, topic) in topics.iter().enumerate() {
        match Filter::parse(topic) {
            Ok(_) if !seen.insert(topic) => {
                faults.push(Fault::new("topics", format!("`{topic}` is there twice")).at(index));
            }
            Ok(_) if topic.starts_with('$') => {
                let message = format!("`{topic}` is a topic of the broker itself, where no device publishes");
                let hint = "shared subscriptions are made by themselves: write the filter alone";
                faults.push(Fault::new("topics", message).at(index).with_hint(hint));
            }
            Ok(filter) => filters.push(filter),
            Err(message) => {
                let hint = "such as devices/+/reading, or devices/#";
                faults.push(Fault::new("topics", message).at(index).with_hint(hint));
            }
        }
    }
    filters
}
