//! Whether one broker is better than another, from rounds that were run in turn: pure arithmetic.
//!
//! Of each metric there is one value a round. The ratio of two brokers is that of their medians; its spread is what the
//! rounds allow: an interval in which 95 of 100 ratios lie when rounds are drawn again and again (bootstrap). A difference
//! is called one only if that interval lies wholly on one side of 1, no round of one broker reaches into the rounds of the
//! other, and it is at least a hundredth. Everything else is told as no difference, whatever the medians say.

use serde::{Deserialize, Serialize};

use super::payload::Chance;

/// A smaller difference is none that anybody could use.
const SMALLEST: f64 = 0.01;
/// How often rounds are drawn again.
const DRAWS: usize = 4000;

/// Which way a metric is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Better {
    Lower,
    Higher,
}

/// What the rounds say of one broker.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// `None` without a round.
pub(crate) fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(Spread {
        median: median(&sorted)?,
        min: *sorted.first()?,
        max: *sorted.last()?,
    })
}

fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    FirstBetter,
    SecondBetter,
    /// The difference is within what the rounds differ by themselves.
    WithinSpread,
    /// Fewer than two rounds of one of them.
    TooFewRounds,
}

/// First to second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Comparison {
    pub(crate) ratio: f64,
    /// The interval of the ratio.
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) verdict: Verdict,
}

/// Compares the rounds of two brokers; `None` when there is nothing to divide.
pub(crate) fn compare(first: &[f64], second: &[f64], better: Better) -> Option<Comparison> {
    let (a, b) = (spread(first)?, spread(second)?);
    if !(b.median > 0.0 && a.median.is_finite() && b.median.is_finite()) {
        return None;
    }
    let ratio = a.median / b.median;
    if first.len() < 2 || second.len() < 2 {
        return Some(Comparison {
            ratio,
            low: ratio,
            high: ratio,
            verdict: Verdict::TooFewRounds,
        });
    }
    let mut chance = Chance::new(1);
    let mut draw = |values: &[f64]| {
        let mut drawn: Vec<f64> = (0..values.len())
            .map(|_| values[chance.below(values.len() as u64) as usize])
            .collect();
        drawn.sort_by(f64::total_cmp);
        median(&drawn).unwrap_or(f64::NAN)
    };
    let mut ratios: Vec<f64> = (0..DRAWS).map(|_| draw(first) / draw(second)).collect();
    ratios.retain(|ratio| ratio.is_finite());
    ratios.sort_by(f64::total_cmp);
    let at = |quantile: f64| {
        ratios
            .get((quantile * (ratios.len().max(1) - 1) as f64) as usize)
            .copied()
    };
    let (low, high) = (at(0.025).unwrap_or(ratio), at(0.975).unwrap_or(ratio));
    let apart_below = high < 1.0 && a.max < b.min && ratio < 1.0 - SMALLEST;
    let apart_above = low > 1.0 && a.min > b.max && ratio > 1.0 + SMALLEST;
    let verdict = match (apart_below, apart_above, better) {
        (true, _, Better::Lower) | (_, true, Better::Higher) => Verdict::FirstBetter,
        (true, _, Better::Higher) | (_, true, Better::Lower) => Verdict::SecondBetter,
        _ => Verdict::WithinSpread,
    };
    Some(Comparison {
        ratio,
        low,
        high,
        verdict,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(first: &[f64], second: &[f64], better: Better) -> Verdict {
        compare(first, second, better).unwrap().verdict
    }

    #[test]
    fn a_difference_inside_the_spread_is_no_win() {
        // The medians differ by a tenth, and so do the rounds of each.
        let (first, second) = ([0.9, 1.0, 1.1, 0.95], [1.0, 1.1, 1.2, 1.05]);
        assert_eq!(verdict(&first, &second, Better::Lower), Verdict::WithinSpread);
        assert_eq!(verdict(&second, &first, Better::Lower), Verdict::WithinSpread);
        // One round in the other's range is enough to doubt.
        let (first, second) = ([1.0, 1.0, 1.0, 2.05], [2.0, 2.1, 2.2, 2.3]);
        assert_eq!(verdict(&first, &second, Better::Lower), Verdict::WithinSpread);
        // Apart, but by nothing that matters.
        let (first, second) = ([1.0, 1.001, 1.002], [1.005, 1.006, 1.007]);
        assert_eq!(verdict(&first, &second, Better::Lower), Verdict::WithinSpread);
        // The same numbers are the same.
        assert_eq!(
            verdict(&[5.0; 5], &[5.0; 5], Better::Higher),
            Verdict::WithinSpread
        );
    }

    #[test]
    fn a_difference_outside_the_spread_is_one_the_way_the_metric_is_good() {
        let (low, high) = ([1.0, 1.1, 1.2], [2.0, 2.2, 2.1]);
        assert_eq!(verdict(&low, &high, Better::Lower), Verdict::FirstBetter);
        assert_eq!(verdict(&low, &high, Better::Higher), Verdict::SecondBetter);
        assert_eq!(verdict(&high, &low, Better::Lower), Verdict::SecondBetter);
        assert_eq!(verdict(&high, &low, Better::Higher), Verdict::FirstBetter);
        let comparison = compare(&low, &high, Better::Lower).unwrap();
        assert!((comparison.ratio - 1.1 / 2.1).abs() < 1e-9);
        assert!(comparison.low <= comparison.ratio && comparison.ratio <= comparison.high);
        assert!(comparison.low >= 1.0 / 2.2 - 1e-9 && comparison.high <= 1.2 / 2.0 + 1e-9);
    }

    #[test]
    fn one_round_decides_nothing() {
        assert_eq!(verdict(&[1.0], &[9.0, 9.0], Better::Lower), Verdict::TooFewRounds);
        assert_eq!(compare(&[], &[1.0], Better::Lower), None);
        assert_eq!(compare(&[1.0, 1.0], &[0.0, 0.0], Better::Lower), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = spread(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.5, 1.0, 4.0));
    }
}
