//! Text to syntax tree and back: the only user of pest.
//!
//! In: a source text with its [`FileId`](crate::diag::FileId). Out: an [`ast::File`] with a span on
//! everything that a later phase may complain about. Afterwards: the text is one of the grammar
//! (`grammar/peft.pest`); names are not resolved and nothing has a type. Not here: any knowledge of
//! methods, models or the standard library.

pub mod ast;
mod brackets;
mod build;
mod errors;
mod expected;
mod format;
mod grammar;
mod lexical;
mod parse;
mod pieces;
mod recover;
mod token;
mod words;

pub use format::format;
pub use parse::parse;
pub use words::{reserved_words, words_in_place};
#[cfg(test)]
mod tests;
