//! Which columns identify a row of a stream, where that follows from its SQL.
//!
//! Only where it is known can a row that takes another's place be told from one that goes and one that comes. The rows of
//! a window are identified by the window and what they are grouped by.

use cornjacket_core::aggregate::Relation;

use crate::streams::Streams;

/// The columns, in no order that means anything; `None` if they are not known.
pub(crate) fn of(relation: &Relation, streams: &Streams) -> Option<Vec<usize>> {
    match relation {
        Relation::Table { name, .. } => of(&streams.get(name)?.relation, streams),
        Relation::Union { .. } => None,
        Relation::Tumble { window, .. } => {
            let keys = window.aggregation.keys();
            let shifted = |key: usize| key + usize::from(key >= window.window_at);
            Some((0..keys).map(shifted).chain([window.window_at]).collect())
        }
        Relation::Transform { input, transform } => {
            let position = |key: usize| {
                let part = |field| transform.position_of_field(key, field);
                // A window's start says which it is, and so does its end.
                transform.position_of(key).or_else(|| part("start")).or_else(|| part("end"))
            };
            of(input, streams)?.into_iter().map(position).collect()
        }
    }
}
