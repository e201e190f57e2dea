//! Expressions: the flat list of operands and operators becomes a tree.

use super::{Builder, Parts};
use crate::diag::{Span, Spanned};
use crate::syntax::ast::{Argument, BinaryOp, Block, Expr, ExprKind, Subscript, UnaryOp};
use crate::syntax::errors;
use crate::syntax::grammar::{Rule, STRENGTH};
use pest::iterators::Pair;

impl Builder<'_> {
    pub(super) fn expr(&mut self, pair: Pair<'_, Rule>) -> Expr {
        let span = self.span(&pair);
        let pieces: Vec<_> = pair.into_inner().collect();
        self.check_comparisons(&pieces);
        // Each operator may be one more level of the tree, and of the recursion that builds it.
        let levels = 1 + pieces
            .iter()
            .filter(|p| p.as_rule() != Rule::operand)
            .count();
        self.nested(levels, span, |builder| builder.ordered(pieces))
            .unwrap_or_else(|| placeholder(span))
    }

    /// Orders operands and operators by binding strength.
    fn ordered(&mut self, pieces: Vec<Pair<'_, Rule>>) -> Expr {
        let (file, base) = (self.file, self.base);
        let place = |op: &Pair<'_, Rule>| {
            let span = op.as_span();
            Span::new(file, base + span.start(), base + span.end())
        };
        STRENGTH
            .map_primary(|operand| self.operand(operand))
            .map_prefix(|op, value| {
                let span = place(&op).to(value.span);
                let kind = ExprKind::Unary(unary(op.as_rule()), Box::new(value));
                Expr { kind, span }
            })
            .map_infix(|left, op, right| {
                let span = left.span.to(right.span);
                let node = binary(op.as_rule()).expect("grammar: infix operators are binary");
                let op = Spanned {
                    node,
                    span: place(&op),
                };
                let kind = ExprKind::Binary(op, Box::new(left), Box::new(right));
                Expr { kind, span }
            })
            .parse(pieces.into_iter())
    }

    /// `a < b < c` would compare a truth value with a number.
    fn check_comparisons(&mut self, pieces: &[Pair<'_, Rule>]) {
        let mut previous: Option<Span> = None;
        for piece in pieces {
            match binary(piece.as_rule()) {
                Some(BinaryOp::And | BinaryOp::Or) => previous = None,
                Some(op) if op.is_comparison() => {
                    let span = self.span(piece);
                    if let Some(first) = previous {
                        self.report(errors::comparisons_in_a_row(first, span));
                    }
                    previous = Some(span);
                }
                _ => {}
            }
        }
    }

    /// A primary expression with its subscripts and fields.
    fn operand(&mut self, pair: Pair<'_, Rule>) -> Expr {
        let span = self.span(&pair);
        let mut parts = Parts::of(pair);
        let primary = parts.any();
        let suffixes = parts.rest();
        self.nested(suffixes.len(), span, |builder| {
            let start = builder.primary(primary);
            suffixes
                .into_iter()
                .fold(start, |value, suffix| builder.suffix(value, suffix))
        })
        .unwrap_or_else(|| placeholder(span))
    }

    fn suffix(&mut self, value: Expr, suffix: Pair<'_, Rule>) -> Expr {
        let span = value.span.to(self.span(&suffix));
        let value = Box::new(value);
        let kind = match suffix.as_rule() {
            Rule::field => {
                let name = Parts::of(suffix).one(Rule::name);
                ExprKind::Field(value, self.ident(&name))
            }
            _ => {
                let place = self.span(&suffix);
                let subscripts = Parts::of(suffix).rest();
                if subscripts.is_empty() {
                    self.report(errors::unexpected_text(place, "a value", "`]`"));
                }
                let subscripts = subscripts.into_iter().map(|s| self.subscript(s)).collect();
                ExprKind::Index(value, subscripts)
            }
        };
        Expr { kind, span }
    }

    fn primary(&mut self, pair: Pair<'_, Rule>) -> Expr {
        let span = self.span(&pair);
        let kind = match pair.as_rule() {
            Rule::number => self.number(&pair),
            Rule::percent => self.percent(&pair),
            Rule::boolean => ExprKind::Bool(pair.as_str() == "true"),
            Rule::string => ExprKind::Str(self.string(&pair).node),
            Rule::name => ExprKind::Name(pair.as_str().to_owned()),
            Rule::call => self.call(pair),
            Rule::list => ExprKind::List(self.exprs(Parts::of(pair).rest())),
            // The parentheses go into the span only.
            Rule::paren => self.expr(Parts::of(pair).one(Rule::expr)).kind,
            rule => {
                debug_assert_eq!(rule, Rule::if_expr);
                return self.if_expr(pair);
            }
        };
        Expr { kind, span }
    }

    fn call(&mut self, pair: Pair<'_, Rule>) -> ExprKind {
        let mut parts = Parts::of(pair);
        let callee = self.ident(&parts.one(Rule::name));
        let arguments = self.arguments(parts.one(Rule::arguments));
        ExprKind::Call { callee, arguments }
    }

    /// `(a, name = b)`.
    pub(super) fn arguments(&mut self, pair: Pair<'_, Rule>) -> Vec<Argument> {
        let mut arguments: Vec<Argument> = Vec::new();
        for argument in Parts::of(pair).rest() {
            let mut parts = Parts::of(argument);
            let name = parts.maybe(Rule::name).map(|name| self.ident(&name));
            let value = self.expr(parts.one(Rule::expr));
            let named = arguments.iter().rev().find_map(|a| a.name.as_ref());
            if let (None, Some(named)) = (&name, named) {
                self.report(errors::positional_after_named(value.span, named));
            }
            arguments.push(Argument { name, value });
        }
        self.check_distinct(arguments.iter().filter_map(|a| a.name.as_ref()), "argument");
        arguments
    }

    pub(super) fn exprs(&mut self, pairs: Vec<Pair<'_, Rule>>) -> Vec<Expr> {
        pairs.into_iter().map(|pair| self.expr(pair)).collect()
    }

    fn subscript(&mut self, pair: Pair<'_, Rule>) -> Subscript {
        let span = self.span(&pair);
        let (mut start, mut end, mut is_range) = (None, None, false);
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::expr if is_range => end = Some(self.expr(part)),
                Rule::expr => start = Some(self.expr(part)),
                _ => is_range = true,
            }
        }
        match start {
            Some(position) if !is_range => Subscript::At(position),
            start => Subscript::Range { start, end, span },
        }
    }

    /// `if … { } else if … { } else { }`: each `else if` nests in the block before.
    fn if_expr(&mut self, pair: Pair<'_, Rule>) -> Expr {
        let span = self.span(&pair);
        let mut pieces = Parts::of(pair).rest();
        self.nested(pieces.len() / 2, span, |builder| {
            let last = pieces.pop().expect("grammar: `if` has an else block");
            let mut otherwise = builder.block(last);
            while let (Some(block), Some(condition)) = (pieces.pop(), pieces.pop()) {
                let then = builder.block(block);
                let condition = Box::new(builder.expr(condition));
                let start = condition.span;
                let whole = if pieces.is_empty() {
                    span
                } else {
                    start.to(otherwise.span)
                };
                let kind = ExprKind::If {
                    condition,
                    then,
                    otherwise,
                };
                let value = Expr { kind, span: whole };
                otherwise = Block {
                    statements: Vec::new(),
                    value: Some(Box::new(value)),
                    span: whole,
                };
            }
            *otherwise
                .value
                .expect("the loop has run: `if` has a condition")
        })
        .unwrap_or_else(|| placeholder(span))
    }
}

/// Stands for an expression about which an error has been reported.
fn placeholder(span: Span) -> Expr {
    let kind = ExprKind::Int(0);
    Expr { kind, span }
}

fn unary(rule: Rule) -> UnaryOp {
    match rule {
        Rule::not => UnaryOp::Not,
        _ => UnaryOp::Negate,
    }
}

fn binary(rule: Rule) -> Option<BinaryOp> {
    Some(match rule {
        Rule::add => BinaryOp::Add,
        Rule::subtract => BinaryOp::Subtract,
        Rule::multiply => BinaryOp::Multiply,
        Rule::divide => BinaryOp::Divide,
        Rule::remainder => BinaryOp::Remainder,
        Rule::matmul => BinaryOp::MatMul,
        Rule::power => BinaryOp::Power,
        Rule::equal => BinaryOp::Equal,
        Rule::not_equal => BinaryOp::NotEqual,
        Rule::less => BinaryOp::Less,
        Rule::less_equal => BinaryOp::LessEqual,
        Rule::greater => BinaryOp::Greater,
        Rule::greater_equal => BinaryOp::GreaterEqual,
        Rule::and => BinaryOp::And,
        Rule::or => BinaryOp::Or,
        _ => return None,
    })
}
