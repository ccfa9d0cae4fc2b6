//! What follows live reads have in common: server-sent events that are fetched when something has changed, until the client
//! or the service ends.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::http::Problem;

/// How many clients may follow at one time.
const MOST: usize = 256;
/// How often a client hears that the connection is there. It is also how one that has gone is noticed, since a client may
/// close its own side and read on.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// After how long a browser connects again.
const RETRY: Duration = Duration::from_secs(1);

/// The places for those who follow, and when the service ends.
pub struct Live {
    room: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

/// Something that can be followed.
pub trait Follow: Send + 'static {
    /// The next messages; waits until there are some. An error is the last message.
    fn next(&mut self) -> BoxFuture<'_, cornjacket_core::Result<Vec<Event>>>;
}

impl Live {
    /// Places for all who may follow.
    pub fn new(stop: watch::Receiver<bool>) -> Self {
        Self { room: Arc::new(Semaphore::new(MOST)), stop }
    }

    /// Answers with everything that comes.
    pub fn answer(&self, follow: impl Follow) -> Result<Response, Problem> {
        let place = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            let message = format!("{MOST} clients follow already");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", message)
        })?;
        let following =
            Following { follow, ready: VecDeque::new(), is_over: false, stop: self.stop.clone(), _place: place };
        let events = futures::stream::unfold(following, |mut following| async move {
            let event = following.event().await?;
            Some((Ok::<_, Infallible>(event), following))
        });
        Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
    }
}

struct Following<F> {
    follow: F,
    ready: VecDeque<Event>,
    is_over: bool,
    stop: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl<F: Follow> Following<F> {
    /// The next event; `None` at the end.
    async fn event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            tokio::select! {
                // Without its sender the service has ended as well.
                _ = self.stop.wait_for(|stop| *stop) => return None,
                next = self.follow.next() => match next {
                    Ok(events) => self.ready.extend(events),
                    Err(error) => {
                        self.is_over = true;
                        self.ready.push_back(Event::default().event("error").data(problem(&error.to_string())));
                    }
                },
            }
        }
    }
}

fn problem(text: &str) -> String {
    serde_json::json!({"error": text, "code": "storage_unavailable"}).to_string()
}

/// The message that says that what follows is live, with the id to go on from.
pub fn begun(id: &str) -> Event {
    Event::default().event("live").id(id).data("{}").retry(RETRY)
}

/// The id that a client has seen last.
pub fn last_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("last-event-id").and_then(|value| value.to_str().ok()).filter(|id| !id.is_empty())
}

/// Whether a client wants server-sent events.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all("accept").iter().filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|value| value.split(','))
        .any(|form| form.split(';').next().is_some_and(|form| form.trim().eq_ignore_ascii_case("text/event-stream")))
}
