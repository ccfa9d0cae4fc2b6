//! Sources that the process reads: files, generators, subscriptions.
//!
//! A reader gives bundles of messages, each with the source's **position** behind it. The position is stored in the same
//! commit as the events, so a process that died goes on exactly behind the last event that it stored. Readers know
//! nothing of loops, waiting and stopping: the feed in the runtime owns those.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::door::{Bundle, EnvelopeTemplate};
use crate::environment::Environment;
use crate::error::Result;

/// What a reader has to give.
#[derive(Debug)]
pub enum Pull {
    /// Messages.
    Bundle(Bundle),
    /// Nothing yet; look again after this time.
    Wait(Duration),
    /// Nothing ever again.
    End,
}

/// How far a bounded source is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How much is read.
    pub done: u64,
    /// How much there is.
    pub total: u64,
    /// Of what.
    pub unit: Unit,
}

/// What progress is counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of files.
    #[default]
    Bytes,
    /// Events.
    Events,
}

/// A source at work.
pub trait Reader: Send {
    /// The next messages. It may block for as long as reading a file does, not for as long as somebody else likes.
    ///
    /// # Errors
    /// Transient errors are tried again; any other ends the run.
    fn next(&mut self) -> Result<Pull>;

    /// How far it is, if it is bounded.
    fn progress(&self) -> Option<Progress> {
        None
    }
}

/// A configured source that is read.
pub trait ReaderFactory: fmt::Debug + Send + Sync {
    /// Whether it ends by itself.
    fn is_bounded(&self) -> bool;

    /// Begins to read behind a stored position, or at the start.
    ///
    /// # Errors
    /// When it cannot be read, or the position is not one of its own.
    fn open(&self, position: Option<&str>, environment: &Environment) -> Result<Box<dyn Reader>>;

    /// What it reads, on one line, for `explain`.
    fn describe(&self) -> String;

    /// How its messages become events; `None` if each is a whole envelope.
    fn envelope(&self) -> Option<Arc<EnvelopeTemplate>> {
        None
    }

    /// Whether it would read this file.
    fn reads(&self, file: &Path) -> bool {
        let _ = file;
        false
    }

    /// Looks whether it can be read, and says what was found.
    ///
    /// # Errors
    /// Why it cannot, for the user.
    fn probe(&self) -> Result<String, String>;
}
