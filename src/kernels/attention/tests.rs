use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Against sums in double precision, relative to the largest element: rounding of products over a few
/// dozen elements, and of e^x.
const RELATIVE: f64 = 3e-6;

/// One task after the other, from the last to the first, so that none counts on another.
struct OneByOne;

impl Threads for OneByOne {
    fn each(&self, tasks: usize, one: &(dyn Fn(usize) + Sync)) -> Result<(), String> {
        (0..tasks).rev().for_each(one);
        Ok(())
    }
}

struct Several;

impl Threads for Several {
    fn each(&self, tasks: usize, one: &(dyn Fn(usize) + Sync)) -> Result<(), String> {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        match next.fetch_add(1, Ordering::Relaxed) {
                            task if task < tasks => one(task),
                            _ => return,
                        }
                    }
                });
            }
        });
        Ok(())
    }
}

/// Sizes of a case.
#[derive(Clone, Copy)]
struct Case {
    lead: [usize; 2],
    queries: usize,
    keys: usize,
    width: usize,
    value_width: usize,
    scale: f32,
    layout: Keys,
    guards: bool,
}

const CASE: Case = Case {
    lead: [2, 3],
    queries: 150,
    keys: 150,
    width: 16,
    value_width: 8,
    scale: 0.25,
    layout: Keys::Rows,
    guards: false,
};

/// Numbers between -1 and 1 that are the same in every run.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    let one = |at: usize| {
        let mixed = (at + seed * 7919).wrapping_mul(2_654_435_761) % 65_536;
        mixed as f32 / 32_768.0 - 1.0
    };
    (0..count).map(one).collect()
}

fn transposed(matrices: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let each = matrices.chunks_exact(rows * columns);
    each.flat_map(|matrix| {
        (0..columns)
            .flat_map(move |column| (0..rows).map(move |row| matrix[row * columns + column]))
    })
    .collect()
}

/// Everything that attention gives, from the operands with keys in rows.
struct Results {
    result: Vec<f64>,
    queries: Vec<f64>,
    keys: Vec<f64>,
    values: Vec<f64>,
    inner: Vec<f32>,
}

struct Tensors {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    of_result: Vec<f32>,
}

impl Tensors {
    fn with<'t>(&'t self, mask: Option<&'t [f32]>) -> Operands<'t> {
        Operands {
            queries: &self.queries,
            keys: &self.keys,
            values: &self.values,
            mask,
        }
    }
}

impl Case {
    fn heads(&self) -> usize {
        self.lead.iter().product()
    }

    fn tensors(&self) -> Tensors {
        let heads = self.heads();
        Tensors {
            queries: numbers(heads * self.queries * self.width, 1),
            keys: numbers(heads * self.keys * self.width, 2),
            values: numbers(heads * self.keys * self.value_width, 3),
            of_result: numbers(heads * self.queries * self.value_width, 4),
        }
    }

    fn attention(&self, mask: Option<&[usize]>) -> Result<Attention, String> {
        let sized = |matrix: [usize; 2]| [&self.lead[..], &matrix].concat();
        let keys = match self.layout {
            Keys::Rows => [self.keys, self.width],
            Keys::Columns => [self.width, self.keys],
        };
        let sizes = OperandSizes {
            queries: sized([self.queries, self.width]),
            keys: sized(keys),
            values: sized([self.keys, self.value_width]),
            mask: mask.map(<[usize]>::to_vec),
        };
        let form = Form {
            scale: self.scale,
            keys: self.layout,
            guards: self.guards,
            has_mask: mask.is_some(),
            has_inner: false,
            gradients: Vec::new(),
        };
        Attention::new(&form, &sizes)
    }

