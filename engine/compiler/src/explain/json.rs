//! An explanation as JSON, for programs.

use serde::Serialize;

use super::Explanation;

/// Raised when a member changes its meaning or goes; members may be added without.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

impl Explanation {
    /// One JSON object; its members are described in `docs/api.md`.
    #[must_use]
    pub fn json(&self) -> String {
        let document = Document { version: VERSION, explanation: self };
        // Texts, numbers and lists of them can always be written.
        let text = serde_json::to_string_pretty(&document).unwrap_or_default();
        text + "\n"
    }
}
