//! Somebody who is called by webhooks, on a socket of its own: it answers as the test says, or breaks off in the ways that
//! no HTTP server does by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub at: Instant,
}

impl Request {
    pub fn id(&self) -> String {
        self.header("webhook-id").expect("an id").to_string()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }
}

/// What is done about a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A status, headers (`name: value`, each with its line end) and a body.
    Answer(u16, &'static str, &'static str),
    /// The answer comes after a while.
    Slow(Duration, u16),
    /// A status with a body that never ends.
    Endless(u16),
    /// Nothing, until the caller is tired of it.
    Hang,
    /// The connection is cut with a reset.
    Reset,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self::Answer(status, "", "")
    }
}

/// A receiver at work. It ends when it is dropped.
pub struct Receiver {
    pub at: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Answers as the function says, which is given the request and how many came before it.
    pub async fn start(reply: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let (at, seen) = (listener.local_addr().expect("an address"), Arc::<Mutex<Vec<Request>>>::default());
        let (reply, noted) = (Arc::new(reply), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (reply, seen) = (Arc::clone(&reply), Arc::clone(&noted));
                connections.spawn(async move {
                    // Whoever called may be gone by now.
                    let _ = converse(stream, &*reply, &seen).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { at, seen, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.at)
    }

    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().clone()
    }

    /// Waits until so many requests have come.
    pub async fn until(&self, count: usize) -> Vec<Request> {
        let deadline = Instant::now() + Duration::from_mins(2);
        loop {
            let seen = self.seen();
            if seen.len() >= count {
                return seen;
            }
            assert!(Instant::now() < deadline, "{} of {count} requests came", seen.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn converse(
    stream: TcpStream,
    reply: &(dyn Fn(&Request, usize) -> Reply + Send + Sync),
    seen: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = request(&mut stream).await? {
        let before = {
            let mut seen = seen.lock();
            seen.push(request.clone());
            seen.len() - 1
        };
        match reply(&request, before) {
            Reply::Answer(status, headers, body) => {
                let length = body.len();
                let head = format!("HTTP/1.1 {status} Said\r\n{headers}content-length: {length}\r\n\r\n{body}");
                stream.get_mut().write_all(head.as_bytes()).await?;
            }
            Reply::Slow(wait, status) => {
                tokio::time::sleep(wait).await;
                let head = format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n");
                stream.get_mut().write_all(head.as_bytes()).await?;
            }
            Reply::Endless(status) => {
                let head = format!("HTTP/1.1 {status} Said\r\ncontent-length: 1000000\r\n\r\nwait");
                stream.get_mut().write_all(head.as_bytes()).await?;
                stream.read_u8().await?;
            }
            Reply::Hang => {
                stream.read_u8().await?;
            }
            Reply::Reset => {
                stream.get_ref().set_zero_linger()?;
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The next request of a connection; `None` if the caller has closed it.
async fn request(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return Ok(None),
        }
    }
    let head = String::from_utf8(head).expect("UTF-8");
    let mut lines = head.trim_end().lines();
    let first = lines.next().expect("a first line");
    let (method, rest) = first.split_once(' ').expect("a method");
    assert_eq!(method, "POST", "{first}");
    let path = rest.split(' ').next().expect("a path").to_string();
    let header = |line: &str| {
        let (name, value) = line.split_once(':').expect("a header");
        (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(value.trim()).expect("a value"))
    };
    let headers: HeaderMap = lines.map(header).collect();
    let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Request { path, headers, body, at: Instant::now() }))
}
