//! Finds the faults of a text that the grammar does not accept.
//!
//! In: its tokens and brackets. Out: diagnostics, one for each smallest piece (item, statement or
//! head of an item) that does not parse by itself. Afterwards: at least one error is reported. The
//! trees are dropped: they are built only so that their faults come at the same time.

use super::brackets::Brackets;
use super::build::Builder;
use super::errors;
use super::expected::{Expected, Found};
use super::grammar::{Grammar, Rule};
use super::pieces::{Body, Pieces};
use super::token::{TokenKind, Tokens};
use super::words::{self, Level};
use crate::diag::{Diagnostic, FileId, Reported, Sink, Span, nearest};
use pest::Parser;
use pest::error::{Error, ErrorVariant, InputLocation};
use std::ops::Range;

/// Reports the faults of the text; those of single tokens and of brackets are reported already.
pub(super) fn report_faults(
    tokens: &Tokens<'_>,
    brackets: &Brackets,
    file: FileId,
    sink: &mut Sink,
) {
    let pieces = Pieces { tokens, brackets };
    let mut recovery = Recovery { pieces, file, sink };
    recovery.level(0..tokens.tokens.len(), Level::File, 0);
}

/// Reports the error of the whole text, for faults that no piece shows by itself.
pub(super) fn report_whole(
    tokens: &Tokens<'_>,
    brackets: &Brackets,
    file: FileId,
    error: &Error<Rule>,
    sink: &mut Sink,
) -> Reported {
    let pieces = Pieces { tokens, brackets };
    let recovery = Recovery { pieces, file, sink };
    let diagnostic = recovery.diagnose(&(0..tokens.tokens.len()), 0, error, "the end of the file");
    recovery.sink.emit(diagnostic)
}

struct Recovery<'a> {
    pieces: Pieces<'a>,
    file: FileId,
    sink: &'a mut Sink,
}

