//! Cuts a faulty text into pieces that can be parsed one by one.

use super::brackets::Brackets;
use super::token::{Token, TokenKind, Tokens};
use super::words::{self, Level};
use crate::diag::nearest;
use std::ops::Range;

/// Token ranges of a text and the braces in them.
pub(super) struct Pieces<'a> {
    pub tokens: &'a Tokens<'a>,
    pub brackets: &'a Brackets,
}

/// A piece that has a body in braces.
pub(super) struct Body {
    /// The tokens before the opening brace.
    pub head: Range<usize>,
    /// The tokens between the braces.
    pub inside: Range<usize>,
}

impl<'a> Pieces<'a> {
    pub fn token(&self, at: usize) -> &'a Token {
        &self.tokens.tokens[at]
    }

    pub fn text(&self, at: usize) -> &'a str {
        self.tokens.text(self.token(at))
    }

    /// Cuts `range`, whose tokens are at `depth` or deeper, where a new item or statement starts.
    pub fn split(&self, range: Range<usize>, depth: usize, level: Level) -> Vec<Range<usize>> {
        let mut pieces: Vec<Range<usize>> = Vec::new();
        for at in range {
            match pieces.last_mut() {
                Some(piece) if self.brackets.depth[at] > depth || !self.starts(at, level) => {
                    piece.end = at + 1;
                }
                _ => pieces.push(at..at + 1),
            }
        }
        pieces
    }

    /// Whether a new piece starts at this token, which is not the first one.
    fn starts(&self, at: usize, level: Level) -> bool {
        let (before, token) = (at - 1, self.token(at));
        if self.text(before) == ";" && self.text(at) != ";" {
            return true;
        }
        if !token.first_on_line || self.token(before).kind == TokenKind::Doc {
            return false;
        }
        if level == Level::Block && self.is_binding(at) {
            return true;
        }
        match token.kind {
            // Behind the name of a method it says the kinds of layers.
            TokenKind::Word if self.text(at) == "on" => level == Level::Method,
            TokenKind::Word if words::starts_something(self.text(at)) => true,
            TokenKind::Word if words::CONTINUING.contains(&self.text(at)) => false,
            // A misspelt `with` should be reported once, as the part of the statement that it is.
            TokenKind::Word if level != Level::Block && resembles_continuing(self.text(at)) => {
                false
            }
            TokenKind::Mark => matches!(self.text(at), "(" | "[") && !self.is_open_ended(before),
            TokenKind::Doc => true,
            _ => !self.is_open_ended(before),
        }
    }

    /// Whether `name =` stands here.
    fn is_binding(&self, at: usize) -> bool {
        let next = at + 1;
        self.token(at).kind == TokenKind::Word
            && next < self.tokens.tokens.len()
            && self.text(next) == "="
    }

    /// Whether something must follow this token.
    fn is_open_ended(&self, at: usize) -> bool {
        match self.token(at).kind {
            TokenKind::Mark => !matches!(self.text(at), ")" | "]" | "}" | ";"),
            TokenKind::Word => match self.text(at) {
                "true" | "false" => false,
                word => words::is_reserved(word),
            },
            _ => false,
        }
    }

    /// The first body in braces of a piece at `depth`.
    pub fn body(&self, piece: &Range<usize>, depth: usize) -> Option<Body> {
        let is_at =
            |at: &usize, mark: &str| self.brackets.depth[*at] == depth && self.text(*at) == mark;
        let open = piece.clone().find(|at| is_at(at, "{"))?;
        let close = (open + 1..piece.end).find(|at| is_at(at, "}"));
        Some(Body {
            head: piece.start..open,
            inside: open + 1..close.unwrap_or(piece.end),
        })
    }

    /// The first word of a piece that is not documentation.
    pub fn first_word(&self, piece: &Range<usize>) -> Option<usize> {
        let is_doc = |at: &usize| {
            matches!(self.token(*at).kind, TokenKind::Doc | TokenKind::FileDoc)
                || self.text(*at) == ";"
        };
        let first = piece.clone().find(|at| !is_doc(at))?;
        (self.token(first).kind == TokenKind::Word).then_some(first)
    }
}

/// Whether a word looks more like one that continues a statement than like one that starts one.
fn resembles_continuing(word: &str) -> bool {
    let both = words::CONTINUING.iter().chain(words::STARTERS);
    let closest = nearest(word, both.copied(), 1);
    closest
        .first()
        .is_some_and(|closest| words::CONTINUING.contains(closest))
}
