//! Numbers that others count, as metrics: they are read when somebody asks for them.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

/// Metrics and where their numbers come from.
#[derive(Default)]
pub(super) struct Readings {
    families: Vec<Family>,
    readings: Vec<Reading>,
}

enum Family {
    Counter(IntCounterVec),
    Gauge(IntGaugeVec),
}

impl Family {
    fn desc(&self) -> Vec<&Desc> {
        match self {
            Self::Counter(counter) => counter.desc(),
            Self::Gauge(gauge) => gauge.desc(),
        }
    }

    fn collect(&self) -> Vec<MetricFamily> {
        match self {
            Self::Counter(counter) => counter.collect(),
            Self::Gauge(gauge) => gauge.collect(),
        }
    }
}

struct Reading {
    family: usize,
    labels: Vec<String>,
    read: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Readings {
    /// A metric with labels of these names: a counter if its name says so (`_total`), a gauge otherwise.
    pub fn family(&mut self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<usize> {
        let options = Opts::new(name, help);
        self.families.push(if name.ends_with("_total") {
            Family::Counter(IntCounterVec::new(options, labels)?)
        } else {
            Family::Gauge(IntGaugeVec::new(options, labels)?)
        });
        Ok(self.families.len() - 1)
    }

    /// One number of a metric.
    pub fn read(&mut self, family: usize, labels: &[&str], read: impl Fn() -> u64 + Send + Sync + 'static) {
        let labels = labels.iter().map(ToString::to_string).collect();
        self.readings.push(Reading { family, labels, read: Box::new(read) });
    }
}

impl Collector for Readings {
    fn desc(&self) -> Vec<&Desc> {
        self.families.iter().flat_map(Family::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for Reading { family, labels, read } in &self.readings {
            match &self.families[*family] {
                Family::Counter(counter) => {
                    let counter = counter.with_label_values(labels);
                    counter.inc_by(read().saturating_sub(counter.get()));
                }
                Family::Gauge(gauge) => gauge.with_label_values(labels).set(i64::try_from(read()).unwrap_or(i64::MAX)),
            }
        }
        self.families.iter().flat_map(Family::collect).collect()
    }
}
