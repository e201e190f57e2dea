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
pub const REFERENCE_RELATIVE: f64 = 5e-6;
/// The same in f16, whose unit in the last place is 2⁻¹¹ of the magnitude.
pub const REFERENCE_RELATIVE_F16: f64 = 5e-3;
