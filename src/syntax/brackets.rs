//! Which bracket belongs to which.
//!
//! In: tokens. Out: the depth of each token. Afterwards: no bracket nests deeper than
//! [`MAX_NESTING`], so that the parser, which recurses over brackets, stays within the stack.
//! Brackets without a partner are reported; where the missing one belongs is judged from the
//! keywords that start items and from the indentation.

use super::errors;
use super::token::{Token, TokenKind, Tokens};
use super::words;
use crate::diag::{Diagnostic, FileId, Reported, Sink, Span};

/// How deep brackets may nest.
pub(super) const MAX_NESTING: usize = 64;

/// The bracket structure of a text.
pub(super) struct Brackets {
    /// For each token how many brackets are around it; a bracket is outside of itself.
    pub depth: Vec<usize>,
    /// The tokens at which a fault was noticed, in the order of the text.
    pub faults: Vec<usize>,
}

impl Brackets {
    /// Matches the brackets. Nesting too deep is fatal, other faults are reported and bridged.
    pub fn of(tokens: &Tokens<'_>, file: FileId, sink: &mut Sink) -> Result<Self, Reported> {
        let too_deep = |at: usize| {
            let token = &tokens.tokens[at];
            let span = Span::new(file, token.start, token.end);
            errors::nested_too_deeply(span, MAX_NESTING)
        };
        let strict = Matcher::new(tokens, file, false).run();
        if let Some(at) = strict.too_deep {
            return Err(sink.emit(too_deep(at)));
        }
        if strict.brackets.faults.is_empty() {
            return Ok(strict.brackets);
        }
        let judged = Matcher::new(tokens, file, true).run();
        // What is taken for misplaced closes nothing, so that this walk may get deeper.
        if let Some(at) = judged.too_deep {
            return Err(sink.emit(too_deep(at)));
        }
        for diagnostic in judged.diagnostics {
            sink.emit(diagnostic);
        }
        let mut brackets = judged.brackets;
        brackets.faults.sort_unstable();
        Ok(brackets)
    }
}

/// One walk over the tokens.
struct Matcher<'a> {
    tokens: &'a Tokens<'a>,
    file: FileId,
    /// Whether keywords and indentation may close brackets: only of use when something is wrong.
    judge: bool,
    /// For each token the column at which its line starts.
    indent: Vec<usize>,
    open: Vec<usize>,
    /// A string that swallowed the rest of its line may have swallowed brackets, too: faults
    /// behind it in the same item are not reported.
    line_lost: bool,
    brackets: Brackets,
    diagnostics: Vec<Diagnostic>,
    too_deep: Option<usize>,
}

impl<'a> Matcher<'a> {
    fn new(tokens: &'a Tokens<'a>, file: FileId, judge: bool) -> Self {
        Matcher {
            tokens,
            file,
            judge,
            indent: indents(tokens),
            open: Vec::new(),
            line_lost: false,
            brackets: Brackets {
                depth: Vec::with_capacity(tokens.tokens.len()),
                faults: Vec::new(),
            },
            diagnostics: Vec::new(),
            too_deep: None,
        }
    }

    fn run(mut self) -> Self {
        for (at, token) in self.tokens.tokens.iter().enumerate() {
            let text = self.tokens.text(token);
            match token.kind {
                TokenKind::OpenString => self.line_lost = true,
                TokenKind::Word if self.judge && token.first_on_line => self.keyword(at, text),
                TokenKind::Mark => self.mark(at, text),
                _ => {}
            }
            // A closing bracket has left the stack, an opening one is on it.
            let is_opening = self.open.last() == Some(&at);
            let depth = self.open.len() - usize::from(is_opening);
            self.brackets.depth.push(depth);
            if self.open.len() > MAX_NESTING {
                self.too_deep = Some(at);
                return self;
            }
        }
        while let Some(opening) = self.open.pop() {
            self.unclosed(opening, None);
        }
        self
    }

