//! Faults that a single token shows: strings without end, characters outside the language,
//! misshapen numbers, documentation behind code.

use super::errors;
use super::token::{Token, TokenKind, Tokens};
use crate::diag::{FileId, Sink, Span};

/// Reports all of them; runs of unknown characters count as one.
pub(super) fn check_tokens(tokens: &Tokens<'_>, file: FileId, sink: &mut Sink) {
    let mut previous: Option<&Token> = None;
    let mut code_started = false;
    for (at, token) in tokens.tokens.iter().enumerate() {
        let text = tokens.text(token);
        let span = Span::new(file, token.start, token.end);
        match token.kind {
            TokenKind::OpenString => {
                sink.emit(errors::open_string(span));
            }
            TokenKind::BadNumber => {
                sink.emit(errors::not_a_number(span, text));
            }
            TokenKind::Unknown if !previous.is_some_and(|p| joins(p, token)) => {
                sink.emit(errors::unknown_character(
                    unknown_run(&tokens.tokens[at..], file),
                    text,
                ));
            }
            TokenKind::Doc if !token.first_on_line => {
                sink.emit(errors::stray_documentation(
                    span,
                    "documentation stands above",
                ));
            }
            TokenKind::FileDoc if code_started => {
                sink.emit(errors::stray_documentation(
                    span,
                    "the file has started already",
                ));
            }
            _ => {}
        }
        code_started |= token.kind != TokenKind::FileDoc;
        previous = Some(token);
    }
}

fn joins(previous: &Token, token: &Token) -> bool {
    let unknown = TokenKind::Unknown;
    previous.kind == unknown && token.kind == unknown && previous.end == token.start
}

/// The span of the unknown characters at the start of `tokens`.
fn unknown_run(tokens: &[Token], file: FileId) -> Span {
    let more = tokens.windows(2).take_while(|two| joins(&two[0], &two[1]));
    let last = &tokens[more.count()];
    Span::new(file, tokens[0].start, last.end)
}
