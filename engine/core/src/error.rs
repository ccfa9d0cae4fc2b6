use arrow::error::ArrowError;

/// What can go wrong while rows are computed or kept. Each variant says whose fault it is; only
/// [`Error::Unavailable`] and [`Error::Full`] are worth trying again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An Arrow kernel failed on a batch (overflow in a cast, a batch that does not fit its schema).
    #[error("computing on a batch failed")]
    Arrow(#[from] ArrowError),
    /// An expression, aggregate or operator failed; the text says on what.
    #[error("{0}")]
    Compute(String),
    /// Rows cannot be taken, and nothing of them was: whoever gave them may leave some out and try again.
    #[error("{0}")]
    Refused(String),
    /// The log or the store cannot be reached or written now; waiting may help.
    #[error("storage is unavailable: {0}")]
    Unavailable(String),
    /// The disk or the database is full; waiting until there is room helps.
    #[error("storage is full: {0}")]
    Full(String),
    /// What is to be remembered takes more memory than it may; more memory helps, and waiting does not.
    #[error("{0}")]
    Memory(String),
    /// What was stored cannot be read back: a damaged file or one written by a newer version.
    #[error("stored data cannot be read: {0}")]
    Corrupt(String),
    /// What the user asks for contradicts what is stored, such as another number of partitions.
    #[error("{0}")]
    Conflict(String),
    /// The process is shutting down, or (in a simulation) has crashed.
    #[error("closed")]
    Closed,
}

impl Error {
    /// What happened, in the words of whoever found it.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Arrow(error) => error.to_string(),
            other => other.to_string(),
        }
    }

    /// Whether the same call may succeed later without anyone changing anything here.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Full(_))
    }
}

/// The result of everything in this crate's traits.
pub type Result<T, E = Error> = std::result::Result<T, E>;