    /// In double precision, element by element; `mask` gives what is added to a score of a head.
    fn expected(&self, of: &Tensors, mask: impl Fn(usize, usize, usize) -> f32) -> Results {
        let (n, m, d, e) = (self.queries, self.keys, self.width, self.value_width);
        let at = |x: &[f32], index: usize| f64::from(x[index]);
        let mut found = Results {
            result: vec![0.0; self.heads() * n * e],
            queries: vec![0.0; self.heads() * n * d],
            keys: vec![0.0; self.heads() * m * d],
            values: vec![0.0; self.heads() * m * e],
            inner: vec![0.0; self.heads() * n],
        };
        for head in 0..self.heads() {
            for i in 0..n {
                let query = (head * n + i) * d;
                let dot = |a: &[f32], a_at: usize, b: &[f32], b_at: usize, size: usize| -> f64 {
                    (0..size).map(|c| at(a, a_at + c) * at(b, b_at + c)).sum()
                };
                let score = |j: usize| {
                    let product = dot(&of.queries, query, &of.keys, (head * m + j) * d, d);
                    f64::from(self.scale) * product + f64::from(mask(head, i, j))
                };
                let scores: Vec<f64> = (0..m).map(score).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
                let sum: f64 = powers.iter().sum();
                let p: Vec<f64> = powers.iter().map(|power| power / sum).collect();
                let row = (head * n + i) * e;
                let dp = |j: usize| dot(&of.of_result, row, &of.values, (head * m + j) * e, e);
                let dp: Vec<f64> = (0..m).map(dp).collect();
                let inner: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                found.inner[head * n + i] = inner as f32;
                for j in 0..m {
                    let (key, value) = ((head * m + j) * d, (head * m + j) * e);
                    for c in 0..e {
                        found.result[row + c] += p[j] * at(&of.values, value + c);
                        found.values[value + c] += p[j] * at(&of.of_result, row + c);
                    }
                    let ds = f64::from(self.scale) * p[j] * (dp[j] - inner);
                    for c in 0..d {
                        found.queries[query + c] += ds * at(&of.keys, key + c);
                        found.keys[key + c] += ds * at(&of.queries, query + c);
                    }
                }
            }
        }
        found
    }

    /// Computes everything and holds it against [`Case::expected`].
    fn check(&self, mask: Option<(&[usize], &[f32])>, added: impl Fn(usize, usize, usize) -> f32) {
        let tensors = self.tensors();
        let expected = self.expected(&tensors, added);
        let keys = match self.layout {
            Keys::Rows => tensors.keys.clone(),
            Keys::Columns => transposed(&tensors.keys, self.keys, self.width),
        };
        let of = Operands {
            queries: &tensors.queries,
            keys: &keys,
            values: &tensors.values,
            mask: mask.map(|(_, mask)| mask),
        };
        let attention = self.attention(mask.map(|(dims, _)| dims)).unwrap();
        let mut result = vec![f32::NAN; expected.result.len()];
        attention.forward(&of, &mut result, &OneByOne).unwrap();
        close("result", &result, &expected.result);
        for (layout, inner) in [
            (Keys::Rows, Some(&expected.inner[..])),
            (Keys::Columns, None),
        ] {
            let given = Given {
                result: &tensors.of_result,
                inner,
            };
            let mut found = [&expected.queries, &expected.keys, &expected.values]
                .map(|expected| vec![f32::NAN; expected.len()]);
            let [queries, keys, values] = &mut found;
            let into = Gradients {
                queries: Some(queries),
                keys: Some((layout, keys)),
                values: Some(values),
            };
            attention.backward(&of, &given, into, &OneByOne).unwrap();
            let [queries, keys, values] = &found;
            let keys = match layout {
                Keys::Rows => keys.clone(),
                Keys::Columns => transposed(keys, self.width, self.keys),
            };
            close("queries", queries, &expected.queries);
            close("keys", &keys, &expected.keys);
            close("values", values, &expected.values);
        }
    }
}

fn close(name: &str, found: &[f32], expected: &[f64]) {
    let scale = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(*found) - expected).abs();
        assert!(
            difference <= RELATIVE * scale,
            "{name} {at}: {found} beside {expected} of {scale}"
        );
    }
}

fn causal(size: usize, masked: f32) -> Vec<f32> {
    let one = |at: usize| if at % size > at / size { masked } else { 0.0 };
    (0..size * size).map(one).collect()
}

