//! What the door counts. Labels have only names out of the pipeline file and the codes of this program, so their number
//! is bounded whatever clients send.

use std::sync::Arc;

use cornjacket_core::catalogue::EventType;
use cornjacket_core::door::Refusal;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets};

/// The door's metrics.
pub(super) struct Metrics {
    accepted: IntCounterVec,
    repeated: IntCounterVec,
    rejected: IntCounterVec,
    refused: IntCounterVec,
    /// How long the log takes for a commit.
    pub commit_seconds: Histogram,
    commit_rows: Histogram,
    /// How many submissions wait; the queue keeps it.
    pub waiting: IntGauge,
}

impl Metrics {
    /// Makes the metrics known to a registry.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| -> prometheus::Result<Histogram> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let waiting = IntGauge::new("cornjacket_door_queue_events", "Events waiting to be decoded.")?;
        registry.register(Box::new(waiting.clone()))?;
        let kind = ["source", "event_type"];
        Ok(Self {
            accepted: counter("cornjacket_events_accepted_total", "Events stored.", &kind)?,
            repeated: counter("cornjacket_events_repeated_total", "Events that were stored already.", &kind)?,
            rejected: counter("cornjacket_events_rejected_total", "Events that are wrong.", &["source", "code"])?,
            refused: counter("cornjacket_events_refused_total", "Events that could not be taken.", &["reason"])?,
            commit_seconds: histogram(
                "cornjacket_commit_seconds",
                "How long the log takes for a commit.",
                exponential_buckets(0.000_25, 2.0, 16)?,
            )?,
            commit_rows: histogram("cornjacket_commit_rows", "Events per commit.", exponential_buckets(1.0, 4.0, 9)?)?,
            waiting,
        })
    }

    /// Counts an event that is wrong.
    pub fn rejected(&self, source: &str, code: &str) {
        self.rejected.with_label_values(&[source, code]).inc();
    }

    /// Counts an event that could not be taken.
    pub fn refused(&self, refusal: &Refusal) {
        let reason = match refusal {
            Refusal::Busy => "busy",
            Refusal::Unavailable(_) => "unavailable",
            Refusal::Closing => "closing",
            // Counted with its code where it was rejected.
            Refusal::Rejected(_) => return,
        };
        self.refused.with_label_values(&[reason]).inc();
    }

    /// Records the size of a commit.
    pub fn observe_rows(&self, rows: usize) {
        self.commit_rows.observe(u32::try_from(rows).unwrap_or(u32::MAX).into());
    }
}

/// The counters of a source's events of one type.
pub(super) struct Kind {
    source: Arc<str>,
    event_type: Arc<EventType>,
    pub accepted: IntCounter,
    pub repeated: IntCounter,
}

impl Kind {
    /// Whether it counts events of this type.
    pub fn is_of(&self, event_type: &Arc<EventType>) -> bool {
        Arc::ptr_eq(&self.event_type, event_type)
    }
}

/// Every kind of event seen so far: as many as there are sources times event types, at most.
pub(super) struct Kinds {
    metrics: Arc<Metrics>,
    known: Vec<Arc<Kind>>,
}

impl Kinds {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, known: Vec::new() }
    }

    /// The counters, looked up without an allocation except the first time.
    pub fn of(&mut self, source: &Arc<str>, event_type: &Arc<EventType>) -> Arc<Kind> {
        let is_same = |kind: &&Arc<Kind>| kind.is_of(event_type) && kind.source == *source;
        if let Some(kind) = self.known.iter().find(is_same) {
            return Arc::clone(kind);
        }
        let labels = [source.as_ref(), event_type.name.as_str()];
        let kind = Arc::new(Kind {
            source: Arc::clone(source),
            event_type: Arc::clone(event_type),
            accepted: self.metrics.accepted.with_label_values(&labels),
            repeated: self.metrics.repeated.with_label_values(&labels),
        });
        self.known.push(Arc::clone(&kind));
        kind
    }
}
