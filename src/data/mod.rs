//! Data to learn from: rows of files, as tokens, as batches of tensors.
//!
//! In: files of rows, a tokenizer, and what is to be learned. Out: an endless sequence of [`Batch`]es
//! of plain tensors. What holds: every row is read and encoded before the first batch, so that a
//! broken row is found at once, at its file and line, and is an error or counted; batches depend on
//! data, options and seed alone, and go on from any [`Position`] as if they had never stopped. Not
//! here: the model, whose [`Limits`] are given, and the loss.
//!
//! ```text
//! Source ─ read ─▶ Row ─ Encoder ─▶ Dataset ─ Batcher ─▶ Batch ─ Prefetch ─▶ Batch
//! ```

mod arrays;
mod batch;
mod batcher;
mod dataset;
mod encode;
mod errors;
mod example;
mod order;
mod prefetch;
mod read;
mod row;
mod shield;
mod source;
mod summary;
mod task;
mod template;
mod tokenizer;
mod value;

pub use arrays::Array;
pub use batch::{Batch, BatchTensor, Elements, Input, Length, Side};
pub use batcher::{BatchOptions, Batcher, LastBatch, Position};
pub use dataset::{Broken, Counts, Dataset};
pub use encode::{Encoder, EncoderOptions, Limits, Templates, TooLong};
pub use example::{Examples, IGNORED, Tokens};
pub use order::Order;
pub use prefetch::Prefetch;
pub use row::Place;
pub use shield::shielded;
pub use source::{Format, Source};
pub use summary::{Summary, runs};
pub use task::{Columns, Role, Task};
pub use template::TemplateText;
pub use tokenizer::{TokenName, Tokenizer};
