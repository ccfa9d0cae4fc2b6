//! The embedded MQTT broker of a round.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use cornjacket_compiler::Pipeline;
use cornjacket_core::door::Door;
use cornjacket_operators::sources::mqtt::{self, Broker, BrokerCounted, BrokerCounts, Passwords, Restored};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::mqtt_remote::{Given, sources};
use crate::cli;

/// Bytes of receipts that are read back for each source: those of some 200,000 messages.
const RECEIPT_BYTES: usize = 6 << 20;

/// The broker at work.
pub(super) struct EmbeddedBroker {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
    /// Where clients connect to.
    pub(super) at: SocketAddr,
}

impl EmbeddedBroker {
    /// Starts it on its socket.
    ///
    /// # Errors
    /// When the password file or what was stored cannot be read.
    pub(super) fn start(
        (listener, at): (TcpListener, SocketAddr),
        password_file: Option<&Path>,
        given: &Given<'_>,
    ) -> anyhow::Result<Self> {
        let passwords = password_file.map(passwords).transpose()?;
        let restore = |(name, source): (String, mqtt::Source)| -> anyhow::Result<Restored> {
            Ok(Restored { source, receipts: given.storage.log.receipts(&name, RECEIPT_BYTES)? })
        };
        let restored = sources(given.pipeline).into_iter().map(restore).collect::<anyhow::Result<_>>()?;
        let counts = Arc::new(BrokerCounts::default());
        given.registry.register(Box::new(Metrics::new(Arc::clone(&counts))?))?;
        let door: Arc<dyn Door> = Arc::clone(given.door);
        let random = Arc::clone(&given.environment.random);
        let broker = Broker::new(restored, door, passwords, (random, &counts));
        let (stop, stopped) = watch::channel(false);
        Ok(Self { task: tokio::spawn(broker.serve(listener, stopped)), stop, at })
    }

    /// Settles what clients have sent, and takes leave of them. The door must be open still.
    pub(super) async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

/// Devices beyond this machine are asked for a password, unless the network is said to keep strangers out.
pub(super) fn may_listen(arguments: &cli::Run, pipeline: &Pipeline) -> anyhow::Result<()> {
    let open = arguments.passwords_file().is_none() && !arguments.host.is_loopback() && !arguments.insecure;
    if open && !arguments.mqtt_url.is_set() && !sources(pipeline).is_empty() {
        return Err(anyhow!(
            "{} is open to others, and the embedded MQTT broker asks nobody who they are: name the devices with \
             --mqtt-password-file, use a loopback address, or say --insecure if the network keeps strangers out",
            arguments.host
        ));
    }
    Ok(())
}

/// Reads the password file.
pub(super) fn passwords(file: &Path) -> anyhow::Result<Passwords> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("the password file {} (CJ_MQTT_PASSWORD_FILE) cannot be read", file.display()))?;
    Passwords::parse(&text).map_err(|why| anyhow!("{}: {why}", file.display()))
}

/// What the broker counts, as metrics.
struct Metrics {
    counts: Arc<BrokerCounts>,
    publishes: IntGaugeVec,
    others: IntGaugeVec,
}

impl Metrics {
    fn new(counts: Arc<BrokerCounts>) -> prometheus::Result<Self> {
        let publishes = Opts::new("cornjacket_broker_publishes_total", "Messages published to the embedded broker.");
        let others = Opts::new("cornjacket_broker", "What the embedded broker has and did.");
        Ok(Self {
            counts,
            publishes: IntGaugeVec::new(publishes, &["qos"])?,
            others: IntGaugeVec::new(others, &["what"])?,
        })
    }
}

impl Collector for Metrics {
    fn desc(&self) -> Vec<&Desc> {
        self.publishes.desc().into_iter().chain(self.others.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let BrokerCounted {
            connections,
            connects,
            refused,
            publishes,
            acknowledged,
            repeated,
            delivered,
            dropped,
            unretained,
        } = self.counts.read();
        for (qos, published) in ["0", "1", "2"].into_iter().zip(publishes) {
            self.publishes.with_label_values(&[qos]).set(whole(published));
        }
        let others = [
            ("connections", connections),
            ("connects", connects),
            ("refused", refused),
            ("acknowledged", acknowledged),
            ("repeated", repeated),
            ("delivered", delivered),
            ("dropped", dropped),
            ("unretained", unretained),
        ];
        for (what, count) in others {
            self.others.with_label_values(&[what]).set(whole(count));
        }
        self.publishes.collect().into_iter().chain(self.others.collect()).collect()
    }
}
