//! Dead letters: what could not be used, kept as it came, so that nothing vanishes and somebody can put it right.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::time::Micros;

/// Something that could not be processed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Why, by kind: `decode`, `validation`, `max_ahead`, `late`, `compute`, `sink`, `webhook`.
    pub reason: String,
    /// Where: the stream, sink or source.
    pub source: String,
    /// What happened, for people.
    pub message: String,
    /// The event, if it is one.
    pub event_id: Option<String>,
    /// Its row time.
    pub event_time: Option<Micros>,
    /// What it was: the row as JSON, or the bytes that came.
    pub body: Vec<u8>,
    /// Where in the source it stood, such as `readings.ndjson:17`, or a topic.
    pub place: Option<String>,
    /// Whether the place tells it from every other of its source: it has one dead letter then, however often it is handed
    /// in.
    pub is_placed: bool,
    /// What the source knew of it beside its bytes, by name (`topic.1`): with it the message can be taken again.
    pub variables: BTreeMap<String, String>,
}

/// What has become of a dead letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LetterState {
    /// Nobody has decided yet.
    #[default]
    Open,
    /// It went through the door again, and was stored.
    Replayed,
    /// Somebody decided that it is not wanted.
    Discarded,
}

impl LetterState {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }

    /// The state of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Open, Self::Replayed, Self::Discarded].into_iter().find(|state| state.as_str() == name)
    }
}

/// A stored dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDeadLetter {
    /// Its number.
    pub id: i64,
    /// When it was recorded.
    pub recorded_at: Micros,
    /// The version of the pipeline file that made it.
    pub version: String,
    /// What has become of it.
    pub state: LetterState,
    /// When that was decided.
    pub settled_at: Option<Micros>,
    /// What it is.
    pub letter: DeadLetter,
}

/// Which dead letters are wanted; what is not set does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// Of this reason.
    pub reason: Option<String>,
    /// Of this stream, sink or source.
    pub source: Option<String>,
    /// About this event.
    pub event_id: Option<String>,
    /// In this state.
    pub state: Option<LetterState>,
    /// Recorded at or after this time.
    pub from: Option<Micros>,
    /// Recorded before this time.
    pub to: Option<Micros>,
    /// With a number below this one: the next page of a list that is newest first.
    pub before: Option<i64>,
}

/// The dead letters of a pipeline.
pub trait DeadLetters: Send + Sync {
    /// Adds some that belong to no epoch: what a door rejects of a source that cannot be told. Durable when it returns.
    /// One that is placed, and whose source has a letter for that place already, is left out.
    ///
    /// # Errors
    /// When they cannot be written; none of them is then.
    fn add_dead_letters(&self, now: Micros, letters: &[DeadLetter]) -> Result<()>;

    /// Those that fit, the newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    fn dead_letters(&self, filter: &LetterFilter, limit: u64) -> Result<Vec<StoredDeadLetter>>;

    /// One by its number.
    ///
    /// # Errors
    /// When it cannot be read.
    fn dead_letter(&self, id: i64) -> Result<Option<StoredDeadLetter>>;

    /// Says what has become of an open one; `false` if there is none of that number that is open.
    ///
    /// # Errors
    /// When it cannot be written.
    fn settle_dead_letter(&self, id: i64, state: LetterState, now: Micros) -> Result<bool>;

    /// Forgets those that are settled and were recorded before a time; says how many they were. `max` at a time, so that
    /// nobody waits long.
    ///
    /// # Errors
    /// When they cannot be deleted.
    fn forget_dead_letters(&self, before: Micros, max: u64) -> Result<u64>;
}
