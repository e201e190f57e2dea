//! Named axes, lookups and places, on dense tensors.

use super::Dense;
use crate::hir::Equation;
use std::collections::BTreeMap;

/// Counts through the places of a shape in row-major order; the first is all zeros.
fn step(index: &mut [usize], dims: &[usize]) {
    for axis in (0..dims.len()).rev() {
        index[axis] += 1;
        if index[axis] < dims[axis] {
            return;
        }
        index[axis] = 0;
    }
}

fn elements(dims: &[usize]) -> usize {
    dims.iter().product()
}

/// Every term of the sum one by one: these are small.
pub(super) fn einsum(equation: &Equation, operands: &[&Dense]) -> Dense {
    let mut sizes: BTreeMap<char, usize> = BTreeMap::new();
    for (letters, operand) in equation.operands.iter().zip(operands) {
        sizes.extend(letters.chars().zip(operand.dims.iter().copied()));
    }
    let summed = sizes
        .keys()
        .filter(|letter| !equation.result.contains(**letter));
    let letters: Vec<char> = equation.result.chars().chain(summed.copied()).collect();
    let dims: Vec<usize> = letters.iter().map(|letter| sizes[letter]).collect();
    // How far one step along a letter leads in a tensor.
    let strides = |own: &str| -> Vec<usize> {
        let own: Vec<char> = own.chars().collect();
        let stride = |letter: &char| match own.iter().position(|o| o == letter) {
            Some(at) => own[at + 1..].iter().map(|o| sizes[o]).product(),
            None => 0,
        };
        letters.iter().map(stride).collect()
    };
    let result = strides(&equation.result);
    let steps: Vec<Vec<usize>> = equation.operands.iter().map(|own| strides(own)).collect();
    let at = |index: &[usize], strides: &[usize]| -> usize {
        index.iter().zip(strides).map(|(i, s)| i * s).sum()
    };
    let shape: Vec<usize> = equation
        .result
        .chars()
        .map(|letter| sizes[&letter])
        .collect();
    let mut data = vec![0.0; elements(&shape)];
    let mut index = vec![0; dims.len()];
    for _ in 0..elements(&dims) {
        let factors = operands.iter().zip(&steps);
        let product: f64 = factors
            .map(|(o, strides)| o.data[at(&index, strides)])
            .product();
        data[at(&index, &result)] += product;
        step(&mut index, &dims);
    }
    Dense { dims: shape, data }
}

/// Outside of the axis there is nothing: `None`.
pub(super) fn gather(table: &Dense, positions: &Dense, axis: usize) -> Option<Dense> {
    let outer = elements(&table.dims[..axis]);
    let (size, inner) = (table.dims[axis], elements(&table.dims[axis + 1..]));
    let mut data = Vec::with_capacity(outer * positions.data.len() * inner);
    for o in 0..outer {
        for position in &positions.data {
            let position = place(*position, size)?;
            let start = (o * size + position) * inner;
            data.extend_from_slice(&table.data[start..start + inner]);
        }
    }
    let mut dims = table.dims.clone();
    dims.splice(axis..=axis, positions.dims.iter().copied());
    Some(Dense { dims, data })
}

/// Blocks of values at the places of the first axes.
pub(super) fn scatter(values: &Dense, positions: &Dense, dims: Vec<usize>) -> Option<Dense> {
    let axes = positions.dims.last().copied().unwrap_or(0).max(1);
    let block = elements(dims.get(axes..)?).max(1);
    let mut data = vec![0.0; elements(&dims)];
    for (values, position) in values.data.chunks(block).zip(positions.data.chunks(axes)) {
        let mut flat = 0;
        for (at, size) in position.iter().zip(&dims) {
            flat = flat * size + place(*at, *size)?;
        }
        data[flat * block..(flat + 1) * block].copy_from_slice(values);
    }
    Some(Dense { dims, data })
}

