//! Metrics of deliveries.

use cornjacket_core::delivery::Verdict;
use cornjacket_core::time::Micros;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// What is counted of deliveries, by action.
pub(super) struct DeliveryMetrics {
    attempts: IntCounterVec,
    seconds: HistogramVec,
    pending: IntGaugeVec,
}

impl DeliveryMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let attempts = Opts::new("cornjacket_delivery_attempts_total", "Attempts to deliver, by what came of them.");
        let seconds = HistogramOpts::new("cornjacket_delivery_seconds", "How long attempts to deliver took.")
            .buckets(vec![0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]);
        let pending = Opts::new("cornjacket_deliveries_pending", "Deliveries that have not arrived yet.");
        let metrics = Self {
            attempts: IntCounterVec::new(attempts, &["action", "result"])?,
            seconds: HistogramVec::new(seconds, &["action"])?,
            pending: IntGaugeVec::new(pending, &["action"])?,
        };
        registry.register(Box::new(metrics.attempts.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.pending.clone()))?;
        Ok(metrics)
    }

    #[allow(clippy::cast_precision_loss, reason = "seconds need no more than a double has")]
    pub(super) fn attempted(&self, action: &str, verdict: Verdict, took: Micros) {
        let result = match verdict {
            Verdict::Delivered => "delivered",
            Verdict::Again(_) => "failed",
            Verdict::GivenUp => "given_up",
        };
        self.attempts.with_label_values(&[action, result]).inc();
        self.seconds.with_label_values(&[action]).observe(took as f64 / 1e6);
    }

    pub(super) fn set_pending(&self, action: &str, pending: i64) {
        self.pending.with_label_values(&[action]).set(pending);
    }
}
