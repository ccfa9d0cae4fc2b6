//! The order of dependency among streams.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Streams in an order in which each comes after what it reads, and the cycles that have none.
pub(crate) struct Order {
    pub(crate) sorted: Vec<usize>,
    /// Each cycle's streams: every one is read by the one before it, the first by the last.
    pub(crate) cycles: Vec<Vec<usize>>,
}

/// Orders streams by what they read; among equals the order of the file stays. Streams behind a cycle come last.
pub(crate) fn order(names: &[&str], reads: &BTreeMap<&str, BTreeSet<String>>) -> Order {
    let index: HashMap<&str, usize> = names.iter().enumerate().map(|(at, name)| (*name, at)).collect();
    let inputs: Vec<BTreeSet<usize>> = names
        .iter()
        .map(|name| {
            reads.get(name).into_iter().flatten().filter_map(|read| index.get(read.as_str()).copied()).collect()
        })
        .collect();
    let mut waiting: BTreeMap<usize, BTreeSet<usize>> = inputs.into_iter().enumerate().collect();
    let (mut sorted, mut cycles) = (release(&mut waiting), Vec::new());
    while let Some(cycle) = cycle(&waiting) {
        for at in &cycle {
            waiting.remove(at);
        }
        for inputs in waiting.values_mut() {
            inputs.retain(|input| !cycle.contains(input));
        }
        sorted.extend(release(&mut waiting));
        cycles.push(cycle);
    }
    Order { sorted, cycles }
}

/// Takes out whatever waits for nothing, again and again.
fn release(waiting: &mut BTreeMap<usize, BTreeSet<usize>>) -> Vec<usize> {
    let mut readers: HashMap<usize, Vec<usize>> = HashMap::new();
    for (reader, inputs) in waiting.iter() {
        for input in inputs {
            readers.entry(*input).or_default().push(*reader);
        }
    }
    let mut ready: BTreeSet<usize> =
        waiting.iter().filter(|(_, inputs)| inputs.is_empty()).map(|(at, _)| *at).collect();
    let mut released = Vec::new();
    while let Some(next) = ready.pop_first() {
        waiting.remove(&next);
        released.push(next);
        for reader in readers.get(&next).into_iter().flatten() {
            if let Some(inputs) = waiting.get_mut(reader) {
                inputs.remove(&next);
                if inputs.is_empty() {
                    ready.insert(*reader);
                }
            }
        }
    }
    released
}

/// A cycle among those that still wait: each of them waits for another, so following that leads around one.
fn cycle(waiting: &BTreeMap<usize, BTreeSet<usize>>) -> Option<Vec<usize>> {
    let mut path: Vec<usize> = Vec::new();
    let mut seen: HashMap<usize, usize> = HashMap::new();
    let mut at = *waiting.keys().next()?;
    loop {
        if let Some(start) = seen.insert(at, path.len()) {
            return Some(path.split_off(start));
        }
        path.push(at);
        at = *waiting.get(&at)?.first()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(streams: &[(&str, &[&str])]) -> (Vec<String>, Vec<Vec<String>>) {
        let names: Vec<&str> = streams.iter().map(|(name, _)| *name).collect();
        let reads =
            streams.iter().map(|(name, reads)| (*name, reads.iter().map(ToString::to_string).collect())).collect();
        let Order { sorted, cycles } = order(&names, &reads);
        let name = |at: usize| names[at].to_string();
        (
            sorted.into_iter().map(name).collect(),
            cycles.into_iter().map(|c| c.into_iter().map(name).collect()).collect(),
        )
    }

    #[test]
    fn what_is_read_comes_first_and_the_files_order_stays() {
        let (sorted, cycles) =
            ordered(&[("c", &["b", "a"]), ("x", &["event.type"]), ("b", &["a"]), ("a", &["event.type"])]);
        assert_eq!(sorted, ["x", "a", "b", "c"]);
        assert!(cycles.is_empty());
    }

    #[test]
    fn every_cycle_is_named_once_and_the_rest_is_kept() {
        let (sorted, cycles) =
            ordered(&[("self_", &["self_"]), ("a", &["b"]), ("b", &["a"]), ("after", &["a"]), ("free", &[])]);
        assert_eq!(cycles, [vec!["self_"], vec!["a", "b"]]);
        assert_eq!(sorted, ["free", "after"]);
    }
}
