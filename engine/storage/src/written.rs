//! What a write did to a projection, for the ledger.

/// What became of an epoch's rows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub(crate) inserted: i64,
    pub(crate) updated: i64,
    pub(crate) deleted: i64,
    /// What is there is newer, or is not there any more.
    pub(crate) superseded: i64,
}

impl Written {
    /// As the ledger counts it.
    pub(crate) fn counters(self) -> [(&'static str, i64); 4] {
        let Self { inserted, updated, deleted, superseded } = self;
        let written = inserted + updated + deleted;
        [("written", written), ("superseded", superseded), ("inserted", inserted), ("deleted", deleted)]
    }
}
