//! Keep-alive connections that cost little beside what is measured: HTTP/1.1 over one socket each, and the common
//! client where the service is behind TLS.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::body::{Body, Bytes, to_bytes};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::Url;

use crate::Failure;
use crate::environment::of_machine;
use crate::remote::Remote;
use crate::retry_after::asked_for;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_mins(2);
/// Bytes of an answer at most: one tells of every rejected event of a batch.
const ANSWER_BYTES: usize = 64 << 20;

/// The service that takes events in.
pub(super) struct Target {
    remote: Remote,
    url: Url,
    authorization: Option<HeaderValue>,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// How long to wait before coming again, where it says so.
    pub(super) wait: Option<Duration>,
}

/// A connection that takes one request at a time.
pub(super) struct Connection {
    target: Arc<Target>,
    /// `None` where the common client sees to connections.
    sender: Option<SendRequest<Body>>,
}

impl Target {
    pub(super) fn new(remote: Remote, api_key: Option<&str>) -> Result<Self, Failure> {
        let wrong = || format!("{} is no address of a service: write one such as http://127.0.0.1:8080", remote.base());
        let url = Url::parse(remote.base()).with_context(wrong).map_err(Failure::Input)?;
        if url.host_str().is_none() || !matches!(url.scheme(), "http" | "https") {
            return Err(Failure::Input(anyhow!(wrong())));
        }
        let header = api_key.map(|key| HeaderValue::from_str(&format!("Bearer {key}")));
        let authorization = header.transpose().context("--api-key is no key").map_err(Failure::Input)?;
        Ok(Self { remote, url, authorization })
    }

    /// What an answer that is no success says, in words.
    pub(super) fn failure(&self, answer: &Answer) -> Failure {
        self.remote.failure(answer.status, &answer.body)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Body>> {
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, self.url.port_or_known_default().unwrap_or(80))).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with its sender; what goes wrong on it is told to who sends.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn headers(&self, content_type: &'static str) -> anyhow::Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.extend(self.authorization.clone().map(|value| (AUTHORIZATION, value)));
        let host = &self.url[url::Position::BeforeHost..url::Position::AfterPort];
        headers.insert(HOST, HeaderValue::from_str(host)?);
        Ok(headers)
    }
}

impl Connection {
    pub(super) async fn open(target: &Arc<Target>) -> Result<Self, Failure> {
        let mut connection = Self { target: Arc::clone(target), sender: None };
        connection.sender = connection.connected().await.map_err(|error| connection.unreachable(error))?;
        Ok(connection)
    }

    /// Posts a body.
    pub(super) async fn post(
        &mut self,
        path: &'static str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let answer = tokio::time::timeout(PATIENCE, self.exchange(path, content_type, body)).await;
        let answer = answer.unwrap_or_else(|_| Err(anyhow!("there was no answer within {} s", PATIENCE.as_secs())));
        answer.map_err(|error| self.unreachable(error))
    }

    async fn connected(&self) -> anyhow::Result<Option<SendRequest<Body>>> {
        if self.target.url.scheme() == "https" { Ok(None) } else { self.target.connect().await.map(Some) }
    }

    async fn exchange(&mut self, path: &str, content_type: &'static str, body: Bytes) -> anyhow::Result<Answer> {
        if self.sender.as_ref().is_some_and(SendRequest::is_closed) {
            self.sender = self.connected().await?;
        }
        let Some(sender) = &mut self.sender else {
            return through_client(&self.target.remote, path, content_type, body).await;
        };
        let prefix = self.target.url.path().trim_end_matches('/');
        let mut request = Request::builder().method(Method::POST).uri(format!("{prefix}{path}"));
        if let Some(headers) = request.headers_mut() {
            *headers = self.target.headers(content_type)?;
        }
        sender.ready().await?;
        let (parts, body) = sender.send_request(request.body(Body::from(body))?).await?.into_parts();
        let body = to_bytes(Body::new(body), ANSWER_BYTES).await?;
        Ok(Answer { status: parts.status, body, wait: wait(&parts.headers) })
    }

    fn unreachable(&self, error: anyhow::Error) -> Failure {
        Failure::Environment(error.context(format!("{} does not answer", self.target.remote.base())))
    }
}

async fn through_client(remote: &Remote, path: &str, content_type: &str, body: Bytes) -> anyhow::Result<Answer> {
    let request = remote.request(Method::POST, path).header(CONTENT_TYPE, content_type).body(body);
    let response = request.send().await?;
    let (status, wait) = (response.status(), wait(response.headers()));
    Ok(Answer { status, body: response.bytes().await?, wait })
}

fn wait(headers: &HeaderMap) -> Option<Duration> {
    asked_for(headers, of_machine().clock.now()).map(|span| Duration::from_micros(span.unsigned_abs()))
}
