//! No operator panics, whatever its operands and attributes are.

use super::array::{Kind, kind};
use super::table::{Entry, Eval};
use super::{Array, Call, FAMILIES, Rounding, evaluate};
use crate::graph::{Attribute, AttributeValue, Tensor};
use crate::ty::DType;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Every attribute that an evaluation reads, by the kinds of values that it may have.
const NUMBERS: &str = "K N align_corners allowzero antialias axis batch_axis batch_dims bits \
    block_size blocksize broadcast causal ceil_mode center_point_box channels_last \
    count_include_pad detect_negative detect_positive do_rotary dtype end exclude_outside \
    exclusive fmod gather_axis group groups input_forget interleaved is_causal is_test k keepdims \
    kv_num_heads largest layout left_window_size linear_before_reset local_window_size \
    noop_with_empty_axes num_groups num_heads num_outputs offset_group opset output_dtype \
    output_height output_width p q_num_heads qk_matmul_output_mode qk_output quantize_axis reverse \
    right_window_size rotary_interleaved sampling_ratio saturate select_last_index size \
    smooth_softmax sorted start stash_type storage_order time_axis to training_mode transA transB \
    transBatchA transBatchB unidirectional upper value_int";
const LISTS: &str = "axes dilations ends kernel_shape output_padding output_shape paddings pads \
    perm pooled_shape qkv_hidden_sizes shape split starts strides value_ints";
const FLOATS: &str = "alpha beta bias clip cubic_coeff_a epsilon extrapolation_value gamma lambd \
    mask_filter_value max min momentum scale softcap spatial_scale value_float";
const FLOAT_LISTS: &str = "activation_alpha activation_beta activation_params scales value_floats";
const WORDS: &[(&str, &str)] = &[
    ("activation", "Relu Clip Tanh silu none Nope"),
    ("approximate", "none tanh"),
    ("auto_pad", "NOTSET SAME_UPPER SAME_LOWER VALID"),
    (
        "coordinate_transformation_mode",
        "half_pixel align_corners asymmetric tf_crop_and_resize pytorch_half_pixel \
         half_pixel_symmetric output_half_pixel",
    ),
    ("direction", "LEFT RIGHT forward reverse bidirectional"),
    (
        "equation",
        "ij,jk->ik ij,jk i,i-> ii->i ...ij->...ji a...,... ->",
    ),
    ("keep_aspect_ratio_policy", "stretch not_larger not_smaller"),
    (
        "mode",
        "constant reflect edge wrap nearest linear cubic bilinear DCR CRD max circular",
    ),
    (
        "nearest_mode",
        "floor ceil round_prefer_floor round_prefer_ceil",
    ),
    ("padding_mode", "zeros border reflection"),
    ("reduction", "none add mul max min"),
    ("update_rule", "linear gated delta gated_delta"),
];

