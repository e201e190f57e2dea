//! Sums of products by index labels.

use super::array::{Array, Elements};
use super::fault::{Fault, mismatch};
use super::sizes::{count, flat, for_each, strides, work};
use super::table::{Entry, one};
use std::collections::BTreeMap;

pub(super) const OPS: &[Entry] = &[one("Einsum", 12, |cx| {
    let Some(equation) = cx.string("equation") else {
        return mismatch!("no `equation`");
    };
    einsum(equation, &cx.all()?)
})];

/// A label: a letter, or an axis of the ellipsis counted from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Ellipsis(usize),
    Letter(char),
}

/// `y[out…] = Σ Π operand[labels…]` over the labels that are not in the output.
fn einsum(equation: &str, operands: &[&Array]) -> Result<Array, Fault> {
    let (inputs, output) = match equation.split_once("->") {
        Some((inputs, output)) => (inputs, Some(output)),
        None => (equation, None),
    };
    let terms: Vec<&str> = inputs.split(',').collect();
    if terms.len() != operands.len() || operands.is_empty() {
        return mismatch!("{} operands for `{equation}`", operands.len());
    }
    let mut labels = Vec::new();
    let mut sizes: BTreeMap<Label, usize> = BTreeMap::new();
    for (term, operand) in terms.iter().zip(operands) {
        let own = labels_of(term, operand.rank())?;
        if own.len() != operand.rank() {
            return mismatch!("`{term}` for {:?}", operand.dims());
        }
        for (label, size) in own.iter().zip(operand.dims()) {
            let known = sizes.entry(*label).or_insert(*size);
            match (*known, *size) {
                (a, b) if a == b => {}
                (1, size) => *known = size,
                (_, 1) => {}
                (a, b) => return mismatch!("sizes {a} and {b} under one label of `{equation}`"),
            }
        }
        labels.push(own);
    }
    let out = match output {
        Some(output) => output_labels(output, &sizes)?,
        None => implicit(inputs, &sizes),
    };
    product(operands, &labels, &sizes, &out)
}

/// The labels of a term for so many axes.
fn labels_of(term: &str, rank: usize) -> Result<Vec<Label>, Fault> {
    let letters: Vec<char> = term.chars().filter(|c| !c.is_whitespace()).collect();
    let named = letters.iter().filter(|c| **c != '.').count();
    let hidden = rank.saturating_sub(named);
    let mut labels = Vec::new();
    let mut rest = letters.as_slice();
    while let [first, behind @ ..] = rest {
        rest = match (first, behind) {
            ('.', ['.', '.', behind @ ..]) => {
                labels.extend((0..hidden).rev().map(Label::Ellipsis));
                behind
            }
            (letter, behind) if letter.is_ascii_alphabetic() => {
                labels.push(Label::Letter(*letter));
                behind
            }
            _ => return mismatch!("`{first}` in the term `{term}`"),
        };
    }
    Ok(labels)
}

fn output_labels(output: &str, sizes: &BTreeMap<Label, usize>) -> Result<Vec<Label>, Fault> {
    let hidden = sizes
        .keys()
        .filter(|label| matches!(label, Label::Ellipsis(_)))
        .count();
    let named = output.chars().filter(|c| c.is_ascii_alphabetic()).count();
    let labels = labels_of(output, named + hidden)?;
    match labels.iter().find(|label| !sizes.contains_key(label)) {
        Some(label) => mismatch!("{label:?} in the output alone"),
        None => Ok(labels),
    }
}

/// Without an output: the ellipsis, then the letters that occur once, in order.
fn implicit(inputs: &str, sizes: &BTreeMap<Label, usize>) -> Vec<Label> {
    let once = |label: &&Label| match label {
        Label::Ellipsis(_) => true,
        Label::Letter(letter) => inputs.matches(*letter).count() == 1,
    };
    let mut labels: Vec<Label> = sizes.keys().filter(once).copied().collect();
    labels.sort_by_key(|label| match label {
        Label::Ellipsis(from_end) => (0, usize::MAX - from_end, ' '),
        Label::Letter(letter) => (1, 0, *letter),
    });
    labels
}

fn product(
    operands: &[&Array],
    labels: &[Vec<Label>],
    sizes: &BTreeMap<Label, usize>,
    out: &[Label],
) -> Result<Array, Fault> {
    let summed = sizes.keys().filter(|label| !out.contains(label));
    let order: Vec<Label> = out.iter().chain(summed).copied().collect();
    let all: Vec<usize> = order.iter().map(|label| sizes[label]).collect();
    let (dims, rest) = all.split_at(out.len());
    work(&[count(dims)?, count(rest)?, operands.len()])?;
    // How far one step of each label moves in each operand; a stretched axis stays.
    let steps: Vec<Vec<usize>> = operands
        .iter()
        .zip(labels)
        .map(|(operand, own)| {
            let strides = strides(operand.dims());
            let step = |label: &Label| {
                let axes = own.iter().enumerate().filter(|(_, l)| *l == label);
                let moving = axes.filter(|(axis, _)| operand.dims()[*axis] != 1);
                moving.map(|(axis, _)| strides[axis]).sum()
            };
            order.iter().map(step).collect()
        })
        .collect();
    let dtype = operands[0].dtype();
    let elements = match operands[0].elements() {
        Elements::Floats(_) => {
            let all: Result<Vec<&[f64]>, Fault> = operands.iter().map(|o| o.as_floats()).collect();
            Elements::Floats(summed_up(
                &all?,
                &steps,
                dims,
                rest,
                1.0,
                |a, b| a * b,
                |a, b| a + b,
            )?)
        }
        Elements::Ints(_) => {
            let all: Result<Vec<&[i128]>, Fault> = operands.iter().map(|o| o.as_ints()).collect();
            let (times, plus) = (i128::wrapping_mul, i128::wrapping_add);
            Elements::Ints(summed_up(&all?, &steps, dims, rest, 1, times, plus)?)
        }
    };
    Array::new(dtype, dims, elements)
}

fn summed_up<T: Copy + Default>(
    operands: &[&[T]],
    steps: &[Vec<usize>],
    dims: &[usize],
    rest: &[usize],
    one: T,
    times: impl Fn(T, T) -> T,
    plus: impl Fn(T, T) -> T,
) -> Result<Vec<T>, Fault> {
    let mut y = Vec::with_capacity(count(dims)?);
    for_each(dims, |at| {
        let starts: Vec<usize> = steps.iter().map(|steps| flat(at, steps)).collect();
        let mut sum = T::default();
        for_each(rest, |inner| {
            let mut term = one;
            for ((data, steps), start) in operands.iter().zip(steps).zip(&starts) {
                let position = start + flat(inner, &steps[dims.len()..]);
                term = times(term, *data.get(position).ok_or_else(super::array::outside)?);
            }
            sum = plus(sum, term);
            Ok(())
        })?;
        y.push(sum);
        Ok(())
    })?;
    Ok(y)
}
