//! The pipeline file as a tree in which every key and value knows its bytes in the file.
//!
//! Everything after parsing works on this tree, so that whatever is found wrong, however late, points at its place.

use std::ops::Range;

/// A range of bytes of the pipeline file.
pub(crate) type Span = Range<usize>;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// What a value is. A scalar has no type of its own: what reads it knows what it wants.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A text, number or boolean, as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Written in quotes or as a block, and thus a text even if it looks like a number.
    pub(crate) quoted: bool,
    /// Holds what came from the environment, so its text is not the file's.
    pub(crate) expanded: bool,
}

/// A key of a map with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Node,
}

impl Node {
    /// The entries of a map; nothing is an empty map.
    pub(crate) fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            Value::Null => Some(&[]),
            Value::Scalar(_) | Value::List(_) => None,
        }
    }

    /// The entry of a map by its key.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| entry.key == key)
    }

    /// Gives keys of a map other names, where those are not taken: what is reported as misspelt is read as it was meant, so
    /// that nothing follows from it.
    pub(crate) fn rename_keys(&mut self, meant: impl Fn(&str) -> Option<&'static str>) {
        let Value::Map(entries) = &mut self.value else { return };
        for at in 0..entries.len() {
            let name = meant(&entries[at].key).filter(|name| entries.iter().all(|entry| entry.key != *name));
            if let Some(name) = name {
                entries[at].key = name.to_string();
            }
        }
    }

    /// The text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// Whether another value says the same; places, styles and the order of keys do not matter.
    pub(crate) fn says_the_same_as(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Null, Value::Null) => true,
            (Value::Scalar(a), Value::Scalar(b)) => a.text == b.text,
            (Value::List(a), Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.says_the_same_as(b))
            }
            (Value::Map(a), Value::Map(b)) => {
                let has =
                    |entry: &Entry| other.entry(&entry.key).is_some_and(|o| entry.value.says_the_same_as(&o.value));
                a.len() == b.len() && a.iter().all(has)
            }
            _ => false,
        }
    }
}
