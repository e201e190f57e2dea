//! Every tolerance of the tests, with its reason; `src/ops/grad/tests` has some of them.

#![allow(dead_code, reason = "two test binaries share this file")]

/// A merged model against the adapted one, both in ONNX Runtime: f32 rounding of the weights and of the
/// other order of sums, through a few layers, relative to the largest magnitude of the output.
pub const MERGED_RELATIVE: f64 = 2e-5;
/// The same in f16, whose unit in the last place is 2⁻¹¹ of a number.
pub const MERGED_RELATIVE_F16: f64 = 1e-2;
/// What is lost of a change whose rank is that of its factors, relative to it: their rounding to f32.
pub const CONVERTED_RELATIVE: f64 = 1e-6;
/// Products of the factors of a decomposition in double precision against the matrix, absolute: entries
/// of size 1 and a few dozen sums of rounding errors.
pub const FACTORS: f64 = 1e-12;
/// Adapted model and base at the start, both in ONNX Runtime: the adapter adds exact zeros, but
/// ONNX Runtime may fuse other nodes around it, which moves f32 results by a few units in the last
/// place of the largest intermediate.
pub const START_ABSOLUTE: f64 = 5e-6;
/// The same in f16, whose unit in the last place at 4 is 4e-3.
pub const START_ABSOLUTE_F16: f64 = 1e-2;
/// Against numbers that PyTorch recorded: f32 rounding through a few layers, relative to the
/// largest magnitude of the output.
pub const RECORDED_RELATIVE: f64 = 1e-5;
/// The reference evaluator (f64) against ONNX Runtime in f32: the rounding of f32 through a few
/// layers, relative to the largest magnitude of the output.
pub const REFERENCE_RELATIVE: f64 = 1e-5;
/// The same in f16, whose unit in the last place is 2⁻¹¹ of the magnitude.
pub const REFERENCE_RELATIVE_F16: f64 = 5e-3;
/// The reference evaluator against the expected outputs of ONNX's node cases, which numpy computed
/// in f32: relative to each element, with room for elements that cancel.
pub const NODE_RELATIVE: f64 = 2e-5;
pub const NODE_ABSOLUTE: f64 = 2e-6;
/// The same where the expected outputs are written with four digits: one unit of the last.
pub const NODE_ABSOLUTE_ROUNDED: f64 = 1e-4;
/// The same where every intermediate is narrow: a few units in the last place, 2⁻¹⁰ of a number.
pub const NODE_RELATIVE_F16: f64 = 4e-3;
/// The same in bf16, rounded, in units in the last place: attention rounds its scores, its weights and
/// its result, each by up to half a unit.
pub const NODE_UNITS_BF16: u16 = 2;
/// The rule of one operator along a direction against central differences in double precision with a
/// step of 1e-5, relative to the product of the lengths of gradient and direction: their own error is
/// about 1e-9 of it.
pub const RULE_DIFFERENCE: f64 = 1e-7;
/// The same node and its gradient in ONNX Runtime in f32 against the reference: f32 rounding through
/// a few nodes, relative to the largest element.
pub const RULE_SINGLE: f64 = 2e-5;
/// A directional derivative of a model against central differences in double precision with a step of
/// 1e-5, relative to the shares of all parameters: T5, whose attention is not scaled, is so steep that
/// the differences themselves err by 2e-7.
pub const GRADIENT_DIFFERENCE: f64 = 1e-6;
/// Gradients in single precision against the same graph in double precision, relative to the largest
/// gradient of the model: f32 rounding through a forward and a backward pass, which in T5 makes 5e-5 of
/// PyTorch's gradients, too.
pub const GRADIENT_SINGLE: f64 = 1e-4;
/// The same in f16, whose unit in the last place is 5e-4 of a number.
pub const GRADIENT_HALF: f64 = 1e-2;
/// Gradients against PyTorch's in double precision, relative to the length of all gradients together
/// (the loss: to the sum of the magnitudes of its terms). The reference keeps to this: weights and
/// tables of the file are rounded. ONNX Runtime in single precision may instead be so many times as far
/// off as PyTorch in single precision.
pub const GRADIENT_RECORDED: f64 = 1e-6;
pub const GRADIENT_TIMES_TORCH: f64 = 3.0;
/// Directional derivatives of single nodes at the inputs of ONNX's cases, some of which are steep.
pub const NODE_GRADIENT: f64 = 1e-6;
/// The same in f16 and bf16, where a lowered attention has its scale as a constant of the type.
pub const NODE_GRADIENT_NARROW: f64 = 2e-3;
/// Slopes on two sides of a point that differ by more than this are those of a corner.
pub const NODE_GRADIENT_CORNER: f64 = 1e-3;
/// A step of training against its two halves, and with ONNX Runtime's optimizations against without:
/// f32 rounding through a forward and a backward pass, relative to the largest element.
pub const TRAINING_HALVES: f64 = 2e-4;
/// Losses of twenty AdamW steps in f32 against PyTorch's in f64, absolute: PyTorch's own f32 run is up
/// to 4e-6 away from its f64 run.
pub const TRAINING_LOSSES: f64 = 2e-5;
/// Losses of a short run with Adam's means in codes of 8 bits against means in 32 bits, relative: codes lie
/// up to a tenth apart, and what rounding gives in one step it takes in another.
pub const ADAM_INT8_LOSS: f64 = 5e-2;
/// Loss and gradients with logits in pieces against those of all logits at once, relative to the largest
/// element: f32 sums over tokens in another order, and through the layers below.
pub const PIECES: f64 = 2e-5;
/// Gradients with activations computed again against gradients with activations kept, relative to the
/// largest element: copies are the same operators on the same numbers, which ONNX Runtime may fuse in
/// another way.
pub const RECOMPUTED: f64 = 1e-5;
/// The loss with frozen weights and activations in 8 bits, relative: their rounding is within half a
/// percent of the largest of each column and tensor, and errs in both directions.
pub const INT8_LOSS: f64 = 1e-2;
/// The least cosine between all gradients of that loss and those of the exact one.
pub const INT8_COSINE: f64 = 0.99;
/// The same in bfloat16, whose 8 bits of mantissa err by up to 2e-3 of each number, and the least cosine.
pub const BF16_LOSS: f64 = 5e-3;
pub const BF16_COSINE: f64 = 0.999;
/// The reference evaluator against single operators of ONNX Runtime: f32 rounding within one
/// operator, relative to the largest magnitude of the result.
pub const CONTRIB_RELATIVE: f64 = 3e-6;
/// A method's outputs and gradients in double precision against PEFT's, relative to the largest element:
/// some of PEFT's methods compute in single precision whatever the model is.
pub const METHOD_OUTPUT: f64 = 1e-5;
pub const METHOD_GRADIENT: f64 = 1e-4;
/// A product of start values that is 0 but for their rounding to single precision, relative to the
/// product of their lengths.
pub const START_PRODUCT: f64 = 1e-6;
/// Products of start values with themselves, where PEFT's decomposition is a randomized one in single
/// precision: its own tensors are up to 4e-5 from the exact ones.
pub const METHOD_START: f64 = 2e-4;
/// Statistics of ONNX Runtime in single precision against sums in double precision, relative to the
/// largest entry.
pub const STATISTICS: f64 = 1e-5;

/// A change in single precision of which a hook has taken off some directions, along these, relative to its
/// largest entry: rounding of both the projection and the parameters, whose entries are a few hundred
/// times as large as a change of three small steps.
pub const HOOK_PROJECTED: f64 = 2e-3;

/// Parameters behind recorded training steps, relative to the largest of each tensor: both in double
/// precision, but weights and constants of ours are rounded to single precision.
pub const METHOD_STEPS: f64 = 1e-5;
