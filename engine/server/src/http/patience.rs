//! Clients that do not get on: bodies that do not arrive, and answers that nobody takes. Either would hold its connection
//! for ever, and there are only so many.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, timeout_at};

use super::Problem;

/// How long a request's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take nothing of an answer that is there for it.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Routes whose requests have to arrive in time.
pub fn patient(routes: Router) -> Router {
    patient_for(routes, BODY_TIMEOUT)
}

fn patient_for(routes: Router, timeout: Duration) -> Router {
    routes.route_layer(from_fn(move |request: Request, next: Next| async move {
        let is_late = Arc::new(AtomicBool::new(false));
        let (parts, body) = request.into_parts();
        let body = timed(body.into_data_stream(), Instant::now() + timeout, Arc::clone(&is_late));
        let response = next.run(Request::from_parts(parts, body)).await;
        if !is_late.load(Ordering::Relaxed) {
            return response;
        }
        let late = Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time");
        let mut response = late.into_response();
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }))
}

fn timed(body: BodyDataStream, deadline: Instant, is_late: Arc<AtomicBool>) -> Body {
    Body::from_stream(futures::stream::unfold((body, is_late), move |(mut body, is_late)| async move {
        if let Ok(chunk) = timeout_at(deadline, body.next()).await {
            return Some((chunk?.map_err(io::Error::other), (body, is_late)));
        }
        is_late.store(true, Ordering::Relaxed);
        Some((Err(io::ErrorKind::TimedOut.into()), (body, is_late)))
    }))
}

/// A connection that ends when its client takes nothing for too long of what is there for it.
pub struct Attended<S> {
    stream: S,
    timeout: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Attended<S> {
    /// A connection to attend to.
    pub fn new(stream: S) -> Self {
        Self { stream, timeout: STALL_TIMEOUT, stalled: None }
    }

    /// What becomes of a write: one that waits has its time.
    fn attend<T>(&mut self, outcome: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let timeout = self.timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Attended<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Attended<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.attend(outcome, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.attend(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_flush(context);
        this.attend(outcome, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_arrive_is_not_waited_for() {
        let routes = Router::new().route("/", post(async |body: Bytes| body));
        let routes = patient_for(routes, Duration::from_millis(100));
        let post = |body: Body| routes.clone().oneshot(Request::post("/").body(body).expect("a request"));
        assert_eq!(post(Body::from("all")).await.expect("an answer").status(), StatusCode::OK);
        let first = futures::stream::once(async { Ok::<_, io::Error>(Bytes::from("a part")) });
        let never = Body::from_stream(first.chain(futures::stream::pending()));
        let response = post(never).await.expect("an answer");
        assert_eq!(
            (response.status(), &response.headers()["connection"]),
            (StatusCode::REQUEST_TIMEOUT, &"close".parse().expect("a value"))
        );
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_ends_its_connection() {
        let (ours, mut theirs) = tokio::io::duplex(10);
        let mut ours = Attended { stream: ours, timeout: Duration::from_millis(200), stalled: None };
        // Slowly is well enough.
        let reader = tokio::spawn(async move {
            let mut byte = [0];
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                theirs.read_exact(&mut byte).await.expect("a byte");
            }
            theirs
        });
        ours.write_all(&[0; 30]).await.expect("it gets on");
        let _theirs = reader.await.expect("it ends");
        let stalled = ours.write_all(&[0; 30]).await.expect_err("nobody reads");
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
    }
}
