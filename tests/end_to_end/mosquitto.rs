//! A real Mosquitto, on a port and in a folder of its own, and a publisher that keeps account of its PUBACKs.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rumqttc::{AsyncClient, Event, MqttOptions, Outgoing, Packet, QoS};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// A broker that ends with the test.
pub struct Mosquitto {
    folder: TempDir,
    pub port: u16,
    child: Option<Child>,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!(
                "Mosquitto says:\n{}",
                std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
            );
        }
    }
}

impl Mosquitto {
    /// One that lets everybody in.
    pub fn start() -> Self {
        Self::start_with(|_| "allow_anonymous true\n".into())
    }

    /// One with further settings; they are told the folder that its files may be in.
    pub fn start_with(settings: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let at = folder.path().display();
        // It keeps sessions in its folder when it is told to end. As root it would become another user.
        let config = format!(
            "listener {port} 127.0.0.1\nuser root\npersistence true\npersistence_location {at}/\nmax_queued_messages 0\n\
             log_dest file {at}/log\n{}",
            settings(folder.path())
        );
        std::fs::write(folder.path().join("mosquitto.conf"), config).expect("written");
        let mut broker = Self { folder, port, child: None };
        broker.run();
        broker
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Runs it again on the same port and folder.
    pub fn run(&mut self) {
        let mut child = tool("mosquitto")
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Mosquitto starts");
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(child.try_wait().expect("a child").is_none(), "Mosquitto ended:\n{log}");
            assert!(Instant::now() < deadline, "Mosquitto is not ready in time:\n{log}");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child = Some(child);
    }

    /// Ends it in order, so that it keeps what it has.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill").success());
        child.wait().expect("ended");
    }
}

/// A program of Debian's package `mosquitto`, which lies where not everybody looks.
pub fn tool(name: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file());
    let missing = "is not installed, and this test needs it: apt-get install mosquitto mosquitto-clients openssl";
    Command::new(found.unwrap_or_else(|| panic!("`{name}` {missing}")))
}

fn free_port() -> u16 {
    let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    socket.local_addr().expect("an address").port()
}

/// A device that publishes with QoS 1 and knows what the broker has taken.
pub struct Publisher {
    client: AsyncClient,
    eventloop: rumqttc::EventLoop,
    /// Numbers that were asked for and have no packet id yet.
    asked: VecDeque<u64>,
    by_packet: HashMap<u16, u64>,
    /// Numbers whose PUBACK has come.
    pub taken: BTreeSet<u64>,
}

impl Publisher {
    pub fn new(port: u16, credentials: Option<(&str, &str)>) -> Self {
        let mut options = MqttOptions::new(format!("publisher-{port}"), "127.0.0.1", port);
        options.set_inflight(200);
        if let Some((user, password)) = credentials {
            options.set_credentials(user, password);
        }
        let (client, eventloop) = AsyncClient::new(options, 1_000);
        Self { client, eventloop, asked: VecDeque::new(), by_packet: HashMap::new(), taken: BTreeSet::new() }
    }

    /// Publishes a number for its device, of which there are seven; says so once the broker has been asked to take it.
    pub fn publish(&mut self, number: u64) -> bool {
        let body = format!("{{\"n\":{number}}}");
        let is_asked = self.client.try_publish(topic(number), QoS::AtLeastOnce, false, body).is_ok();
        if is_asked {
            self.asked.push_back(number);
        }
        is_asked
    }

    /// Lets the network happen once.
    pub async fn turn(&mut self) {
        match self.eventloop.poll().await.expect("the publisher's connection") {
            Event::Outgoing(Outgoing::Publish(packet)) => {
                let number = self.asked.pop_front().expect("it was asked for");
                self.by_packet.insert(packet, number);
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                self.taken.extend(self.by_packet.remove(&ack.pkid));
            }
            _ => {}
        }
    }

    /// Publishes these numbers, and waits until the broker has them all.
    pub async fn publish_all(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            while !self.publish(number) {
                self.turn().await;
            }
        }
        self.settle().await;
    }

    /// Waits until the broker has everything.
    pub async fn settle(&mut self) {
        while !self.asked.is_empty() || !self.by_packet.is_empty() {
            tokio::time::timeout(PATIENCE, self.turn()).await.expect("the broker answers");
        }
    }
}

pub fn topic(number: u64) -> String {
    format!("devices/d{}/reading", number % 7)
}
