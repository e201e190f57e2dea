//! Text to tree: the phases of a parse.

use super::ast::File;
use super::brackets::Brackets;
use super::build::Builder;
use super::errors;
use super::grammar::{Grammar, Rule};
use super::lexical;
use super::recover;
use super::token::Tokens;
use crate::diag::{FileId, Reported, Sink, SourceMap, Span};
use pest::Parser;

/// Larger files are refused: a spec is written by people, and the tree takes some hundred times
/// the space of its text.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// Reads a `.peft` text. Reports as many of its faults as can be told apart.
pub fn parse(sources: &SourceMap, file: FileId, sink: &mut Sink) -> Result<File, Reported> {
    let text: &str = sources.text(file);
    if text.len() > MAX_BYTES {
        let start = Span::new(file, 0, 0);
        return Err(sink.emit(errors::file_too_large(start, text.len(), MAX_BYTES)));
    }
    let tokens = Tokens::scan(text);
    let before = sink.error_count();
    lexical::check_tokens(&tokens, file, sink);
    let brackets = Brackets::of(&tokens, file, sink)?;
    match Grammar::parse(Rule::file, text) {
        Ok(mut pairs) => {
            let pair = pairs.next().expect("grammar: a file is one pair");
            let mut builder = Builder::new(file, &tokens, 0, sink);
            let tree = builder.file(pair);
            let tree = builder.finish(tree)?;
            // What single tokens show, such as documentation behind code, the grammar may accept.
            failed_since(before, sink).map(|()| tree)
        }
        Err(error) => {
            recover::report_faults(&tokens, &brackets, file, sink);
            failed_since(before, sink)?;
            Err(recover::report_whole(
                &tokens, &brackets, file, &error, sink,
            ))
        }
    }
}

/// `Err` if an error has been reported since there were `before`.
fn failed_since(before: usize, sink: &Sink) -> Result<(), Reported> {
    if sink.error_count() > before {
        sink.failed()
    } else {
        Ok(())
    }
}
