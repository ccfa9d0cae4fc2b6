//! Events as they are stored, as server-sent events.
//!
//! An id is the place in the log behind an event, so a client goes on where it was, over restarts of this process too.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::response::IntoResponse;
use axum::response::sse::Event;
use cornjacket_core::catalogue::Catalogue;
use cornjacket_core::log::{Positions, TopicPartition};
use cornjacket_core::{Error, Result};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::events::{Wanted, slice};
use super::live::{Follow, begun};
use super::{QueryService, blocking, invalid};
use crate::http::Answered;

/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Answers with what is stored from now on, or behind the id that the client has seen last.
pub fn follow(service: &Arc<QueryService>, wanted: Wanted, last_id: Option<&str>) -> Answered {
    let at = match last_id {
        None => service.storage.log.end(),
        Some(id) => place_of(id, &service.catalogue)
            .ok_or_else(|| invalid(format!("`{id}` is no id of an event of this pipeline: leave Last-Event-ID out")))?,
    };
    let arrivals = Arrivals { service: Arc::clone(service), wanted: Arc::new(wanted), at, has_begun: false };
    Ok(service.live.answer(arrivals)?.into_response())
}

/// Someone who follows the log.
struct Arrivals {
    service: Arc<QueryService>,
    wanted: Arc<Wanted>,
    at: Positions,
    has_begun: bool,
}

impl Follow for Arrivals {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Event>>> {
        self.step().boxed()
    }
}

impl Arrivals {
    async fn step(&mut self) -> Result<Vec<Event>> {
        if !self.has_begun {
            self.has_begun = true;
            return Ok(vec![begun(&id_of(&self.at))]);
        }
        let log = Arc::clone(&self.service.storage.log);
        loop {
            let end = log.end();
            if end.0.iter().all(|(at, offset)| self.at.get(at) >= *offset) {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let (from, wanted, service) = (self.at.clone(), Arc::clone(&self.wanted), Arc::clone(&self.service));
            let read = blocking(move || slice(&*service.storage.log, &service.catalogue, &wanted, (&from, &end)));
            let (found, behind) = read.await.map_err(|problem| Error::Unavailable(problem.error))?;
            self.at = behind;
            let mut events: Vec<Event> =
                found.into_iter().map(|event| Event::default().data(event.to_string())).collect();
            if let Some(last) = events.pop() {
                events.push(last.id(id_of(&self.at)));
                return Ok(events);
            }
        }
    }
}

/// A place in the log as text: `topic/partition:offset`, by commas.
fn id_of(at: &Positions) -> String {
    let mut text = String::new();
    for (TopicPartition { topic, partition }, offset) in &at.0 {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing into a String cannot fail.
        let _ = write!(text, "{comma}{topic}/{partition}:{offset}");
    }
    if text.is_empty() { "-".into() } else { text }
}

fn place_of(id: &str, catalogue: &Catalogue) -> Option<Positions> {
    if id == "-" {
        return Some(Positions::default());
    }
    let place = |text: &str| {
        let (at, offset) = text.rsplit_once(':')?;
        let (topic, partition) = at.rsplit_once('/')?;
        let (partition, offset) = (partition.parse().ok()?, offset.parse().ok().filter(|offset| *offset >= 0)?);
        let exists = catalogue.topics.get(topic).is_some_and(|count| partition < *count);
        exists.then(|| (TopicPartition { topic: topic.into(), partition }, offset))
    };
    id.split(',').map(place).collect::<Option<BTreeMap<_, _>>>().map(Positions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_place() {
        let catalogue =
            Catalogue { topics: [("a-b".to_owned(), 2), ("c".to_owned(), 1)].into(), ..Catalogue::default() };
        for id in ["-", "a-b/0:7", "a-b/0:7,a-b/1:0,c/0:12"] {
            assert_eq!(place_of(id, &catalogue).map(|at| id_of(&at)).as_deref(), Some(id));
        }
        for id in ["x", "", "a-b/2:1", "d/0:1", "c/0:-1", "c/0:1,", "c:1"] {
            assert!(place_of(id, &catalogue).is_none(), "{id}");
        }
    }
}
