//! Initial values of parameters.

use super::formula::Formula;

/// How a parameter starts.
#[derive(Clone, Debug)]
pub enum Init {
    Constant(f64),
    Random(Random),
    /// Computed from the base weight and bias when compiling.
    Computed(Formula),
}

/// Distributions, as PyTorch's `nn.init` defines them: fan-in is the last dim of a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Random {
    /// Bounds.
    Uniform(f64, f64),
    /// Mean and standard deviation.
    Normal(f64, f64),
    /// U(−b, b) with b = √(6 / ((1 + a²) · fan_in)).
    KaimingUniform { a: f64 },
    /// U(−b, b) with b = gain · √(6 / (fan_in + fan_out)).
    XavierUniform { gain: f64 },
    /// Whole numbers from the first to before the second, each as likely.
    Integers(f64, f64),
    /// Different places of a grid of so many rows and columns, in ascending order: `[n, 2]` or, in
    /// one column, `[n]`.
    Distinct(f64, f64),
    /// Orthonormal rows or columns, whichever are fewer, times the gain.
    Orthogonal { gain: f64 },
}
