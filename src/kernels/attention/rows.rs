//! What happens to rows of scores.
#![allow(unsafe_code)]

use super::super::{lanes, math};

/// What is added to a row of scores.
#[derive(Clone, Copy, Debug)]
pub(super) enum Added<'a> {
    Nothing,
    Number(f32),
    Row(&'a [f32]),
}

/// Has `work` compiled for the widest instructions that are looked for, and for none.
macro_rules! widest {
    ($(#[doc = $doc:literal])* $name:ident, $wide:ident, $work:ident ($($argument:ident: $ty:ty),*)) => {
        $(#[doc = $doc])*
        pub(super) fn $name<'a>($($argument: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma")
            {
                // SAFETY: the processor has the instructions.
                return unsafe { $wide($($argument),*) };
            }
            $work::<false>($($argument),*);
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn $wide<'a>($($argument: $ty),*) {
            $work::<true>($($argument),*);
        }
    };
}

widest! {
    /// Rows of so many scores become probabilities.
    probabilities, probabilities_avx2,
    into_probabilities(
        scores: &mut [f32], keys: usize, guards: bool, added: &dyn Fn(usize) -> Added<'a>
    )
}

widest! {
    /// Gradients of probabilities become those of scores: `p (dp - Σ p dp)`; the sums of rows may be known.
    of_scores, of_scores_avx2,
    into_gradients_of_scores(
        gradients: &mut [f32], probabilities: &'a [f32], keys: usize, inner: Option<&'a [f32]>
    )
}

#[inline(always)]
fn into_probabilities<'a, const FUSED: bool>(
    scores: &mut [f32],
    keys: usize,
    guards: bool,
    added: &dyn Fn(usize) -> Added<'a>,
) {
    for (at, row) in scores.chunks_exact_mut(keys).enumerate() {
        match added(at) {
            Added::Nothing => {}
            Added::Number(number) => row.iter_mut().for_each(|x| *x += number),
            Added::Row(mask) => row.iter_mut().zip(mask).for_each(|(x, mask)| *x += mask),
        }
        let most = lanes::ceiling(row);
        for x in &mut *row {
            *x = math::bounded_exp::<FUSED>(*x - most);
        }
        let factor = 1.0 / lanes::sum(row);
        for x in &mut *row {
            *x *= factor;
        }
        // A row of which one is no number has no number.
        if guards && row[0].is_nan() {
            row.fill(0.0);
        }
    }
}

#[inline(always)]
fn into_gradients_of_scores<const FUSED: bool>(
    gradients: &mut [f32],
    probabilities: &[f32],
    keys: usize,
    inner: Option<&[f32]>,
) {
    let rows = gradients.chunks_exact_mut(keys);
    for (at, (row, probabilities)) in rows.zip(probabilities.chunks_exact(keys)).enumerate() {
        let inner = match inner {
            Some(inner) => inner[at],
            None => lanes::sum_of_products(row, probabilities),
        };
        for (gradient, probability) in row.iter_mut().zip(probabilities) {
            *gradient = probability * (*gradient - inner);
        }
    }
}
