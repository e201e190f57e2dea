//! The words and marks of a text, without structure.
//!
//! In: any text. Out: its tokens in order; comments apart. Afterwards: every character is in a
//! token or is a blank. Not here: what the tokens mean together.

use super::grammar::{Grammar, Rule};
use pest::Parser;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// `//!` line.
    FileDoc,
    /// `///` line.
    Doc,
    Str,
    /// A quote without its partner, to the end of the line.
    OpenString,
    Number,
    /// A digit with something behind that makes no number, such as `8x`.
    BadNumber,
    Word,
    Mark,
    /// A character outside the language.
    Unknown,
}

/// A piece of the text by byte offsets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub kind: TokenKind,
    pub start: usize,
    pub end: usize,
    /// Only blanks (or comments) stand before it on its line.
    pub first_on_line: bool,
}

impl Token {
    /// Whether it is documentation behind code. `//!` is stray only there.
    pub fn is_misplaced_doc(&self) -> bool {
        match self.kind {
            TokenKind::Doc => !self.first_on_line,
            kind => kind == TokenKind::FileDoc,
        }
    }
}

/// A `//` comment by byte offsets, without its line end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comment {
    pub start: usize,
    pub end: usize,
    /// Code stands before it on its line.
    pub trailing: bool,
}

/// The tokens and comments of a text, each in order.
pub(super) struct Tokens<'s> {
    pub text: &'s str,
    pub tokens: Vec<Token>,
    pub comments: Vec<Comment>,
}

impl<'s> Tokens<'s> {
    pub fn scan(text: &'s str) -> Self {
        let pairs = Grammar::parse(Rule::tokens, text).expect("grammar: tokens match any text");
        let mut out = Tokens {
            text,
            tokens: Vec::new(),
            comments: Vec::new(),
        };
        for pair in pairs.flat_map(|pair| pair.into_inner()) {
            let span = pair.as_span();
            out.push(pair.as_rule(), span.start(), span.end());
        }
        out
    }

    fn push(&mut self, rule: Rule, start: usize, end: usize) {
        let previous_end = self.tokens.last().map(|token| token.end);
        let first_on_line = previous_end.is_none_or(|at| has_line_end(&self.text[at..start]));
        let kind = match rule {
            Rule::comment => {
                return self.comments.push(Comment {
                    start,
                    end,
                    trailing: !first_on_line,
                });
            }
            Rule::file_doc => TokenKind::FileDoc,
            Rule::doc_line => TokenKind::Doc,
            Rule::string => TokenKind::Str,
            Rule::open_string => TokenKind::OpenString,
            Rule::number => TokenKind::Number,
            Rule::bad_number => TokenKind::BadNumber,
            Rule::word => TokenKind::Word,
            Rule::unknown => TokenKind::Unknown,
            Rule::EOI => return,
            _ => TokenKind::Mark,
        };
        self.tokens.push(Token {
            kind,
            start,
            end,
            first_on_line,
        });
    }

    pub fn text(&self, token: &Token) -> &'s str {
        &self.text[token.start..token.end]
    }

    /// The end of the last token that starts before `offset`; `offset` where there is none.
    pub fn end_before(&self, offset: usize) -> usize {
        let after = self.tokens.partition_point(|token| token.start < offset);
        match after.checked_sub(1) {
            Some(last) => self.tokens[last].end.min(offset),
            None => offset,
        }
    }
}

/// Whether a line ends in `text`.
pub(super) fn has_line_end(text: &str) -> bool {
    text.contains(['\n', '\r'])
}
