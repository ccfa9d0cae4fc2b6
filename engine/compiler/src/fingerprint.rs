//! Identities of nodes that stay the same over restarts and edits elsewhere in the file.
//!
//! State is reused after an edit only where the fingerprint stayed, so it covers everything that the state depends on:
//! the node itself, its columns and everything upstream. It is a prefix of a SHA-256, since a collision would be silent
//! damage.

use std::fmt::Write as _;

use arrow::datatypes::Schema;
use sha2::{Digest, Sha256};

/// Collects what makes up an identity.
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    /// Begins with what kind of thing it is.
    pub(crate) fn of(kind: &str) -> Self {
        Self(Sha256::new()).with(kind)
    }

    /// Adds a part. Its length goes in first, so that parts cannot run into each other.
    pub(crate) fn with(mut self, part: &str) -> Self {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part.as_bytes());
        self
    }

    /// Adds names and types of columns.
    pub(crate) fn with_schema(self, schema: &Schema) -> Self {
        let column = |field: &std::sync::Arc<arrow::datatypes::Field>| {
            format!("{} {}{}", field.name(), field.data_type(), if field.is_nullable() { "" } else { " not null" })
        };
        schema.fields().iter().fold(self, |all, field| all.with(&column(field)))
    }

    /// The identity: 32 hexadecimal digits.
    pub(crate) fn finish(self) -> String {
        let digest = self.0.finalize();
        digest.iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
            // Writing into a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}
