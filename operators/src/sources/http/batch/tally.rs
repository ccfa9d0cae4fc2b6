//! What became of a batch, and the answer that says so. What it holds is bounded however much is rejected.

use axum::http::StatusCode;
use axum::response::Response;
use cornjacket_core::door::{Rejection, Taken};
use serde::Serialize;

use super::super::answer::{Problem, json};

/// A batch of which more events than this are rejected is read no further.
pub(super) const MAX_REJECTED: usize = 10_000;
/// Details are left out once the list has so many bytes.
const MAX_DETAILED_BYTES: usize = 1 << 20;

/// Counts what became of a batch's events.
#[derive(Debug, Default)]
pub(super) struct Tally {
    accepted: u64,
    rejected: usize,
    /// The rejected ones as JSON, with commas between them.
    list: String,
}

#[derive(Serialize)]
struct Entry<'a> {
    index: u64,
    error: &'a str,
    code: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    details: &'a [cornjacket_core::door::Detail],
}

impl Tally {
    /// Adds what became of a chunk that begins at a place in the batch.
    pub fn add(&mut self, first: u64, taken: &Taken) {
        self.accepted += taken.stored + taken.repeated;
        for (index, rejection) in &taken.rejections {
            self.reject(first + *index as u64, rejection);
        }
    }

    fn reject(&mut self, index: u64, rejection: &Rejection) {
        self.rejected += 1;
        if self.rejected > MAX_REJECTED {
            return;
        }
        let is_short = self.list.len() < MAX_DETAILED_BYTES;
        let details: &[_] = if is_short { &rejection.details } else { &[] };
        // What the splitter calls unreadable is what is too long.
        let code = if rejection.code == "unreadable" { "too_large" } else { rejection.code };
        let entry = Entry { index, error: &rejection.message, code, details };
        if !self.list.is_empty() {
            self.list.push(',');
        }
        // Texts and numbers always serialize.
        self.list.push_str(&serde_json::to_string(&entry).unwrap_or_default());
    }

    pub fn has_too_many_rejected(&self) -> bool {
        self.rejected > MAX_REJECTED
    }

    /// The answer to a batch that was read to its end, or that ended with a problem.
    pub fn answer(self, outcome: Result<(), Problem>) -> Response {
        let members = format!(",\"accepted\":{},\"rejected\":[{}]", self.accepted, self.list);
        match outcome {
            Err(problem) => problem.with_members(&members),
            Ok(()) if self.accepted == 0 && self.rejected > 0 => Problem::all_rejected().with_members(&members),
            Ok(()) => json(StatusCode::ACCEPTED, format!("{{{}}}", &members[1..])),
        }
    }
}
