//! The embedded MQTT broker of a round.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use cornjacket_compiler::Pipeline;
use cornjacket_core::door::Door;
use cornjacket_operators::sources::mqtt::{self, Broker, BrokerCounted, BrokerCounts, Passwords, Restored};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::mqtt_remote::{Given, sources};
use super::readings::Readings;
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
        given.registry.register(Box::new(metrics(&counts)?))?;
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
fn metrics(counts: &Arc<BrokerCounts>) -> prometheus::Result<Readings> {
    let mut readings = Readings::default();
    let name = "cornjacket_broker_publishes_total";
    let publishes = readings.family(name, "Messages published to the embedded broker.", &["qos"])?;
    for (index, qos) in ["0", "1", "2"].into_iter().enumerate() {
        let counts = Arc::clone(counts);
        readings.read(publishes, &[qos], move || counts.read().publishes[index]);
    }
    let mut one = |name: &str, help: &str, read: fn(&BrokerCounted) -> u64| {
        let family = readings.family(&format!("cornjacket_broker_{name}"), help, &[])?;
        let counts = Arc::clone(counts);
        readings.read(family, &[], move || read(&counts.read()));
        prometheus::Result::Ok(())
    };
    one("connections", "Clients of the embedded broker.", |now| now.connections)?;
    one("connects_total", "Clients that were let in.", |now| now.connects)?;
    one("refused_total", "Clients that were not let in.", |now| now.refused)?;
    one("acks_total", "Publishes acknowledged, as durable.", |now| now.acknowledged)?;
    one("repeats_total", "Publishes sent again that were stored, or about to be.", |now| now.repeated)?;
    one("delivered_total", "Messages sent to those who subscribed.", |now| now.delivered)?;
    one("dropped_total", "Messages that a subscriber had no room for, or could not take.", |now| now.dropped)?;
    one("unretained_total", "Messages that were not retained for want of room.", |now| now.unretained)?;
    Ok(readings)
}