struct Random(ChaCha8Rng);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0.next_u64() as usize % bound.max(1)
    }

    fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    /// Mostly small, sometimes as far out as numbers go.
    fn int(&mut self) -> i64 {
        match self.below(12) {
            0 => self.pick(&[i64::MIN, i64::MAX, -(1 << 31), 1 << 31, 1 << 62]),
            1 => self.pick(&[-1, -2, -3, 100, 255]),
            _ => self.below(4) as i64,
        }
    }

    fn float(&mut self) -> f64 {
        match self.below(10) {
            0 => self.pick(&[
                f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                1e300,
                -1e300,
                -0.0,
            ]),
            _ => self.below(17) as f64 / 4.0 - 2.0,
        }
    }

    /// Mostly the same few sizes, so that operands fit each other.
    fn dims(&mut self, usual: &[usize]) -> Vec<usize> {
        match self.below(4) {
            0 => (0..self.below(6)).map(|_| self.below(5)).collect(),
            1 => usual[self.below(usual.len() + 1)..].to_vec(),
            2 => vec![usual.first().copied().unwrap_or(1)],
            _ => usual.to_vec(),
        }
    }

    fn array(&mut self, usual: &[usize], dtype: DType) -> Array {
        let dims = self.dims(usual);
        let count = dims.iter().product();
        match kind(dtype) {
            Ok(Kind::Float) => {
                let data = (0..count).map(|_| self.float()).collect();
                Array::floats(dtype, &dims, data).unwrap()
            }
            _ => {
                let data = (0..count).map(|_| i128::from(self.int())).collect();
                Array::ints(dtype, &dims, data).unwrap()
            }
        }
    }

    fn operands(&mut self) -> Vec<Option<Array>> {
        let rank = self.below(5);
        let usual: Vec<usize> = (0..rank).map(|_| 1 + self.below(4)).collect();
        let types = [
            DType::F32,
            DType::I64,
            DType::I32,
            DType::U8,
            DType::Bool,
            DType::F16,
        ];
        let common = self.pick(&types);
        let count = self.below(9);
        let mut operands = Vec::new();
        for _ in 0..count {
            let dtype = match self.below(3) {
                0 => self.pick(&types),
                _ => common,
            };
            operands.push((self.below(6) > 0).then(|| self.array(&usual, dtype)));
        }
        operands
    }

    fn attributes(&mut self) -> Vec<Attribute> {
        let words = |list: &'static str| list.split_whitespace();
        let mut all = Vec::new();
        for name in words(NUMBERS) {
            if self.below(6) == 0 {
                all.push(Attribute::int(name, self.int()));
            }
        }
        for name in words(LISTS) {
            if self.below(3) == 0 {
                let list: Vec<i64> = (0..self.below(7)).map(|_| self.int()).collect();
                all.push(Attribute::ints(name, list));
            }
        }
        for name in words(FLOATS) {
            if self.below(6) == 0 {
                all.push(Attribute::float(name, self.float() as f32));
            }
        }
        for name in words(FLOAT_LISTS) {
            if self.below(4) == 0 {
                let list = (0..self.below(6)).map(|_| self.float() as f32).collect();
                all.push(Attribute::new(name, AttributeValue::Floats(list)));
            }
        }
        for (name, list) in WORDS {
            if self.below(3) == 0 {
                let word = self.pick(&words(list).collect::<Vec<_>>());
                all.push(Attribute::string(name, word));
            }
        }
        if self.below(2) == 0 {
            let value = Tensor::from_i64(&[1], &[self.int()]);
            all.push(Attribute::tensor("value", value));
        }
        all
    }
}

/// Calls an operator with what a seed comes to. Most of it fits nothing: what fits nearly is tried
/// on the node cases (`tests/it/mutated_cases.rs`).
fn try_once(entry: &Entry, seed: u64) {
    let mut random = Random(ChaCha8Rng::seed_from_u64(seed));
    let operands = random.operands();
    let operands: Vec<Option<&Array>> = operands.iter().map(Option::as_ref).collect();
    let attributes = random.attributes();
    let rounding = random.pick(&[Rounding::None, Rounding::Declared]);
    let call = Call {
        domain: entry.domain,
        op_type: entry.name,
        opset: random.pick(&[entry.since, entry.since, 30]),
        attributes: &attributes,
        operands: &operands,
        results: 1 + random.below(4),
        rounding,
    };
    let _ = evaluate(&call);
}

/// Seeds of each operator; more by hand with `TRIALS`.
fn trials() -> u64 {
    let stated = std::env::var("TRIALS").ok();
    stated.and_then(|n| n.parse().ok()).unwrap_or(40)
}

#[test]
fn no_operator_panics() {
    let mut panics = Vec::new();
    for entry in FAMILIES.iter().copied().flatten() {
        if matches!(entry.eval, Eval::Bodies(_)) {
            continue;
        }
        let broken =
            |seed: &u64| catch_unwind(AssertUnwindSafe(|| try_once(entry, *seed))).is_err();
        if let Some(seed) = (0..trials()).find(broken) {
            let (domain, name, since) = (entry.domain, entry.name, entry.since);
            panics.push(format!("{domain}:{name} {since}, seed {seed}"));
        }
    }
    assert!(panics.is_empty(), "{panics:#?}");
}