    fn text(&self, at: usize) -> &'a str {
        self.tokens.text(&self.tokens.tokens[at])
    }

    fn span(&self, at: usize) -> Span {
        let token: &Token = &self.tokens.tokens[at];
        Span::new(self.file, token.start, token.end)
    }

    /// A word that starts an item at the beginning of a line stands in no round bracket, and if it
    /// is further left than the line of the opening brace, not in that brace.
    fn keyword(&mut self, at: usize, word: &str) {
        if !words::starts_something(word) {
            return;
        }
        let outermost = words::starts_a_file_item(word);
        while let Some(&opening) = self.open.last() {
            let left_of_it = self.open.len() > 1 && self.indent[at] <= self.indent[opening];
            if !outermost && self.text(opening) == "{" && (word == "for" || !left_of_it) {
                break;
            }
            self.open.pop();
            self.unclosed(opening, Some(at));
        }
        if outermost {
            self.line_lost = false;
        }
    }

    fn mark(&mut self, at: usize, text: &str) {
        match text {
            "(" | "[" | "{" => self.open.push(at),
            "}" => self.close_brace(at),
            ")" | "]" => self.close_round(at, text),
            _ => {}
        }
    }

    fn close_brace(&mut self, at: usize) {
        let is_brace = |opening: &usize| self.text(*opening) == "{";
        let Some(nearest) = self.open.iter().rposition(is_brace) else {
            return self.stray(at);
        };
        for opening in self.open.split_off(nearest + 1).into_iter().rev() {
            self.unclosed(opening, Some(at));
        }
        if self.judge && self.tokens.tokens[at].first_on_line {
            self.close_by_indentation(at);
        }
        self.open.pop();
    }

    /// A closing brace left of the line of the nearest opening one, and exactly below that of an
    /// outer one, closes the outer one.
    fn close_by_indentation(&mut self, at: usize) {
        let column = self.indent[at];
        let below =
            |opening: &&usize| self.text(**opening) == "{" && self.indent[**opening] == column;
        if !self.open.iter().any(|opening| below(&opening)) {
            return;
        }
        while let Some(&opening) = self.open.last() {
            if self.indent[opening] <= column {
                break;
            }
            self.open.pop();
            self.unclosed(opening, Some(at));
        }
    }

    fn close_round(&mut self, at: usize, text: &str) {
        let wanted = if text == ")" { "(" } else { "[" };
        let Some(&opening) = self.open.last() else {
            return self.stray(at);
        };
        let found = self.text(opening);
        if found == wanted {
            self.open.pop();
        } else if found == "{" {
            self.stray(at);
        } else if self.open.len() > 1 && self.text(self.open[self.open.len() - 2]) == wanted {
            self.open.truncate(self.open.len() - 2);
            self.unclosed(opening, Some(at));
        } else {
            self.open.pop();
            self.fault(
                at,
                errors::wrong_closing(self.span(opening), self.span(at), found, text),
            );
        }
    }

    fn stray(&mut self, at: usize) {
        self.fault(at, errors::stray_closing(self.span(at), self.text(at)));
    }

    fn unclosed(&mut self, opening: usize, noticed: Option<usize>) {
        let noticed_at = noticed.map(|at| (self.span(at), self.text(at)));
        let diagnostic = errors::unclosed(self.span(opening), self.text(opening), noticed_at);
        self.fault(opening, diagnostic);
    }

    fn fault(&mut self, at: usize, diagnostic: Diagnostic) {
        self.brackets.faults.push(at);
        if !self.line_lost {
            self.diagnostics.push(diagnostic);
        }
    }
}

/// For each token the column at which the first token of its line stands.
fn indents(tokens: &Tokens<'_>) -> Vec<usize> {
    let mut current = 0;
    let columns = tokens.tokens.iter().map(|token| {
        if token.first_on_line {
            let before = &tokens.text[..token.start];
            current = before.len() - before.rfind(['\n', '\r']).map_or(0, |at| at + 1);
        }
        current
    });
    columns.collect()
}