impl Recovery<'_> {
    /// The pieces of `range`, which is the whole inside of something at `depth`.
    fn level(&mut self, range: Range<usize>, level: Level, depth: usize) {
        for piece in self.pieces.split(range, depth, level) {
            self.piece(&piece, level, depth);
        }
    }

    fn piece(&mut self, piece: &Range<usize>, level: Level, depth: usize) {
        if self.has_bracket_fault(piece) {
            return;
        }
        let error = match self.parse(rule_of(level), piece) {
            Some(Ok(())) => return,
            Some(Err(error)) => Some(error),
            None => None,
        };
        let before = self.sink.error_count();
        let first = self
            .pieces
            .first_word(piece)
            .map(|at| (at, self.pieces.text(at)));
        let starter = first.and_then(|(at, word)| self.check_starter(at, word, level));
        let misspelt = starter.is_some() && starter != first.map(|(_, word)| word);
        if let Some(body) = self.pieces.body(piece, depth)
            && let Some(starter) = starter
            && let Some(inside) = Level::inside(starter)
        {
            let head = (!misspelt).then(|| head_rule(starter)).flatten();
            self.head_and_body(head, body, inside, depth);
        }
        // The piece as a whole is at fault if none of its parts is.
        if let (Some(error), true) = (error, self.sink.error_count() == before) {
            self.report(piece, &error, end_of(level));
        }
    }

    /// `head` is the rule of the head, unless the head is reported already.
    fn head_and_body(&mut self, head: Option<Rule>, body: Body, inside: Level, depth: usize) {
        if let Some(rule) = head
            && let Some(Err(error)) = self.parse(rule, &body.head)
        {
            self.report(&body.head, &error, "`{`");
        }
        self.level(body.inside, inside, depth + 1);
    }

    /// Reports a first word that starts nothing here. Gives the word that is written or meant.
    fn check_starter(&mut self, at: usize, word: &str, level: Level) -> Option<&'static str> {
        let known = |level: Level| level.starters().iter().copied().find(|s| *s == word);
        if let Some(starter) = known(level) {
            return Some(starter);
        }
        let span = self.span(at);
        if let Some(elsewhere) = Level::of(word).next() {
            self.sink
                .emit(errors::misplaced_starter(span, word, level, elsewhere));
            return known(elsewhere);
        }
        if level == Level::Block || words::is_reserved(word) {
            return None;
        }
        let meant = nearest(word, level.starters().iter().copied(), 1)
            .first()
            .copied();
        self.sink
            .emit(errors::unknown_starter(span, word, level, meant));
        level.starters().iter().copied().find(|s| Some(*s) == meant)
    }

    /// Parses a piece by itself; `None` if one of its tokens is at fault.
    fn parse(&mut self, rule: Rule, piece: &Range<usize>) -> Option<Result<(), Error<Rule>>> {
        let is_faulty = |at| is_faulty(self.pieces.token(at).kind);
        if piece.clone().any(is_faulty) {
            return None;
        }
        if piece.is_empty() {
            return Some(Ok(()));
        }
        let (start, end) = self.bytes(piece);
        let text = &self.pieces.tokens.text[start..end];
        Some(Grammar::parse(rule, text).map(|pairs| {
            let mut builder = Builder::new(self.file, self.pieces.tokens, start, self.sink);
            builder.piece(pairs);
        }))
    }

    fn has_bracket_fault(&self, piece: &Range<usize>) -> bool {
        let faults = &self.pieces.brackets.faults;
        let next = faults.partition_point(|at| *at < piece.start);
        faults.get(next).is_some_and(|at| *at < piece.end)
    }

    /// The byte range of a piece; all of the text if it has no token.
    fn bytes(&self, piece: &Range<usize>) -> (usize, usize) {
        if piece.is_empty() {
            return (0, self.pieces.tokens.text.len());
        }
        (
            self.pieces.token(piece.start).start,
            self.pieces.token(piece.end - 1).end,
        )
    }

    fn span(&self, at: usize) -> Span {
        let token = self.pieces.token(at);
        Span::new(self.file, token.start, token.end)
    }

    fn report(&mut self, piece: &Range<usize>, error: &Error<Rule>, end: &'static str) {
        let at = self.place(piece, self.bytes(piece).0, error);
        let stray = self.stray_doc(piece, at);
        if stray.is_some_and(|doc| self.pieces.token(doc).is_misplaced_doc()) {
            return; // The tokens alone have shown it.
        }
        let diagnostic = self.diagnose(piece, self.bytes(piece).0, error, end);
        self.sink.emit(diagnostic);
    }

    fn diagnose(
        &self,
        piece: &Range<usize>,
        base: usize,
        error: &Error<Rule>,
        end: &'static str,
    ) -> Diagnostic {
        let rules: &[Rule] = match &error.variant {
            ErrorVariant::ParsingError { positives, .. } => positives,
            ErrorVariant::CustomError { .. } => &[],
        };
        let at = self.place(piece, base, error);
        let expected = Expected::new(rules, end);
        if let Some(doc) = self.stray_doc(piece, at) {
            return errors::stray_documentation(self.span(doc), "nothing here takes documentation");
        }
        let found = self.found(piece, at);
        if let Some((TokenKind::Word, word)) = found.token
            && words::is_reserved(word)
            && (expected.is_name() || expected.is_value())
            && self.is_used_as_name(piece, at)
        {
            return errors::reserved_word(self.span(at), word);
        }
        let span = match found.token {
            Some(_) => self.span(at),
            None => {
                let end = self.bytes(piece).1;
                Span::new(self.file, end, end)
            }
        };
        let help = expected.help(&found);
        let diagnostic = errors::unexpected_text(span, &expected.words(), &found.words);
        match help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        }
    }

    /// Whether the word at `at` stands where a name could: neither at the start of a line nor, as a
    /// keyword would, before a word or a string.
    fn is_used_as_name(&self, piece: &Range<usize>, at: usize) -> bool {
        let after = Some(at + 1).filter(|after| piece.contains(after));
        let is_mark = |at| self.pieces.token(at).kind == TokenKind::Mark;
        !self.pieces.token(at).first_on_line && after.is_none_or(is_mark)
    }

    /// The token at which a parse of the piece, whose text starts at `base`, stopped.
    fn place(&self, piece: &Range<usize>, base: usize, error: &Error<Rule>) -> usize {
        let offset = match error.location {
            InputLocation::Pos(at) | InputLocation::Span((at, _)) => at,
        };
        self.token_at(base + offset).min(piece.end)
    }

    /// The first token that ends behind `offset`.
    fn token_at(&self, offset: usize) -> usize {
        let tokens = &self.pieces.tokens.tokens;
        tokens.partition_point(|token| token.end <= offset)
    }

    /// Documentation at or directly before the fault.
    fn stray_doc(&self, piece: &Range<usize>, at: usize) -> Option<usize> {
        let is_doc = |at: &usize| {
            matches!(
                self.pieces.token(*at).kind,
                TokenKind::Doc | TokenKind::FileDoc
            )
        };
        let here = Some(at).filter(|at| *at < piece.end);
        let before = at.checked_sub(1).filter(|at| *at >= piece.start);
        here.filter(is_doc).or(before.filter(is_doc))
    }

    fn found(&self, piece: &Range<usize>, at: usize) -> Found<'_> {
        let text_in_piece = |at: Option<usize>| match at {
            Some(at) if piece.contains(&at) => self.pieces.text(at),
            _ => "",
        };
        let before = text_in_piece(at.checked_sub(1));
        let after = text_in_piece(Some(at + 1));
        let after_point = before == "."
            && at >= piece.start + 2
            && self.pieces.token(at - 2).kind == TokenKind::Number;
        let token = (at < piece.end).then(|| (self.pieces.token(at).kind, self.pieces.text(at)));
        let words = match token {
            Some((TokenKind::Str, _)) => "a string".to_owned(),
            Some((_, text)) => format!("`{text}`"),
            None => match self.pieces.tokens.tokens.get(at) {
                None => "the end of the file".to_owned(),
                Some(next) if next.first_on_line => "the end of the line".to_owned(),
                Some(_) => format!("`{}`", self.pieces.text(at)),
            },
        };
        Found {
            token,
            words,
            before,
            after,
            after_point,
        }
    }
}

/// Tokens about which an error has been reported.
pub(super) fn is_faulty(kind: TokenKind) -> bool {
    matches!(
        kind,
        TokenKind::OpenString | TokenKind::BadNumber | TokenKind::Unknown
    )
}

fn rule_of(level: Level) -> Rule {
    match level {
        Level::File => Rule::file,
        Level::Method => Rule::lone_method_items,
        Level::Adapter => Rule::lone_adapter_items,
        Level::Block => Rule::lone_lines,
    }
}

/// What may follow a complete piece.
fn end_of(level: Level) -> &'static str {
    match level {
        Level::File => "the end of the item",
        _ => "the end of the line",
    }
}

fn head_rule(starter: &str) -> Option<Rule> {
    Some(match starter {
        "method" => Rule::lone_method_head,
        "fn" => Rule::lone_function_head,
        "forward" => Rule::lone_forward_head,
        "on" => Rule::lone_hook_head,
        "adapter" => Rule::lone_adapter_head,
        "for" => Rule::lone_for_head,
        _ => return None,
    })
}
