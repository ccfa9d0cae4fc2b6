//! Work on the parts of one commit, on all cores.

/// Does something with each of some items, and gives the results in their order. The caller does its share; with threads
/// that do all of it, it would only wait, and on few cores waking one takes longer than much of the work.
pub(crate) fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let share = items.len().div_ceil(rayon::current_num_threads()).max(1);
    if share >= items.len() {
        return items.iter().map(work).collect();
    }
    let mut parts: Vec<Vec<R>> = Vec::new();
    parts.resize_with(items.chunks(share).len(), Vec::new);
    let all = |(items, results): (&[T], &mut Vec<R>)| results.extend(items.iter().map(&work));
    let mut shares = items.chunks(share).zip(&mut parts);
    let own = shares.next();
    rayon::in_place_scope(|scope| {
        for part in shares {
            scope.spawn(|_| all(part));
        }
        own.into_iter().for_each(all);
    });
    parts.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_the_order_of_their_items() {
        for count in [0, 1, 2, 3, 7, 100] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(side_by_side(&items, |item| item * 2), items.iter().map(|item| item * 2).collect::<Vec<_>>());
        }
    }
}
