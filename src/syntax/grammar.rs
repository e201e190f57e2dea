//! The generated parser and the binding strength of its operators.

use pest::pratt_parser::{Assoc, ConstPrattParser, Op};

/// The parser of `grammar/peft.pest`, with its `Rule`s.
#[derive(pest_derive::Parser)]
#[grammar = "grammar/peft.pest"]
pub(super) struct Grammar;

/// Weakest first, as [`BinaryOp::precedence`](super::ast::BinaryOp::precedence) and
/// [`UnaryOp::precedence`](super::ast::UnaryOp::precedence) say.
pub(super) static STRENGTH: ConstPrattParser<Rule, 17> = ConstPrattParser::new_const([
    (Op::infix(Rule::or, Assoc::Left), true),
    (Op::infix(Rule::and, Assoc::Left), true),
    (Op::prefix(Rule::not), true),
    (Op::infix(Rule::equal, Assoc::Left), true),
    (Op::infix(Rule::not_equal, Assoc::Left), false),
    (Op::infix(Rule::less, Assoc::Left), false),
    (Op::infix(Rule::less_equal, Assoc::Left), false),
    (Op::infix(Rule::greater, Assoc::Left), false),
    (Op::infix(Rule::greater_equal, Assoc::Left), false),
    (Op::infix(Rule::add, Assoc::Left), true),
    (Op::infix(Rule::subtract, Assoc::Left), false),
    (Op::infix(Rule::multiply, Assoc::Left), true),
    (Op::infix(Rule::divide, Assoc::Left), false),
    (Op::infix(Rule::remainder, Assoc::Left), false),
    (Op::infix(Rule::matmul, Assoc::Left), false),
    (Op::prefix(Rule::negate), true),
    (Op::infix(Rule::power, Assoc::Right), true),
]);
