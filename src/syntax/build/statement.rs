//! Blocks and their statements.

use super::{Builder, Parts};
use crate::diag::Span;
use crate::syntax::ast::{Block, Expr, Ident, Statement};
use crate::syntax::errors;
use crate::syntax::grammar::Rule;
use pest::iterators::Pair;
use std::collections::BTreeSet;

impl Builder<'_> {
    /// Statements, then perhaps a value.
    pub(super) fn block(&mut self, pair: Pair<'_, Rule>) -> Block {
        let span = self.span(&pair);
        let mut lines = Parts::of(pair).rest();
        let touching = self.check_apart(&lines);
        self.nested(1, span, |builder| {
            let value = lines.pop_if(|line| line.as_rule() == Rule::expr);
            Block {
                statements: builder.statements(lines, &touching, "in the middle of a block"),
                value: value.map(|value| Box::new(builder.expr(value))),
                span,
            }
        })
        .unwrap_or_else(|| empty(span))
    }

    /// A block without a value.
    pub(super) fn statements_of(&mut self, pair: Pair<'_, Rule>, place: &str) -> Vec<Statement> {
        let span = self.span(&pair);
        let lines = Parts::of(pair).rest();
        let touching = self.check_apart(&lines);
        self.nested(1, span, |builder| {
            builder.statements(lines, &touching, place)
        })
        .unwrap_or_default()
    }

    /// Lines that may not be values; `place` says where they stand. One of those `touching` another
    /// is a value by mistake, which is reported already.
    fn statements(
        &mut self,
        lines: Vec<Pair<'_, Rule>>,
        touching: &BTreeSet<usize>,
        place: &str,
    ) -> Vec<Statement> {
        let mut statements = Vec::new();
        for (at, line) in lines.into_iter().enumerate() {
            match line.as_rule() {
                Rule::bind => statements.push(self.bind(line)),
                Rule::for_loop => statements.extend(self.for_loop(line)),
                _ => {
                    let value = self.expr(line);
                    if !touching.contains(&at) {
                        self.report(errors::value_without_use(value.span, place));
                    }
                }
            }
        }
        statements
    }

    fn bind(&mut self, pair: Pair<'_, Rule>) -> Statement {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let name = self.ident(&parts.one(Rule::name));
        let value = self.expr(parts.one(Rule::expr));
        Statement::Bind { name, value, span }
    }

    /// Nothing if it nests too deeply, which is then reported.
    fn for_loop(&mut self, pair: Pair<'_, Rule>) -> Option<Statement> {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let (variable, start, end) = self.for_head(parts.one(Rule::for_head));
        let lines = Parts::of(parts.one(Rule::block)).rest();
        let touching = self.check_apart(&lines);
        self.nested(1, span, |builder| Statement::For {
            variable,
            start,
            end,
            body: builder.statements(lines, &touching, "in a loop"),
            span,
        })
    }

    pub(super) fn for_head(&mut self, pair: Pair<'_, Rule>) -> (Ident, Expr, Expr) {
        let mut head = Parts::of(pair);
        (
            self.ident(&head.one(Rule::name)),
            self.expr(head.one(Rule::expr)),
            self.expr(head.one(Rule::expr)),
        )
    }

    /// Lines of a block of which some others are at fault.
    pub(super) fn lone_lines(&mut self, mut lines: Vec<Pair<'_, Rule>>) {
        let touching = self.check_apart(&lines);
        if let Some(value) = lines.pop_if(|line| line.as_rule() == Rule::expr) {
            self.expr(value);
        }
        self.statements(lines, &touching, "in the middle of a block");
    }
}

/// Stands for a block about which an error has been reported.
fn empty(span: Span) -> Block {
    Block {
        statements: Vec::new(),
        value: None,
        span,
    }
}
