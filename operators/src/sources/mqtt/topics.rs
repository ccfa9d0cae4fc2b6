//! Who subscribed to what: a tree of topic levels, in which a topic finds its subscriptions level by level.

use std::collections::HashMap;
use std::sync::Arc;

use super::filter::{Filter, Level};

/// Values by filter and client.
pub(super) struct Tree<V> {
    root: Node<V>,
    count: usize,
}

struct Node<V> {
    texts: HashMap<Box<str>, Node<V>>,
    one: Option<Box<Node<V>>>,
    /// Of filters that end here.
    here: HashMap<Arc<str>, V>,
    /// Of filters that go on with `#`.
    rest: HashMap<Arc<str>, V>,
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self { texts: HashMap::new(), one: None, here: HashMap::new(), rest: HashMap::new() }
    }
}

impl<V> Default for Tree<V> {
    fn default() -> Self {
        Self { root: Node::default(), count: 0 }
    }
}

impl<V> Tree<V> {
    /// Adds a client's subscription; gives the one with the same filter that it had.
    pub fn insert(&mut self, filter: &Filter, client: &Arc<str>, value: V) -> Option<V> {
        let mut node = &mut self.root;
        for level in filter.levels() {
            match level {
                Level::Text(text) => node = node.texts.entry(text.clone()).or_default(),
                Level::One => node = node.one.get_or_insert_default(),
                Level::Rest => {
                    let before = node.rest.insert(Arc::clone(client), value);
                    self.count += usize::from(before.is_none());
                    return before;
                }
            }
        }
        let before = node.here.insert(Arc::clone(client), value);
        self.count += usize::from(before.is_none());
        before
    }

    /// Takes a client's subscription out.
    pub fn remove(&mut self, filter: &Filter, client: &str) -> Option<V> {
        let removed = self.root.remove(filter.levels(), client);
        self.count -= usize::from(removed.is_some());
        removed
    }

    /// Whether nobody subscribed to anything.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Gives every subscription that a topic matches.
    pub fn each<'a>(&'a self, topic: &str, found: &mut impl FnMut(&'a Arc<str>, &'a V)) {
        // Topics of the broker itself are not for wildcards.
        self.root.each(Some(topic), topic.starts_with('$'), found);
    }
}

impl<V> Node<V> {
    fn remove(&mut self, levels: &[Level], client: &str) -> Option<V> {
        let Some((level, after)) = levels.split_first() else { return self.here.remove(client) };
        match level {
            Level::Rest => self.rest.remove(client),
            Level::One => {
                let next = self.one.as_mut()?;
                let removed = next.remove(after, client);
                if next.is_empty() {
                    self.one = None;
                }
                removed
            }
            Level::Text(text) => {
                let next = self.texts.get_mut(text)?;
                let removed = next.remove(after, client);
                if next.is_empty() {
                    self.texts.remove(text);
                }
                removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.one.is_none() && self.here.is_empty() && self.rest.is_empty()
    }

    fn each<'a>(&'a self, topic: Option<&str>, without_wildcards: bool, found: &mut impl FnMut(&'a Arc<str>, &'a V)) {
        if !without_wildcards {
            self.rest.iter().for_each(|(client, value)| found(client, value));
        }
        let Some(topic) = topic else {
            self.here.iter().for_each(|(client, value)| found(client, value));
            return;
        };
        let (level, after) = match topic.split_once('/') {
            Some((level, after)) => (level, Some(after)),
            None => (topic, None),
        };
        if let Some(next) = self.texts.get(level) {
            next.each(after, false, found);
        }
        if let Some(next) = self.one.as_ref().filter(|_| !without_wildcards) {
            next.each(after, false, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn found(tree: &Tree<usize>, topic: &str) -> Vec<usize> {
        let mut all = Vec::new();
        tree.each(topic, &mut |_, value| all.push(*value));
        all.sort_unstable();
        all
    }

    /// The same as asking every filter.
    #[test]
    fn the_tree_finds_what_the_filters_match() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let word = |random: &mut ChaCha8Rng, of: &[&str]| of[random.random_range(0..of.len())].to_string();
        for _ in 0..300 {
            let (mut tree, mut filters) = (Tree::default(), Vec::new());
            for number in 0..20_usize {
                let count = random.random_range(1..5);
                let mut levels: Vec<_> = (0..count).map(|_| word(&mut random, &["a", "b", "+", "", "$x"])).collect();
                if random.random_bool(0.3) {
                    levels.push("#".into());
                }
                let filter = Filter::parse(&levels.join("/"));
                let Ok(filter) = filter else { continue };
                tree.insert(&filter, &format!("client {number}").into(), number);
                filters.push((filter, number));
            }
            if random.random_bool(0.5) {
                let (gone, number) = filters.swap_remove(0);
                assert_eq!(tree.remove(&gone, &format!("client {number}")), Some(number));
                assert_eq!(tree.remove(&gone, &format!("client {number}")), None);
            }
            for _ in 0..20 {
                let count = random.random_range(1..6);
                let topic: Vec<_> = (0..count).map(|_| word(&mut random, &["a", "b", "", "$x", "c"])).collect();
                let topic = topic.join("/");
                let mut expected: Vec<usize> =
                    filters.iter().filter(|(filter, _)| filter.captures(&topic).is_some()).map(|(_, n)| *n).collect();
                expected.sort_unstable();
                assert_eq!(found(&tree, &topic), expected, "{topic}");
            }
            for (filter, number) in filters {
                tree.remove(&filter, &format!("client {number}"));
            }
            assert!(tree.is_empty() && tree.root.is_empty());
        }
    }
}
