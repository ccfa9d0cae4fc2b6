//! The sockets of the services: opened once, and handed to each round as copies, so that no connection is refused while
//! one round makes way for the next.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::OnceLock;

use anyhow::{Context, Result};

use crate::cli;
use crate::folder::Ports;

/// Sockets that listen; a service without one does not run.
pub(super) struct Sockets {
    ingest: Option<TcpListener>,
    query: Option<TcpListener>,
    actions: Option<TcpListener>,
    /// Opened when the first pipeline comes that has a source for it.
    mqtt: OnceLock<TcpListener>,
    mqtt_place: (IpAddr, u16),
}

impl Sockets {
    /// Opens the sockets. A run that ends by itself goes without those that it cannot have.
    pub(super) fn open(arguments: &cli::Run, is_optional: bool) -> Result<Self> {
        let open = |port, flag| match bind(arguments.host, port, flag) {
            Err(error) if is_optional => {
                tracing::warn!("{error:#}; this run goes without");
                Ok(None)
            }
            other => other.map(Some),
        };
        Ok(Self {
            ingest: open(arguments.ingestion_port, "--ingestion-port")?,
            query: open(arguments.query_port, "--query-port")?,
            actions: open(arguments.actions_port, "--actions-port")?,
            mqtt: OnceLock::new(),
            mqtt_place: (arguments.host, arguments.mqtt_port),
        })
    }

    pub(super) fn ports(&self) -> Ports {
        let port = |socket: &Option<TcpListener>| Some(socket.as_ref()?.local_addr().ok()?.port());
        let mqtt = self.mqtt.get().and_then(|socket| Some(socket.local_addr().ok()?.port()));
        Ports { ingest: port(&self.ingest), query: port(&self.query), actions: port(&self.actions), mqtt }
    }

    /// The socket of the ingest service for a round, and its address.
    pub(super) fn ingest(&self) -> Result<Option<(tokio::net::TcpListener, SocketAddr)>> {
        copy(self.ingest.as_ref())
    }

    /// The socket of the embedded broker for a round, and its address.
    pub(super) fn mqtt(&self) -> Result<(tokio::net::TcpListener, SocketAddr)> {
        if self.mqtt.get().is_none() {
            let (host, port) = self.mqtt_place;
            // Rounds follow one another, so nobody else has set it meanwhile.
            let _ = self.mqtt.set(bind(host, port, "--mqtt-port")?);
        }
        copy(self.mqtt.get())?.context("the socket of the MQTT broker is not there")
    }

    /// The socket of the action service for a round, and its address.
    pub(super) fn actions(&self) -> Result<Option<(tokio::net::TcpListener, SocketAddr)>> {
        copy(self.actions.as_ref())
    }

    /// The socket of the query service for a round, and its address.
    pub(super) fn query(&self) -> Result<Option<(tokio::net::TcpListener, SocketAddr)>> {
        copy(self.query.as_ref())
    }
}

/// Opens a socket; the message of an error names the port and the flag.
fn bind(host: IpAddr, port: u16, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(SocketAddr::new(host, port)).with_context(|| {
        format!("port {port} on {host} cannot be opened: choose another with {flag} (0 takes any that is free)")
    })
}

fn copy(socket: Option<&TcpListener>) -> Result<Option<(tokio::net::TcpListener, SocketAddr)>> {
    let Some(socket) = socket else { return Ok(None) };
    let copy = socket.try_clone().context("a socket cannot be copied")?;
    copy.set_nonblocking(true).context("a socket cannot be set up")?;
    let address = copy.local_addr()?;
    Ok(Some((tokio::net::TcpListener::from_std(copy)?, address)))
}
