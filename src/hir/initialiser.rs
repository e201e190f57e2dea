//! Start values of parameters: by name, or an expression over the base weight.

use super::errors;
use super::eval::Eval;
use super::formula::{Lead, TermKind, TermType};
use super::init::{Init, Random};
use super::scalar::Value;
use crate::diag::{Reported, Span};
use crate::syntax::ast::{self, Block, Expr, ExprKind};

type Result<T> = std::result::Result<T, Reported>;

/// An argument of a start value, with its default.
type ArgumentDefault = (&'static str, Option<f64>);

/// A start value with a name.
struct Named {
    name: &'static str,
    /// In their order; `None` if it is written without parentheses.
    arguments: Option<&'static [ArgumentDefault]>,
    /// Whether it fills matrices alone.
    of_matrices: bool,
    make: fn(&[f64]) -> Init,
}

static NAMED: &[Named] = &[
    Named {
        name: "zeros",
        arguments: None,
        of_matrices: false,
        make: |_| Init::Constant(0.0),
    },
    Named {
        name: "ones",
        arguments: None,
        of_matrices: false,
        make: |_| Init::Constant(1.0),
    },
    Named {
        name: "constant",
        arguments: Some(&[("value", None)]),
        of_matrices: false,
        make: |values| Init::Constant(values[0]),
    },
    Named {
        name: "uniform",
        arguments: Some(&[("low", Some(0.0)), ("high", Some(1.0))]),
        of_matrices: false,
        make: |values| Init::Random(Random::Uniform(values[0], values[1])),
    },
    Named {
        name: "normal",
        arguments: Some(&[("mean", Some(0.0)), ("std", Some(1.0))]),
        of_matrices: false,
        make: |values| Init::Random(Random::Normal(values[0], values[1])),
    },
    Named {
        name: "integers",
        arguments: Some(&[("low", None), ("high", None)]),
        of_matrices: false,
        make: |values| Init::Random(Random::Integers(values[0], values[1])),
    },
    Named {
        name: "distinct",
        arguments: Some(&[("rows", None), ("columns", Some(1.0))]),
        of_matrices: false,
        make: |values| Init::Random(Random::Distinct(values[0], values[1])),
    },
    Named {
        name: "kaiming_uniform",
        arguments: Some(&[("a", Some(0.0))]),
        of_matrices: false,
        make: |values| Init::Random(Random::KaimingUniform { a: values[0] }),
    },
    Named {
        name: "xavier_uniform",
        arguments: Some(&[("gain", Some(1.0))]),
        of_matrices: true,
        make: |values| Init::Random(Random::XavierUniform { gain: values[0] }),
    },
    Named {
        name: "orthogonal",
        arguments: Some(&[("gain", Some(1.0))]),
        of_matrices: true,
        make: |values| Init::Random(Random::Orthogonal { gain: values[0] }),
    },
];

/// How the start values with a name are written, such as `normal(mean = 0, std = 1)`.
pub fn initialisers() -> impl Iterator<Item = String> {
    NAMED.iter().map(Named::signature)
}

/// Whether `name` is that of a start value.
pub(super) fn is_initialiser(name: &str) -> bool {
    NAMED.iter().any(|named| named.name == name)
}

impl Named {
    fn signature(&self) -> String {
        let Some(arguments) = self.arguments else {
            return self.name.to_owned();
        };
        let list: Vec<String> = arguments
            .iter()
            .map(|(name, default)| match default {
                Some(value) => format!("{name} = {value}"),
                None => (*name).to_owned(),
            })
            .collect();
        format!("{}({})", self.name, list.join(", "))
    }
}

/// How a parameter of this type starts.
pub(super) fn start_value(eval: &mut Eval<'_>, init: &Expr, ty: &TermType) -> Result<Init> {
    match &init.kind {
        ExprKind::Name(name) => {
            let named = NAMED
                .iter()
                .find(|n| n.name == name && n.arguments.is_none());
            if let Some(named) = named {
                return Ok((named.make)(&[]));
            }
        }
        ExprKind::Call { callee, arguments } => {
            let named = NAMED.iter().find(|named| named.name == callee.node);
            if let Some(named) = named {
                return with_arguments(eval, named, arguments, init.span, ty);
            }
        }
        ExprKind::If {
            condition,
            then,
            otherwise,
        } => {
            let chosen = eval.condition(condition)?;
            if chosen == Some(false) {
                return of_branch(eval, otherwise, ty);
            }
            let value = of_branch(eval, then, ty)?;
            if chosen.is_none() {
                // Not decided without a model: both branches must be sound.
                of_branch(eval, otherwise, ty)?;
            }
            return Ok(value);
        }
        _ => {}
    }
    computed(eval, init.span, ty, |eval| eval.expr(init))
}

fn of_branch(eval: &mut Eval<'_>, block: &Block, ty: &TermType) -> Result<Init> {
    match &block.value {
        Some(value) if block.statements.is_empty() => start_value(eval, value, ty),
        _ => computed(eval, block.span, ty, |eval| eval.block(block)),
    }
}

fn with_arguments(
    eval: &mut Eval<'_>,
    named: &Named,
    arguments: &[ast::Argument],
    span: Span,
    ty: &TermType,
) -> Result<Init> {
    let parameters = named.arguments.unwrap_or_default();
    let mut values: Vec<Option<f64>> = parameters.iter().map(|(_, default)| *default).collect();
    let mut wrong = named.arguments.is_none();
    for (position, argument) in arguments.iter().enumerate() {
        let slot = match &argument.name {
            Some(wanted) => parameters.iter().position(|(name, _)| *name == wanted.node),
            None => (position < parameters.len()).then_some(position),
        };
        let Some(slot) = slot else {
            wrong = true;
            continue;
        };
        let value = eval.expr(&argument.value)?;
        let Some(number) = value.number() else {
            return Err(eval.fail(errors::wrong_type(
                argument.value.span,
                "a number",
                value.describe(),
            )));
        };
        // Unknown without a model; no value is drawn there.
        values[slot] = Some(number.unwrap_or(f64::NAN));
    }
    let values = values.into_iter().collect::<Option<Vec<f64>>>();
    let Some(values) = values.filter(|_| !wrong) else {
        let signature = named.signature();
        return Err(eval.fail(errors::wrong_arguments(span, named.name, &signature)));
    };
    if named.of_matrices && ty.dims.len() != 2 {
        return Err(eval.fail(errors::wrong_type(
            span,
            "a matrix to initialise",
            &format!("{ty}"),
        )));
    }
    let init = (named.make)(&values);
    if let Init::Random(Random::Integers(low, high)) = init
        && high <= low
    {
        let wanted = "a lower bound below the upper one";
        return Err(eval.fail(errors::wrong_type(
            span,
            wanted,
            &format!("{low} and {high}"),
        )));
    }
    if let Init::Random(Random::Distinct(rows, columns)) = init {
        check_places(eval, rows, columns, span, ty)?;
    }
    Ok(init)
}

/// Random numbers inside an expression, of the shape that the argument `shape` says.
pub(super) fn drawn(
    eval: &mut Eval<'_>,
    name: &str,
    arguments: &[ast::Argument],
    span: Span,
) -> Result<Value> {
    let is_shape = |argument: &&ast::Argument| {
        let name = argument.name.as_ref();
        name.is_some_and(|name| name.node == "shape")
    };
    let shape = arguments.iter().find(is_shape).filter(|_| eval.starting);
    let named = NAMED.iter().find(|named| named.name == name);
    let (Some(shape), Some(named)) = (shape, named) else {
        return Err(eval.fail(errors::lone_initialiser(span, name)));
    };
    let Value::List(items) = eval.expr(&shape.value)? else {
        let found = "no list";
        return Err(eval.fail(errors::wrong_type(
            shape.value.span,
            "a list of sizes",
            found,
        )));
    };
    let dims: Result<Vec<_>> = items
        .iter()
        .map(|item| eval.as_size(item, shape.value.span))
        .collect();
    let ty = TermType::of(Lead::None, dims?);
    let rest: Vec<ast::Argument> = arguments.iter().filter(|a| !is_shape(a)).cloned().collect();
    match with_arguments(eval, named, &rest, span, &ty)? {
        Init::Random(random) => Ok(Value::Term(eval.term(TermKind::Drawn(random), ty, span)?)),
        _ => Err(eval.fail(errors::lone_initialiser(span, name))),
    }
}

/// Places are `[n, 2]`, or `[n]` in one column, and no more than there are.
fn check_places(
    eval: &mut Eval<'_>,
    rows: f64,
    columns: f64,
    span: Span,
    ty: &TermType,
) -> Result<()> {
    let fits = match ty.dims.as_slice() {
        [_] => columns == 1.0,
        [_, two] => two.known() == Some(2),
        _ => false,
    };
    if !fits {
        let wanted = "places [n, 2], or [n] of one column";
        return Err(eval.fail(errors::wrong_type(span, wanted, &format!("{ty}"))));
    }
    match ty.dims[0].known() {
        Some(count) if count as f64 > rows * columns => {
            let (wanted, of) = (
                format!("place {count}"),
                format!("the {} that there are", rows * columns),
            );
            Err(eval.fail(errors::outside(span, &wanted, &of)))
        }
        _ => Ok(()),
    }
}

/// An expression over the base weight and bias, with a formula of its own.
fn computed(
    eval: &mut Eval<'_>,
    span: Span,
    ty: &TermType,
    evaluate: impl FnOnce(&mut Eval<'_>) -> Result<Value>,
) -> Result<Init> {
    let forward = std::mem::take(&mut eval.formula);
    let within = std::mem::replace(&mut eval.starting, true);
    let value = evaluate(eval).and_then(|value| eval.as_term(value, span));
    eval.starting = within;
    let mut formula = std::mem::replace(&mut eval.formula, forward);
    let result = value?;
    formula.result = Some(result);
    if let TermKind::Number(value) = formula.term(result).kind {
        return Ok(Init::Constant(value));
    }
    let found = formula.term(result).ty.clone();
    if !found.is_same(ty) {
        return Err(eval.fail(errors::wrong_type(
            span,
            &format!("an initial value {ty}"),
            &format!("{found}"),
        )));
    }
    Ok(Init::Computed(formula))
}
