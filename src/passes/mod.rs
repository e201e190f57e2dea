//! Passes over a whole model. Each says what it requires and what it ensures; none of them reads
//! weights, and all of them are pure functions of the model.

mod errors;
mod fuse;
mod infer;
mod row_sums;
mod specialize;
#[cfg(test)]
mod tests;
mod without_past;

pub use fuse::{fuse, fuse_attention};
pub use infer::{Values, infer, infer_values};
pub use row_sums::sums_as_products;
pub use specialize::specialize;
pub use without_past::{has_past, past, without_past};
