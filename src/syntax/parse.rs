//! Text to tree: the phases of a parse.

use super::ast::File;
use super::build::Builder;
use super::errors;
use super::grammar::{Grammar, Rule};
use super::token::{TokenKind, Tokens};
use crate::diag::{FileId, Reported, Sink, SourceMap, Span};
use pest::Parser;

/// Larger files are refused: a spec is written by people, and the tree takes some hundred times
/// the space of its text.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// How deep brackets may nest.
pub(super) const MAX_NESTING: usize = 64;

/// Reads a `.peft` text. Reports as many of its faults as can be told apart.
pub fn parse(sources: &SourceMap, file: FileId, sink: &mut Sink) -> Result<File, Reported> {
    let text: &str = sources.text(file);
    if text.len() > MAX_BYTES {
        let start = Span::new(file, 0, 0);
        return Err(sink.emit(errors::file_too_large(start, text.len(), MAX_BYTES)));
    }
    let tokens = Tokens::scan(text);
    check_nesting(&tokens, file, sink)?;
    match Grammar::parse(Rule::file, text) {
        Ok(mut pairs) => {
            let pair = pairs.next().expect("grammar: a file is one pair");
            let mut builder = Builder::new(file, &tokens, 0, sink);
            let tree = builder.file(pair);
            builder.finish(tree)
        }
        Err(error) => {
            let at = match error.location {
                pest::error::InputLocation::Pos(at) => at,
                pest::error::InputLocation::Span((at, _)) => at,
            };
            let span = Span::new(file, at, at);
            Err(sink.emit(errors::unexpected_text(span, "other text", "this")))
        }
    }
}

/// The parser recurses over brackets.
fn check_nesting(tokens: &Tokens<'_>, file: FileId, sink: &mut Sink) -> Result<(), Reported> {
    let mut depth = 0_usize;
    for token in &tokens.tokens {
        match (token.kind, tokens.text(token)) {
            (TokenKind::Mark, "(" | "[" | "{") => depth += 1,
            (TokenKind::Mark, ")" | "]" | "}") => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            let span = Span::new(file, token.start, token.end);
            return Err(sink.emit(errors::nested_too_deeply(span, MAX_NESTING)));
        }
    }
    Ok(())
}