#[test]
fn without_a_mask() {
    CASE.check(None, |_, _, _| 0.0);
    let odd = Case {
        lead: [1, 1],
        queries: 3,
        keys: 129,
        width: 5,
        value_width: 1,
        scale: -2.0,
        layout: Keys::Columns,
        guards: false,
    };
    odd.check(None, |_, _, _| 0.0);
    Case {
        layout: Keys::Columns,
        ..CASE
    }
    .check(None, |_, _, _| 0.0);
}

/// Whatever is added where nobody is to look, and with rows that see nothing at all.
#[test]
fn with_causal_masks() {
    for masked in [f32::MIN, f32::NEG_INFINITY, -1e4, -1e9, -30.0] {
        let mask = causal(150, masked);
        let dims = [1, 1, 150, 150];
        CASE.check(
            Some((&dims, &mask)),
            |_, i, j| if j > i { masked } else { 0.0 },
        );
    }
    let mut mask = causal(150, f32::MIN);
    mask[..150 * 70].fill(f32::MIN);
    let from = |i: usize, j: usize| i < 70 || j > i;
    CASE.check(Some((&[150, 150], &mask)), |_, i, j| {
        if from(i, j) { f32::MIN } else { 0.0 }
    });
}

/// Masks of every row of a batch, of every head, of keys alone, and of queries alone.
#[test]
fn masks_are_stretched() {
    let padded = |row: usize, j: usize| if j + 40 * (row + 1) > 150 { -1e9 } else { 0.0 };
    let by_row: Vec<f32> = (0..2)
        .flat_map(|row| (0..150).map(move |j| padded(row, j)))
        .collect();
    CASE.check(Some((&[2, 1, 1, 150], &by_row)), |head, _, j| {
        padded(head / 3, j)
    });
    let bias = |head: usize, i: usize, j: usize| (head as f32 - 1.0) * (i as f32 - j as f32) / 50.0;
    let all = (0..3).flat_map(|head| (0..150 * 150).map(move |at| (head, at)));
    let by_head: Vec<f32> = all
        .map(|(head, at)| bias(head, at / 150, at % 150))
        .collect();
    CASE.check(Some((&[3, 150, 150], &by_head)), |head, i, j| {
        bias(head % 3, i, j)
    });
    let by_query: Vec<f32> = (0..150).map(|i| i as f32 / 150.0).collect();
    CASE.check(Some((&[150, 1], &by_query)), |_, i, _| i as f32 / 150.0);
}

/// What lies behind the last key that counts is not read: here it would spoil everything.
#[test]
fn what_is_masked_is_left_out() {
    let mut tensors = CASE.tensors();
    let mask = causal(150, f32::MIN);
    for head in 0..CASE.heads() {
        for key in 128..150 {
            tensors.values[(head * 150 + key) * CASE.value_width] = f32::NAN;
        }
    }
    let of = tensors.with(Some(&mask));
    let attention = CASE.attention(Some(&[150, 150])).unwrap();
    let mut result = vec![0.0; tensors.of_result.len()];
    attention.forward(&of, &mut result, &OneByOne).unwrap();
    for (at, found) in result.iter().enumerate() {
        let query = at / CASE.value_width % 150;
        assert_eq!(
            found.is_nan() && at % CASE.value_width == 0,
            query >= 128 && at % 8 == 0
        );
    }
}

/// Scores so large that a mask of ten thousand does not hide a key.
#[test]
fn a_mask_that_scores_reach_hides_nothing() {
    let mask = causal(150, -1e4);
    let loud = Case { scale: 3e4, ..CASE };
    let tensors = loud.tensors();
    let expected = loud.expected(&tensors, |_, i, j| if j > i { -1e4 } else { 0.0 });
    let attention = loud.attention(Some(&[150, 150])).unwrap();
    let of = tensors.with(Some(&mask));
    let mut result = vec![0.0; expected.result.len()];
    attention.forward(&of, &mut result, &OneByOne).unwrap();
    // Of such scores the last digits decide between neighbours, but hardly ever.
    let far = result.iter().zip(&expected.result);
    let far = far.filter(|(found, expected)| (f64::from(**found) - **expected).abs() > 1e-3);
    let share = far.count() as f64 / result.len() as f64;
    assert!(share < 0.05, "{share}");
}

