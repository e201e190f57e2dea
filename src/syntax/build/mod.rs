//! Pest pairs to the syntax tree.
//!
//! In: the pairs of a text that the grammar accepts. Out: [`ast`](super::ast) nodes. Afterwards:
//! no expression or block nests deeper than [`MAX_DEPTH`], numbers are in range, statements are
//! apart, values end their blocks. Faults of this kind are reported and the build goes on with a
//! placeholder, so that all of them come at once. Not here: recovery from text outside the grammar.

mod adapter;
mod expr;
mod items;
mod literal;
mod statement;

use super::ast::{Ident, StringLit};
use super::errors;
use super::grammar::Rule;
use super::token::{Tokens, has_line_end};
use crate::diag::{Diagnostic, FileId, Reported, Sink, Span, Spanned};
use pest::iterators::{Pair, Pairs};
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;

/// How deep expressions and blocks may nest, counting each operator of a chain: later phases may
/// recurse over the tree.
pub(super) const MAX_DEPTH: usize = 200;

/// Builds nodes; collects what the grammar cannot say.
pub(super) struct Builder<'a> {
    file: FileId,
    tokens: &'a Tokens<'a>,
    /// Where the parsed piece starts in the file.
    base: usize,
    depth: usize,
    sink: &'a mut Sink,
    reported: Option<Reported>,
}

impl<'a> Builder<'a> {
    pub fn new(file: FileId, tokens: &'a Tokens<'a>, base: usize, sink: &'a mut Sink) -> Self {
        Builder {
            file,
            tokens,
            base,
            depth: 0,
            sink,
            reported: None,
        }
    }

    /// The value, if nothing has been reported while building it.
    pub fn finish<T>(self, value: T) -> Result<T, Reported> {
        match self.reported {
            None => Ok(value),
            Some(reported) => Err(reported),
        }
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.reported = Some(self.sink.emit(diagnostic));
    }

    fn start(&self, pair: &Pair<'_, Rule>) -> usize {
        self.base + pair.as_span().start()
    }

    /// The end of the pair's last token: pairs may reach over the blanks behind it.
    fn end(&self, pair: &Pair<'_, Rule>) -> usize {
        self.tokens.end_before(self.base + pair.as_span().end())
    }

    fn span(&self, pair: &Pair<'_, Rule>) -> Span {
        let start = self.start(pair);
        Span::new(self.file, start, self.end(pair).max(start))
    }

    fn ident(&self, pair: &Pair<'_, Rule>) -> Ident {
        Spanned {
            node: pair.as_str().to_owned(),
            span: self.span(pair),
        }
    }

    /// The names among `pairs`.
    fn idents<'i>(&self, pairs: impl Iterator<Item = Pair<'i, Rule>>) -> Vec<Ident> {
        pairs.map(|pair| self.ident(&pair)).collect()
    }

    /// Reports names that stand twice in one list.
    fn check_distinct<'n>(&mut self, names: impl IntoIterator<Item = &'n Ident>, what: &str) {
        let mut places: BTreeMap<&str, Span> = BTreeMap::new();
        for name in names {
            if let Some(first) = places.insert(&name.node, name.span) {
                self.report(errors::named_twice(first, name, what));
            }
        }
    }

    fn string(&mut self, pair: &Pair<'_, Rule>) -> StringLit {
        let span = self.span(pair);
        Spanned {
            node: self.unescape(pair.as_str(), span),
            span,
        }
    }

    /// Runs `build` with `levels` more levels of nesting, or reports that they are too many.
    fn nested<T>(
        &mut self,
        levels: usize,
        span: Span,
        build: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        if self.depth + levels > MAX_DEPTH {
            self.report(errors::nested_too_deeply(span, MAX_DEPTH));
            return None;
        }
        self.depth += levels;
        let value = build(self);
        self.depth -= levels;
        Some(value)
    }

    /// Reports statements or items that share a line without a `;` between them, and answers which
    /// those are.
    fn check_apart(&mut self, pairs: &[Pair<'_, Rule>]) -> BTreeSet<usize> {
        let mut touching = BTreeSet::new();
        for (at, two) in pairs.windows(2).enumerate() {
            let (end, start) = (self.end(&two[0]), self.start(&two[1]));
            let between = &self.tokens.text[end..start];
            if !has_line_end(between) && !between.contains(';') {
                let (previous, next) = (self.span(&two[0]), self.span(&two[1]));
                let text = |span: Span| &self.tokens.text[span.start as usize..span.end as usize];
                let (before, after) = (text(previous), text(next));
                self.report(errors::two_on_one_line(previous, next, before, after));
                touching.extend([at, at + 1]);
            }
        }
        touching
    }
}

/// The children of a pair that carry meaning: marks and keywords only gave the parse its shape.
struct Parts<'i>(Peekable<std::vec::IntoIter<Pair<'i, Rule>>>);

impl<'i> Parts<'i> {
    fn of(pair: Pair<'i, Rule>) -> Self {
        Parts::from(pair.into_inner())
    }

    fn from(pairs: Pairs<'i, Rule>) -> Self {
        let meaningful: Vec<_> = pairs.filter(|pair| !is_shape(pair.as_rule())).collect();
        Parts(meaningful.into_iter().peekable())
    }

    /// The next child, if it is a `rule`.
    fn maybe(&mut self, rule: Rule) -> Option<Pair<'i, Rule>> {
        self.0.next_if(|pair| pair.as_rule() == rule)
    }

    /// The next child, which the grammar says is a `rule`.
    fn one(&mut self, rule: Rule) -> Pair<'i, Rule> {
        let pair = self.any();
        debug_assert_eq!(pair.as_rule(), rule);
        pair
    }

    /// The next child, of whatever rule.
    fn any(&mut self) -> Pair<'i, Rule> {
        self.0
            .next()
            .expect("grammar: the rule has as many parts as are taken")
    }

    /// All following children that are a `rule`.
    fn many(&mut self, rule: Rule) -> Vec<Pair<'i, Rule>> {
        std::iter::from_fn(|| self.maybe(rule)).collect()
    }

    /// All following children.
    fn rest(self) -> Vec<Pair<'i, Rule>> {
        self.0.collect()
    }
}

/// Marks and keywords without meaning of their own.
fn is_shape(rule: Rule) -> bool {
    use Rule::*;
    matches!(
        rule,
        open_brace
            | close_brace
            | open_paren
            | close_paren
            | open_bracket
            | close_bracket
            | comma
            | semicolon
            | colon
            | path_mark
            | assign
            | dot
            | dots
            | add
            | EOI
            | kw_adapt
            | kw_adapter
            | kw_all
            | kw_as
            | kw_at
            | kw_by
            | kw_choice
            | kw_else
            | kw_except
            | kw_expect
            | kw_fn
            | kw_for
            | kw_forward
            | kw_identity
            | kw_if
            | kw_in
            | kw_interchange
            | kw_layers
            | kw_let
            | kw_loss
            | kw_method
            | kw_on
            | kw_override
            | kw_rate
            | kw_regex
            | kw_require
            | kw_role
            | kw_start
            | kw_state
            | kw_train
            | kw_use
            | kw_when
            | kw_where
            | kw_with
    )
}
