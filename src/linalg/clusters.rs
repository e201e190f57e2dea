//! Rows of a matrix in clusters.

use super::Matrix;

/// As many rounds as PEFT makes.
const ROUNDS: usize = 10;

/// The cluster of every row, by k-means (Lloyd, 1982). The first centre is the longest row, every other one the
/// row that is farthest from those before; of several the first. So nothing depends on a seed. A cluster
/// that loses its rows keeps its centre.
pub fn clusters(matrix: &Matrix, count: usize) -> Vec<usize> {
    let rows: Vec<&[f64]> = matrix.data.chunks(matrix.columns.max(1)).collect();
    let mut centres = starts(&rows, count);
    let mut found = assigned(&rows, &centres);
    for _ in 0..ROUNDS {
        for (cluster, centre) in centres.iter_mut().enumerate() {
            let members = rows.iter().zip(&found).filter(|(_, own)| **own == cluster);
            let members: Vec<&[f64]> = members.map(|(row, _)| *row).collect();
            if !members.is_empty() {
                *centre = mean(&members);
            }
        }
        let next = assigned(&rows, &centres);
        if next == found {
            break;
        }
        found = next;
    }
    found
}

fn starts(rows: &[&[f64]], count: usize) -> Vec<Vec<f64>> {
    let Some(first) = rows.first() else {
        return Vec::new();
    };
    let origin = vec![0.0; first.len()];
    let mut nearest: Vec<f64> = rows.iter().map(|row| distance(row, &origin)).collect();
    let mut centres: Vec<Vec<f64>> = Vec::with_capacity(count);
    while centres.len() < count {
        let farthest = first_largest(&nearest);
        let centre = rows[farthest].to_vec();
        for (row, nearest) in rows.iter().zip(&mut nearest) {
            let own = distance(row, &centre);
            *nearest = match centres.is_empty() {
                true => own,
                false => nearest.min(own),
            };
        }
        centres.push(centre);
    }
    centres
}

fn assigned(rows: &[&[f64]], centres: &[Vec<f64>]) -> Vec<usize> {
    let nearest = |row: &&[f64]| {
        let distances: Vec<f64> = centres.iter().map(|c| -distance(row, c)).collect();
        first_largest(&distances)
    };
    rows.iter().map(nearest).collect()
}

fn first_largest(values: &[f64]) -> usize {
    let mut found = 0;
    for (at, value) in values.iter().enumerate() {
        if *value > values[found] {
            found = at;
        }
    }
    found
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

fn mean(rows: &[&[f64]]) -> Vec<f64> {
    let width = rows.first().map_or(0, |row| row.len());
    let entry = |at: usize| rows.iter().map(|row| row[at]).sum::<f64>() / rows.len() as f64;
    (0..width).map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_lie_together_are_one_cluster() {
        let data = vec![0.1, 0.0, 5.0, 5.0, 0.0, 0.1, 5.1, 5.0, -9.0, 0.0, 5.0, 5.2];
        let matrix = Matrix::new(6, 2, data).expect("sizes fit");
        assert_eq!(clusters(&matrix, 3), [2, 1, 2, 1, 0, 1]);
    }

    #[test]
    fn rows_that_are_alike_leave_clusters_empty() {
        let matrix = Matrix::new(3, 1, vec![1.0; 3]).expect("sizes fit");
        assert_eq!(clusters(&matrix, 2), [0, 0, 0]);
    }
}
