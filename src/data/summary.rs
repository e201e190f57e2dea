//! What a data set looks like, in numbers.

use super::dataset::Dataset;
use super::example::{IGNORED, Tokens};
use super::task::Task;
use std::ops::Range;

/// Sizes of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub examples: usize,
    pub tokens: u64,
    /// Tokens with a label that counts.
    pub counted: u64,
    /// Examples of every class; those of tokens for token classification.
    pub classes: Vec<(String, u64)>,
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
        let sequences =
            |example| (0..examples.parts()).map(move |part| examples.part(example, part));
        let all = || (0..examples.len()).flat_map(sequences);
        let lengths = (0..examples.len()).map(|example| examples.length(example));
        let mut lengths: Vec<usize> = lengths.collect();
        lengths.sort_unstable();
        // The least length that this share of the examples does not exceed.
        let share = |percent: usize| {
            let at = (lengths.len() * percent).div_ceil(100).max(1);
            lengths.get(at - 1).copied().unwrap_or(0)
        };
        Summary {
            examples: lengths.len(),
            tokens: all().map(|tokens| tokens.ids.len() as u64).sum(),
            counted: all().map(|tokens| tokens.counted() as u64).sum(),
            classes: classes(dataset),
            shortest: share(0),
            median: share(50),
            most: share(95),
            longest: share(100),
            histogram: histogram(&lengths),
        }
    }
}

fn classes(dataset: &Dataset) -> Vec<(String, u64)> {
    let examples = dataset.examples();
    let names = dataset.classes();
    let mut counts = vec![0; names.len()];
    let mut count = |class: usize| {
        if let Some(count) = counts.get_mut(class) {
            *count += 1;
        }
    };
    for example in 0..examples.len() {
        match dataset.task() {
            Task::TokenClassification => {
                let labels = examples.tokens(example).labels.iter();
                labels
                    .filter_map(|l| usize::try_from(*l).ok())
                    .for_each(&mut count);
            }
            Task::MultiLabel => {
                let holds = examples.numbers(example).iter().enumerate();
                holds
                    .filter(|(_, share)| **share >= 0.5)
                    .for_each(|(class, _)| count(class));
            }
            _ => examples
                .class(example)
                .into_iter()
                .for_each(|class| count(class as usize)),
        }
    }
    names.into_iter().zip(counts).collect()
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
    let counts = |at: usize| tokens.labels.get(at).is_some_and(|label| *label != IGNORED);
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
