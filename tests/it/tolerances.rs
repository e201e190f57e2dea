//! Every tolerance of the tests, with its reason.

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
/// The same where every intermediate is narrow: a few units in the last place.
pub const NODE_RELATIVE_F16: f64 = 4e-3;
pub const NODE_RELATIVE_BF16: f64 = 3e-2;
