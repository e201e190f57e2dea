//! What a data set looks like, in numbers.

use super::dataset::Dataset;
use super::example::{IGNORED, Tokens};
use std::ops::Range;

/// Sizes of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub examples: usize,
    pub tokens: u64,
    /// Tokens whose prediction counts.
    pub counted: u64,
    pub shortest: usize,
    /// Half of the examples are at most so long.
    pub median: usize,
    /// 95 of 100 examples are at most so long.
    pub most: usize,
    pub longest: usize,
    /// Lengths with the number of examples that have them; equally wide ranges without a gap.
    pub histogram: Vec<(Range<usize>, usize)>,
}

/// The most bars of a histogram.
const BARS: usize = 12;

impl Summary {
    pub fn new(dataset: &Dataset) -> Summary {
        let examples = dataset.examples();
        let all = || (0..examples.len()).map(|example| examples.tokens(example));
        let mut lengths: Vec<usize> = all().map(|tokens| tokens.ids.len()).collect();
        lengths.sort_unstable();
        // The least length that this share of the examples does not exceed.
        let share = |percent: usize| {
            let at = (lengths.len() * percent).div_ceil(100).max(1);
            lengths.get(at - 1).copied().unwrap_or(0)
        };
        Summary {
            examples: lengths.len(),
            tokens: lengths.iter().map(|length| *length as u64).sum(),
            counted: all().map(|tokens| tokens.counted() as u64).sum(),
            shortest: share(0),
            median: share(50),
            most: share(95),
            longest: share(100),
            histogram: histogram(&lengths),
        }
    }
}

/// `lengths` are sorted.
fn histogram(lengths: &[usize]) -> Vec<(Range<usize>, usize)> {
    let (Some(least), Some(most)) = (lengths.first(), lengths.last()) else {
        return Vec::new();
    };
    let width = (most - least + 1).div_ceil(BARS);
    let starts = (*least..=*most).step_by(width);
    let bar = |start: usize| {
        let below = |end: usize| lengths.partition_point(|length| *length < end);
        let end = start + width;
        (start..end, below(end) - below(start))
    };
    starts.map(bar).collect()
}

/// The tokens of an example in runs of those that count and those that do not.
pub fn runs(tokens: &Tokens<'_>) -> Vec<(bool, Range<usize>)> {
    let counts = |at: usize| at > 0 && tokens.labels.get(at).is_some_and(|l| *l != IGNORED);
    let mut runs: Vec<(bool, Range<usize>)> = Vec::new();
    for at in 0..tokens.ids.len() {
        match runs.last_mut() {
            Some((counted, range)) if *counted == counts(at) => range.end = at + 1,
            _ => runs.push((counts(at), at..at + 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_few_and_leave_nothing_out() {
        for lengths in [vec![7], vec![1, 2, 2, 9], (3..400).collect::<Vec<_>>()] {
            let bars = histogram(&lengths);
            assert!(bars.len() <= BARS);
            assert_eq!(bars.iter().map(|(_, n)| n).sum::<usize>(), lengths.len());
            assert!(bars.windows(2).all(|pair| pair[0].0.end == pair[1].0.start));
        }
        let bars = histogram(&[1, 2, 2, 9]);
        assert_eq!((bars[0].clone(), bars[1].clone()), ((1..2, 1), (2..3, 2)));
    }
}
