//! What users can do where there is no gradient.

pub const OTHER: &str =
    "adapt only layers behind this node, or export the model with other operators in its place";

pub const OLD: &str = "export the model with opset 17 or later: this operator is gone since";

pub const BITS: &str = "adapt only layers behind this node: bits have no derivative";

pub const QUANTIZED: &str = "train on the model before its activations were quantized; weights may \
     stay quantized as MatMulNBits or DequantizeLinear has them";

pub const RECURRENT: &str =
    "adapt only layers behind this node, or export the model with the recurrence unrolled";

pub const BRANCHES: &str = "say which branch is trained by giving the input that decides a value, \
     as `--specialize use_cache_branch=false` does";

pub const LOOPS: &str = "export the model with the loop unrolled, or adapt only layers behind it";
