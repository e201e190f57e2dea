//! What an `expect` line claims of an adapter.

use super::errors;
use super::program::Program;
use super::resolve::evaluate_constant;
use crate::diag::{Reported, Sink, Span};
use crate::syntax::ast::{self, BinaryOp, Expr, ExprKind};

/// An `expect` line.
#[derive(Clone, Debug)]
pub struct Expect {
    pub claim: Claim,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum Claim {
    /// `sites == 24`.
    Comparison {
        /// One for which [`BinaryOp::is_comparison`] holds.
        op: BinaryOp,
        left: Operand,
        right: Operand,
    },
    Property(Property),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operand {
    Fact(Fact),
    Number(f64),
    /// `1%`, as the share that it is.
    Share(f64),
}

/// A number that is known of a planned adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Modules that a statement changes or trains.
    Sites,
    /// Trained elements.
    Parameters,
    /// Trained elements over all elements, as PEFT counts.
    Trainable,
    /// Adapted linear modules over all linear modules.
    Coverage,
}

impl Fact {
    pub const ALL: &'static [Fact] = &[
        Fact::Sites,
        Fact::Parameters,
        Fact::Trainable,
        Fact::Coverage,
    ];

    /// The word of the language.
    pub fn name(self) -> &'static str {
        match self {
            Fact::Sites => "sites",
            Fact::Parameters => "parameters",
            Fact::Trainable => "trainable",
            Fact::Coverage => "coverage",
        }
    }
}

/// What holds for every method at every module, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// The outputs at the start are those of the base model.
    IdentityAtStart,
    /// The adapted layer is the same layer with other weights.
    Mergeable,
    /// Padding changes nothing.
    PadInvariant,
    /// Every token is computed from itself, as decoding with a KV cache needs.
    CacheSafe,
}

impl Property {
    pub const ALL: &'static [Property] = &[
        Property::IdentityAtStart,
        Property::Mergeable,
        Property::PadInvariant,
        Property::CacheSafe,
    ];

    /// The words of the language.
    pub fn name(self) -> &'static str {
        match self {
            Property::IdentityAtStart => "identity at start",
            Property::Mergeable => "mergeable",
            Property::PadInvariant => "pad_invariant",
            Property::CacheSafe => "cache_safe",
        }
    }
}

/// Reads a claim, or reports what is wrong with it.
pub(super) fn claim(
    program: &Program,
    expect: &ast::Expect,
    sink: &mut Sink,
) -> Result<Expect, Reported> {
    let claim = match &expect.claim {
        ast::Claim::IdentityAtStart => Claim::Property(Property::IdentityAtStart),
        ast::Claim::Property(name) => Claim::Property(property(name, sink)?),
        ast::Claim::Condition(expr) => comparison(program, expr, sink)?,
    };
    Ok(Expect {
        claim,
        span: expect.span,
    })
}

fn property(name: &ast::Ident, sink: &mut Sink) -> Result<Property, Reported> {
    let text = name.node.as_str();
    if let Some(found) = Property::ALL.iter().find(|known| known.name() == text) {
        return Ok(*found);
    }
    if Fact::ALL.iter().any(|known| known.name() == text) {
        return Err(sink.emit(errors::not_a_claim(name.span, &format!("`{text}`"))));
    }
    let properties = Property::ALL.iter().map(|known| known.name());
    let known: Vec<&str> = properties
        .chain(Fact::ALL.iter().map(|known| known.name()))
        .collect();
    Err(sink.emit(errors::unknown_fact(name.span, text, &known)))
}

fn comparison(program: &Program, expr: &Expr, sink: &mut Sink) -> Result<Claim, Reported> {
    match &expr.kind {
        ExprKind::Binary(op, left, right) if op.node.is_comparison() => Ok(Claim::Comparison {
            op: op.node,
            left: operand(program, left, sink)?,
            right: operand(program, right, sink)?,
        }),
        ExprKind::Binary(op, ..) => {
            let found = format!("`{}`", op.node.symbol());
            Err(sink.emit(errors::not_a_claim(expr.span, &found)))
        }
        _ => Err(sink.emit(errors::not_a_claim(expr.span, "another expression"))),
    }
}

/// A fact by name, or a number made of literals.
fn operand(program: &Program, expr: &Expr, sink: &mut Sink) -> Result<Operand, Reported> {
    if let ExprKind::Name(name) = &expr.kind {
        let known = Fact::ALL.iter().find(|known| known.name() == name);
        return known.copied().map(Operand::Fact).ok_or_else(|| {
            let known: Vec<&str> = Fact::ALL.iter().map(|known| known.name()).collect();
            sink.emit(errors::unknown_fact(expr.span, name, &known))
        });
    }
    let value = evaluate_constant(program, expr, sink)?;
    match (value.number().flatten(), &expr.kind) {
        (Some(number), ExprKind::Percent(_)) => Ok(Operand::Share(number)),
        (Some(number), _) => Ok(Operand::Number(number)),
        (None, _) => Err(sink.emit(errors::wrong_type(expr.span, "a number", value.describe()))),
    }
}