/// What is no number shows, where and only where it counts.
#[test]
fn no_numbers_stay_none() {
    let mut tensors = CASE.tensors();
    tensors.queries[0] = f32::NAN;
    let mask = causal(150, f32::MIN);
    let of = tensors.with(Some(&mask));
    let attention = CASE.attention(Some(&[150, 150])).unwrap();
    let mut result = vec![0.0; tensors.of_result.len()];
    attention.forward(&of, &mut result, &OneByOne).unwrap();
    assert!(result[..8].iter().all(|x| x.is_nan()));
    assert!(result[8..].iter().all(|x| x.is_finite()));
    // A key that is no number hides nothing of its head, wherever it is, and is itself not hidden.
    for key in [140, 149, 5 * 150 + 149] {
        let mut tensors = CASE.tensors();
        tensors.keys[key * CASE.width + 3] = f32::NAN;
        let of = tensors.with(Some(&mask));
        attention.forward(&of, &mut result, &OneByOne).unwrap();
        let of_head = 150 * CASE.value_width;
        for (head, values) in result.chunks(of_head).enumerate() {
            let is_spoilt = head == key / 150;
            assert!(
                values.iter().all(|x| x.is_nan() == is_spoilt),
                "{key} {head}"
            );
        }
    }
    let mask = vec![f32::NEG_INFINITY; 150 * 150];
    let of = Operands {
        mask: Some(&mask),
        ..of
    };
    attention.forward(&of, &mut result, &OneByOne).unwrap();
    assert!(result.iter().all(|x| x.is_nan()));
    let guarded = Case {
        guards: true,
        ..CASE
    }
    .attention(Some(&[150, 150]))
    .unwrap();
    guarded.forward(&of, &mut result, &OneByOne).unwrap();
    assert!(result.iter().all(|x| *x == 0.0));
}

/// Rows that see nothing are zeros, and nothing of them goes on.
#[test]
fn guarded_rows_have_no_gradient() {
    let tensors = CASE.tensors();
    let mut mask = causal(150, f32::NEG_INFINITY);
    mask[..150 * 70].fill(f32::NEG_INFINITY);
    let guarded = Case {
        guards: true,
        ..CASE
    }
    .attention(Some(&[150, 150]))
    .unwrap();
    let of = tensors.with(Some(&mask));
    let mut result = vec![f32::NAN; tensors.of_result.len()];
    guarded.forward(&of, &mut result, &OneByOne).unwrap();
    let [mut queries, mut keys] =
        [&tensors.queries, &tensors.keys].map(|tensor| vec![f32::NAN; tensor.len()]);
    let into = Gradients {
        queries: Some(&mut queries),
        keys: Some((Keys::Rows, &mut keys)),
        values: None,
    };
    let given = Given {
        result: &tensors.of_result,
        inner: None,
    };
    guarded.backward(&of, &given, into, &OneByOne).unwrap();
    for (values, width) in [(&result, 8), (&queries, 16)] {
        for (at, x) in values.iter().enumerate() {
            let sees = at / width % 150 >= 70;
            assert!(x.is_finite() && (sees || *x == 0.0), "{at}: {x}");
        }
    }
    assert!(keys.iter().all(|x| x.is_finite()) && keys.iter().any(|x| *x != 0.0));
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let tensors = CASE.tensors();
    let mask = causal(150, f32::MIN);
    let of = tensors.with(Some(&mask));
    let attention = CASE.attention(Some(&[150, 150])).unwrap();
    let inner = numbers(CASE.heads() * 150, 5);
    let given = Given {
        result: &tensors.of_result,
        inner: Some(&inner),
    };
    let run = |threads: &dyn Threads| {
        let sizes = [
            &tensors.of_result,
            &tensors.queries,
            &tensors.keys,
            &tensors.values,
        ];
        let [mut result, mut queries, mut keys, mut values] = sizes.map(|x| vec![0.0; x.len()]);
        attention.forward(&of, &mut result, threads).unwrap();
        let into = Gradients {
            queries: Some(&mut queries),
            keys: Some((Keys::Rows, &mut keys)),
            values: Some(&mut values),
        };
        attention.backward(&of, &given, into, threads).unwrap();
        let all = [result, queries, keys, values].concat();
        all.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
    };
    assert_eq!(run(&OneByOne), run(&Several));
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let refused = |queries: &[usize], keys: &[usize], values: &[usize], mask: Option<&[usize]>| {
        let sizes = OperandSizes {
            queries: queries.to_vec(),
            keys: keys.to_vec(),
            values: values.to_vec(),
            mask: mask.map(<[usize]>::to_vec),
        };
        let form = Form {
            scale: 1.0,
            keys: Keys::Rows,
            guards: false,
            has_mask: mask.is_some(),
            has_inner: false,
            gradients: Vec::new(),
        };
        Attention::new(&form, &sizes).unwrap_err()
    };
    let words = refused(&[2, 3, 4], &[2, 5, 4], &[2, 6, 4], None);
    assert!(words.contains("[2, 6, 4]"), "{words}");
    refused(&[2, 3, 4], &[1, 5, 4], &[1, 5, 4], None);
    refused(&[2, 3, 4], &[2, 5, 3], &[2, 5, 4], None);
    refused(&[3], &[5, 3], &[5, 4], None);
    let words = refused(&[2, 3, 4], &[2, 5, 4], &[2, 5, 4], Some(&[4, 5]));
    assert!(
        words.contains("[4, 5]") && words.contains("[2, 3, 5]"),
        "{words}"
    );
    refused(&[3, 4], &[5, 4], &[5, 4], Some(&[1, 3, 5]));
    refused(&[3, 0], &[5, 0], &[5, 4], None);
    let attention = CASE.attention(None).unwrap();
    let tensors = CASE.tensors();
    let of = Operands {
        queries: &tensors.queries[1..],
        keys: &tensors.keys,
        values: &tensors.values,
        mask: None,
    };
    let mut result = vec![0.0; tensors.of_result.len()];
    assert!(attention.forward(&of, &mut result, &OneByOne).is_err());
    let of = Operands {
        queries: &tensors.queries,
        ..of
    };
    assert!(attention.forward(&of, &mut result[1..], &OneByOne).is_err());
    assert!(attention.forward(&of, &mut result, &OneByOne).is_ok());
}

