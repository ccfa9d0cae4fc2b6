//! JSON in columns: text that is JSON carries a mark on its field, so that every output writes it as JSON and not as a text
//! with JSON in it.

use std::collections::HashMap;

use arrow::datatypes::Field;

/// The key and the value of the mark: Arrow's canonical extension type for JSON.
const MARK: (&str, &str) = ("ARROW:extension:name", "arrow.json");

/// The mark as a field's metadata.
#[must_use]
pub fn metadata() -> HashMap<String, String> {
    HashMap::from([(MARK.0.into(), MARK.1.into())])
}

/// The field with the mark on it: its text is JSON.
#[must_use]
pub fn marked(field: Field) -> Field {
    field.with_metadata(metadata())
}

/// Whether a field's text is JSON.
#[must_use]
pub fn is_marked(field: &Field) -> bool {
    field.metadata().get(MARK.0).is_some_and(|name| name == MARK.1)
}
