//! Figures of many measurements.

/// The value below which this part (0 to 1) of sorted values lies: the nearest rank. 0 without values.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
    let rank = (sorted.len() as f64 * part - 1e-9).ceil().max(1.0) as usize;
    sorted.get(rank.min(sorted.len()).saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Values in their order.
pub fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// How much y rises for each x along the line that fits best (least squares); `None` where there is no such line.
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "a number of measurements")]
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let common: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    (points.len() > 1 && spread > 0.0).then(|| common / spread)
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "small whole numbers")]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values: Vec<f64> = (1..=1_000).map(f64::from).collect();
        let at = |part| percentile(&values, part);
        assert_eq!([at(0.0), at(0.5), at(0.99), at(0.999), at(1.0)], [1.0, 500.0, 990.0, 999.0, 1_000.0]);
        assert_eq!((percentile(&[], 0.5), percentile(&[7.0], 0.999)), (0.0, 7.0));
        assert_eq!(percentile(&sorted([3.0, 1.0, 2.0]), 0.5), 2.0);
    }

    #[test]
    fn a_slope_is_that_of_the_best_line() {
        let line: Vec<(f64, f64)> = (0..10).map(|x| (f64::from(x), 5.0 - 2.0 * f64::from(x))).collect();
        assert!(slope(&line).is_some_and(|slope| (slope + 2.0).abs() < 1e-9));
        // Worked out by hand: means 1 and 4/3, common 1, spread 2.
        let bent = [(0.0, 1.0), (1.0, 1.0), (2.0, 2.0)];
        assert!(slope(&bent).is_some_and(|slope| (slope - 0.5).abs() < 1e-9));
        assert_eq!((slope(&[]), slope(&[(1.0, 1.0)]), slope(&[(1.0, 1.0), (1.0, 2.0)])), (None, None, None));
    }
}