fn place(position: f64, size: usize) -> Option<usize> {
    (position >= 0.0 && position.fract() == 0.0 && position < size as f64)
        .then_some(position as usize)
}

pub(super) fn pad(a: &Dense, axis: usize, before: usize, after: usize) -> Dense {
    let block = elements(&a.dims[axis..]);
    let inner = elements(&a.dims[axis + 1..]);
    let mut data = Vec::new();
    for row in a.data.chunks(block.max(1)) {
        data.resize(data.len() + before * inner, 0.0);
        data.extend_from_slice(row);
        data.resize(data.len() + after * inner, 0.0);
    }
    let mut dims = a.dims.clone();
    dims[axis] += before + after;
    Dense { dims, data }
}

/// Positions of the largest entries of every row of the last axis, largest first, ties by position;
/// and the entries.
pub(super) fn top(a: &Dense, count: usize) -> (Dense, Dense) {
    let size = a.dims.last().copied().unwrap_or(1).max(1);
    let (mut values, mut places) = (Vec::new(), Vec::new());
    for row in a.data.chunks(size) {
        let order = descending(row);
        places.extend(order.iter().take(count).map(|at| *at as f64));
        values.extend(order.iter().take(count).map(|at| row[*at]));
    }
    let mut dims = a.dims.clone();
    if let Some(last) = dims.last_mut() {
        *last = count;
    }
    let places = Dense {
        dims: dims.clone(),
        data: places,
    };
    (Dense { dims, data: values }, places)
}

fn descending(row: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
    order
}

/// The places `[count, 2]` of the largest entries of a matrix, largest first.
pub(super) fn top_places(a: &Dense, count: usize) -> Dense {
    let columns = a.dims[1].max(1);
    let mut chosen = descending(&a.data);
    chosen.truncate(count);
    let data = chosen
        .into_iter()
        .flat_map(|flat| [(flat / columns) as f64, (flat % columns) as f64])
        .collect();
    Dense {
        dims: vec![count, 2],
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::dense;
    use super::*;

    fn equation(operands: &[&str], result: &str) -> Equation {
        Equation {
            operands: operands.iter().map(|o| (*o).to_owned()).collect(),
            result: result.to_owned(),
        }
    }

    #[test]
    fn sums_of_products() {
        let a = dense(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let b = dense(&[3], &[1.0, 0.0, 2.0]);
        let product = einsum(&equation(&["ij", "j"], "i"), &[&a, &b]);
        assert_eq!(product.data, [7.0, 16.0]);
        let turned = einsum(&equation(&["ij"], "ji"), &[&a]);
        assert_eq!(
            (turned.dims, turned.data),
            (vec![3, 2], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0])
        );
        assert_eq!(einsum(&equation(&["ij"], ""), &[&a]).data, [21.0]);
    }

    #[test]
    fn lookups_and_places() {
        let a = dense(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let at = dense(&[3], &[1.0, 0.0, 1.0]);
        let found = gather(&a, &at, 1).unwrap();
        assert_eq!(
            (found.dims, found.data),
            (vec![2, 3], vec![2.0, 1.0, 2.0, 4.0, 3.0, 4.0])
        );
        assert!(gather(&a, &dense(&[1], &[2.0]), 0).is_none());
        let places = top_places(&dense(&[2, 2], &[1.0, 9.0, 8.0, 0.0]), 2);
        assert_eq!(places.data, [0.0, 1.0, 1.0, 0.0]);
        let put = scatter(&dense(&[2], &[5.0, 6.0]), &places, vec![2, 2]).unwrap();
        assert_eq!(put.data, [0.0, 5.0, 6.0, 0.0]);
        assert_eq!(pad(&a, 1, 1, 0).data, [0.0, 1.0, 2.0, 0.0, 3.0, 4.0]);
        assert_eq!(top(&a, 1).0.data, [2.0, 4.0]);
        assert_eq!(top(&a, 1).1.data, [1.0, 1.0]);
    }
}