/// Nothing to look at, or nobody who looks.
#[test]
fn empty_sizes_give_zeros() {
    for (queries, keys, value_width) in [(0, 4, 4), (4, 0, 4), (4, 4, 0)] {
        let case = Case {
            queries,
            keys,
            value_width,
            ..CASE
        };
        let tensors = case.tensors();
        let of = tensors.with(None);
        let attention = case.attention(None).unwrap();
        let mut result = vec![1.0; tensors.of_result.len()];
        attention.forward(&of, &mut result, &OneByOne).unwrap();
        assert!(result.iter().all(|x| *x == 0.0));
    }
}

#[test]
fn forms_are_read_as_they_were_written() {
    let form = |has_mask: bool, has_inner: bool, gradients: &[Gradient]| Form {
        scale: -0.125,
        keys: Keys::Columns,
        guards: has_mask,
        has_mask,
        has_inner,
        gradients: gradients.to_vec(),
    };
    let columns = Gradient::Keys(Keys::Columns);
    for (form, operands) in [
        (form(false, false, &[]), 3),
        (form(true, false, &[Gradient::Values]), 5),
        (form(true, true, &[columns, Gradient::Queries]), 6),
    ] {
        assert_eq!(Form::decode(&form.encode()).as_ref(), Some(&form));
        assert_eq!(form.operands(), operands);
    }
    let both = [columns, Gradient::Keys(Keys::Rows)];
    for broken in [
        form(false, true, &both),
        form(true, true, &[Gradient::Values]),
        form(true, true, &[]),
    ] {
        assert_eq!(Form::decode(&broken.encode()), None);
    }
    assert!(Form::decode(&[0, 0, 0, 1, 0]).is_some());
    assert_eq!(Form::decode(&[0, 0, 0, 2, 0]), None);
    assert_eq!(Form::decode(&[0, 0, 0, 1]), None);
    assert_eq!(Form::decode(&[-1, 0, 0, 1, 0]), None);
    assert_eq!(Form::decode(&[0, 0, 0, 1, 0, 4]), None);
}
