//! Health and metrics of the process.

use std::sync::Arc;

use cornjacket_core::log::EventLog;
use cornjacket_runtime::Status;
use cornjacket_runtime::door::GroupCommit;
use prometheus::{Encoder, GaugeVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use tokio::sync::watch;

/// How the process is.
pub enum Health {
    /// It takes events in and computes.
    Ready,
    /// It still recovers.
    Starting,
    /// It cannot go on; why.
    Failed(&'static str),
}

/// What is known of the process from outside.
pub struct Metrics {
    registry: Registry,
    gauges: Gauges,
    status: watch::Receiver<Arc<Status>>,
    door: Arc<GroupCommit>,
    log: Arc<dyn EventLog>,
}

struct Gauges {
    epoch: IntGauge,
    lag: IntGauge,
    rows: IntGaugeVec,
    state: IntGaugeVec,
    watermark: GaugeVec,
}

impl Gauges {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let by_node = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["node"]);
        let rows = Opts::new("cornjacket_node_rows_total", "Rows since the start of the process, by node.");
        let watermark =
            Opts::new("cornjacket_watermark_seconds", "A node's watermark, in seconds since the Unix epoch.");
        let gauges = Self {
            epoch: IntGauge::new("cornjacket_epoch", "The last committed epoch.")?,
            lag: IntGauge::new("cornjacket_engine_lag_events", "Events stored and not yet reflected.")?,
            rows: IntGaugeVec::new(rows, &["node", "what"])?,
            state: by_node("cornjacket_state_bytes", "Bytes of state, by node.")?,
            watermark: GaugeVec::new(watermark, &["node"])?,
        };
        registry.register(Box::new(gauges.epoch.clone()))?;
        registry.register(Box::new(gauges.lag.clone()))?;
        registry.register(Box::new(gauges.rows.clone()))?;
        registry.register(Box::new(gauges.state.clone()))?;
        registry.register(Box::new(gauges.watermark.clone()))?;
        Ok(gauges)
    }

    #[allow(clippy::cast_precision_loss, reason = "seconds need no more than a double has")]
    fn update(&self, status: &Status, lag: i64) {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.epoch.set(whole(status.epoch));
        self.lag.set(lag);
        for node in &status.nodes {
            for (what, rows) in [("in", node.rows_in), ("out", node.rows_out), ("late", node.late)] {
                self.rows.with_label_values(&[node.name.as_str(), what]).set(whole(rows));
            }
            self.state.with_label_values(&[node.name.as_str()]).set(whole(node.state_bytes));
            if let Some(watermark) = node.watermark {
                self.watermark.with_label_values(&[node.name.as_str()]).set(watermark as f64 / 1e6);
            }
        }
    }
}

/// Whether the engine has published a status of its own; to be asked of a receiver that has marked none as seen. Before
/// that it only ever publishes what it waits for. A pipeline without sinks has no nodes, so they do not tell.
pub fn has_recovered(status: &watch::Receiver<Arc<Status>>) -> bool {
    let published = status.has_changed().unwrap_or(false);
    let status = status.borrow();
    published && (!status.nodes.is_empty() || status.waiting_for.is_none())
}

impl Metrics {
    /// Metrics in a registry that others write to as well.
    pub fn new(
        registry: Registry,
        status: watch::Receiver<Arc<Status>>,
        door: Arc<GroupCommit>,
        log: Arc<dyn EventLog>,
    ) -> prometheus::Result<Self> {
        Ok(Self { gauges: Gauges::new(&registry)?, registry, status, door, log })
    }

    /// How the process is.
    pub fn health(&self) -> Health {
        if self.status.has_changed().is_err() {
            return Health::Failed("the engine has ended");
        }
        if !self.door.is_healthy() {
            return Health::Failed("the door has closed");
        }
        if has_recovered(&self.status) { Health::Ready } else { Health::Starting }
    }

    /// Everything in Prometheus' text format.
    pub fn text(&self) -> Vec<u8> {
        let status = Arc::clone(&self.status.borrow());
        self.gauges.update(&status, status.positions.distance(&self.log.end()));
        let mut text = Vec::new();
        // Writing to memory cannot fail; a metric that cannot be encoded leaves the others.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }
}
