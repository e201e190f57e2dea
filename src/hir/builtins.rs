//! The functions of the language: one table, and calls of user functions and methods.

use super::errors;
use super::eval::{Eval, hyper_scope};
use super::formula::{Activation, Axis, Binary, Lead, Reduce, TermId, TermKind, TermType, Unary};
use super::instance;
use super::scalar::{NamedAxis, Value};
use crate::diag::{Reported, Span};
use crate::syntax::ast::{Argument, Expr, Ident};
use crate::ty::Dim;
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, Reported>;

/// A function that the language knows.
struct Builtin {
    name: &'static str,
    /// How it is called, shown when a call does not fit. Arguments behind `*` go by name.
    signature: &'static str,
    positional: usize,
    named: &'static [&'static str],
    evaluate: fn(&mut Eval<'_>, &Builtin, &Call<'_>) -> Result<Value>,
}

/// A checked call: as many positional arguments as declared, and only known names.
struct Call<'a> {
    positional: Vec<&'a Expr>,
    named: BTreeMap<&'static str, &'a Expr>,
    span: Span,
}

static BUILTINS: &[Builtin] = &[
    unary("exp"),
    unary("log"),
    unary("sqrt"),
    unary("abs"),
    unary("sin"),
    unary("cos"),
    unary("erf"),
    unary("relu"),
    unary("sigmoid"),
    unary("tanh"),
    unary("gelu"),
    unary("silu"),
    unary("softplus"),
    Builtin {
        name: "min",
        signature: "min(a, b)",
        positional: 2,
        named: &[],
        evaluate: extremum,
    },
    Builtin {
        name: "max",
        signature: "max(a, b)",
        positional: 2,
        named: &[],
        evaluate: extremum,
    },
    reduction(
        "sum",
        "sum(x, over = tokens | features | 0 | 1 | -1, mask = …, keep = false)",
    ),
    reduction(
        "mean",
        "mean(x, over = tokens | features | 0 | 1 | -1, mask = …, keep = false)",
    ),
    reduction(
        "norm",
        "norm(x, over = features | 0 | 1 | -1, keep = false)",
    ),
    Builtin {
        name: "running_mean",
        signature: "running_mean(x, over = tokens, mask = …)",
        positional: 1,
        named: &["over", "mask"],
        evaluate: running_mean,
    },
    Builtin {
        name: "last",
        signature: "last(x, over = tokens, mask = …)",
        positional: 1,
        named: &["over", "mask"],
        evaluate: last,
    },
    Builtin {
        name: "cumsum",
        signature: "cumsum(x, over = tokens)",
        positional: 1,
        named: &["over"],
        evaluate: cumsum,
    },
    Builtin {
        name: "softmax",
        signature: "softmax(x)",
        positional: 1,
        named: &[],
        evaluate: softmax,
    },
    Builtin {
        name: "reshape",
        signature: "reshape(x, [a, b])",
        positional: 2,
        named: &[],
        evaluate: reshape,
    },
    Builtin {
        name: "concat",
        signature: "concat([a, b], axis = 0)",
        positional: 1,
        named: &["axis"],
        evaluate: concat,
    },
    Builtin {
        name: "stop_gradient",
        signature: "stop_gradient(x)",
        positional: 1,
        named: &[],
        evaluate: stop_gradient,
    },
    Builtin {
        name: "dropout",
        signature: "dropout(x, p = 0.1)",
        positional: 1,
        named: &["p"],
        evaluate: dropout,
    },
    Builtin {
        name: "base",
        signature: "base(x, weight = …, bias = …)",
        positional: 1,
        named: &["weight", "bias"],
        evaluate: base,
    },
    Builtin {
        name: "largest",
        signature: "largest(in) or largest(out)",
        positional: 1,
        named: &[],
        evaluate: largest,
    },
];

const fn unary(name: &'static str) -> Builtin {
    Builtin {
        name,
        signature: "f(x)",
        positional: 1,
        named: &[],
        evaluate: elementwise,
    }
}

const fn reduction(name: &'static str, signature: &'static str) -> Builtin {
    Builtin {
        name,
        signature,
        positional: 1,
        named: &["over", "mask", "keep"],
        evaluate: reduce,
    }
}

/// Names of all functions, for suggestions and the reference.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    BUILTINS.iter().map(|builtin| builtin.name)
}

/// Evaluates a call of a builtin, a function of the method or its file, or another method.
pub(super) fn call(
    cx: &mut Eval<'_>,
    callee: &Ident,
    arguments: &[Argument],
    span: Span,
) -> Result<Value> {
    if let Some(function) = find_function(cx, &callee.node) {
        return call_function(cx, &function, arguments, span);
    }
    if let Some(builtin) = BUILTINS.iter().find(|builtin| builtin.name == callee.node) {
        let Some(call) = fit(builtin, arguments, span) else {
            let signature = if builtin.signature == "f(x)" {
                format!("{}(x)", builtin.name)
            } else {
                builtin.signature.to_owned()
            };
            return Err(cx.fail(errors::wrong_arguments(span, builtin.name, &signature)));
        };
        return (builtin.evaluate)(cx, builtin, &call);
    }
    if let Some(id) = cx.method.visible.get(&callee.node).copied() {
        return call_method(cx, id, callee, arguments, span);
    }
    let known: Vec<String> = names()
        .map(str::to_owned)
        .chain(cx.method.visible.keys().cloned())
        .chain(cx.method.functions.keys().cloned())
        .collect();
    Err(cx.fail(errors::unknown_name(
        callee.span,
        &callee.node,
        known.iter().map(String::as_str),
    )))
}

fn fit<'a>(builtin: &Builtin, arguments: &'a [Argument], span: Span) -> Option<Call<'a>> {
    let mut call = Call {
        positional: Vec::new(),
        named: BTreeMap::new(),
        span,
    };
    for argument in arguments {
        match &argument.name {
            None => call.positional.push(&argument.value),
            Some(name) => {
                let known = builtin.named.iter().find(|known| **known == name.node)?;
                if call.named.insert(known, &argument.value).is_some() {
                    return None;
                }
            }
        }
    }
    (call.positional.len() == builtin.positional).then_some(call)
}

fn find_function(cx: &Eval<'_>, name: &str) -> Option<crate::syntax::ast::Function> {
    use crate::syntax::ast::MethodItem;
    let own = cx.method.body.body.iter().find_map(|item| match item {
        MethodItem::Function(function) if function.name.node == name => Some(function.clone()),
        _ => None,
    });
    own.or_else(|| cx.method.functions.get(name).cloned())
}

fn call_function(
    cx: &mut Eval<'_>,
    function: &crate::syntax::ast::Function,
    arguments: &[Argument],
    span: Span,
) -> Result<Value> {
    let names: Vec<&str> = function
        .parameters
        .iter()
        .map(|p| p.node.as_str())
        .collect();
    if arguments.len() != names.len() || arguments.iter().any(|a| a.name.is_some()) {
        let signature = format!("{}({})", function.name.node, names.join(", "));
        return Err(cx.fail(errors::wrong_arguments(
            span,
            &function.name.node,
            &signature,
        )));
    }
    let mut scope = BTreeMap::new();
    for (name, argument) in names.iter().zip(arguments) {
        let value = cx.expr(&argument.value)?;
        scope.insert((*name).to_owned(), value);
    }
    cx.enter(span, &function.name.node)?;
    cx.scopes.push(scope);
    let value = cx.block(&function.body);
    cx.scopes.pop();
    cx.depth -= 1;
    value
}

/// `lora(x, y, rank = 4)`: the other method's parameters join this one's, under its name.
fn call_method(
    cx: &mut Eval<'_>,
    id: super::MethodId,
    callee: &Ident,
    arguments: &[Argument],
    span: Span,
) -> Result<Value> {
    let method = cx.program.method(id).clone();
    let positional: Vec<&Argument> = arguments.iter().filter(|a| a.name.is_none()).collect();
    if positional.len() != 2 {
        let signature = format!("{}(x, y, …hyper-parameters by name)", callee.node);
        return Err(cx.fail(errors::wrong_arguments(span, &callee.node, &signature)));
    }
    let mut values = BTreeMap::new();
    for argument in arguments.iter().filter(|a| a.name.is_some()) {
        let name = argument.name.as_ref().expect("filtered");
        let Some(hyper) = method.hyper(&name.node) else {
            return Err(cx.fail(errors::unknown_hyper(name.span, &name.node, &method)));
        };
        let value = cx.expr(&argument.value)?;
        let value =
            instance::hyper_value(hyper, &value, argument.value.span).map_err(|d| cx.fail(d))?;
        values.insert(name.node.clone(), value);
    }
    for hyper in &method.hypers {
        if values.contains_key(&hyper.name.node) {
            continue;
        }
        let Some(default) = &hyper.default else {
            return Err(cx.fail(errors::missing_hyper(span, hyper, &method)));
        };
        values.insert(hyper.name.node.clone(), default.clone());
    }
    let x = cx.expr(&positional[0].value)?;
    let x = cx.as_term(x, positional[0].value.span)?;
    let y = cx.expr(&positional[1].value)?;
    let y = cx.as_term(y, positional[1].value.span)?;
    cx.enter(span, &callee.node)?;
    let prefix = format!("{}{}.", cx.prefix, callee.node);
    let mut inner = Eval {
        program: cx.program,
        method: &method,
        facts: cx.facts,
        sink: &mut *cx.sink,
        context: cx.context,
        formula: std::mem::take(&mut cx.formula),
        params: std::mem::take(&mut cx.params),
        scopes: vec![instance::site_scope(cx.facts), hyper_scope(&values)],
        absent: BTreeMap::new(),
        prefix,
        depth: cx.depth,
    };
    let result = instance::evaluate_body(&mut inner, x, y);
    cx.formula = inner.formula;
    cx.params = inner.params;
    cx.depth -= 1;
    Ok(Value::Term(result?))
}

impl Eval<'_> {
    fn enter(&mut self, span: Span, name: &str) -> Result<()> {
        if self.depth >= super::eval::CALL_DEPTH {
            return Err(self.fail(errors::recursion(span, name)));
        }
        self.depth += 1;
        Ok(())
    }

    fn operand(&mut self, call: &Call<'_>, index: usize) -> Result<TermId> {
        let expr = call.positional[index];
        let value = self.expr(expr)?;
        self.as_term(value, expr.span)
    }

    fn axis(&mut self, expr: &Expr, ty: &TermType) -> Result<Axis> {
        let value = self.expr(expr)?;
        let rank = ty.dims.len() as i64;
        match value {
            Value::Axis(NamedAxis::Tokens) if ty.lead != Lead::None => Ok(Axis::Tokens),
            Value::Axis(NamedAxis::Tokens) => {
                let found = format!("{ty}");
                Err(self.fail(errors::wrong_type(
                    expr.span,
                    "a tensor with a token axis",
                    &found,
                )))
            }
            Value::Axis(NamedAxis::Features) if rank > 0 => Ok(Axis::Dim(rank as usize - 1)),
            Value::Int(dim) if dim.known().is_some_and(|at| (-rank..rank).contains(&at)) => {
                let at = dim.known().expect("checked");
                Ok(Axis::Dim(at.rem_euclid(rank) as usize))
            }
            other => {
                let found = format!("{} for {ty}", other.describe());
                Err(self.fail(errors::wrong_type(
                    expr.span,
                    "`tokens`, `features` or the number of an axis",
                    &found,
                )))
            }
        }
    }

    /// The mask argument as a term, if there is one.
    fn mask(&mut self, call: &Call<'_>) -> Result<Option<TermId>> {
        let Some(expr) = call.named.get("mask") else {
            return Ok(None);
        };
        let value = self.expr(expr)?;
        let id = self.as_term(value, expr.span)?;
        let ty = self.ty(id);
        if ty != TermType::of(Lead::Full, [Dim::from(1)]) {
            return Err(self.fail(errors::wrong_type(
                expr.span,
                "a mask […, tokens, 1]",
                &format!("{ty}"),
            )));
        }
        Ok(Some(id))
    }

    /// The operand of a function over tokens, checked to have them.
    fn over_tokens(&mut self, call: &Call<'_>) -> Result<TermId> {
        let id = self.operand(call, 0)?;
        let ty = self.ty(id);
        match call.named.get("over") {
            Some(expr) => match self.axis(expr, &ty)? {
                Axis::Tokens if ty.lead == Lead::Full => Ok(id),
                _ => Err(self.fail(errors::wrong_type(
                    expr.span,
                    "`tokens` of a tensor that has them",
                    &format!("{ty}"),
                ))),
            },
            None if ty.lead == Lead::Full => Ok(id),
            None => Err(self.fail(errors::wrong_type(
                call.span,
                "a tensor with a token axis",
                &format!("{ty}"),
            ))),
        }
    }

    fn number_term(&mut self, value: f64, span: Span) -> Result<TermId> {
        self.term(TermKind::Number(value), TermType::scalar(), span)
    }
}

fn elementwise(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let value = cx.expr(call.positional[0])?;
    if let Some(number) = value.number() {
        return Ok(Value::Float(
            number.and_then(|x| number_function(builtin.name, x)),
        ));
    }
    let id = cx.as_term(value, call.positional[0].span)?;
    let ty = cx.ty(id);
    let function = match builtin.name {
        "exp" => Unary::Exp,
        "log" => Unary::Log,
        "sqrt" => Unary::Sqrt,
        "abs" => Unary::Abs,
        "sin" => Unary::Sin,
        "cos" => Unary::Cos,
        "erf" => Unary::Erf,
        "relu" => Unary::Activation(Activation::Relu),
        "sigmoid" => Unary::Activation(Activation::Sigmoid),
        "tanh" => Unary::Activation(Activation::Tanh),
        "gelu" => Unary::Activation(Activation::Gelu),
        "silu" => Unary::Activation(Activation::Silu),
        "softplus" => Unary::Activation(Activation::Softplus),
        other => unreachable!("`{other}` is in the table of functions without an operation"),
    };
    Ok(Value::Term(cx.term(
        TermKind::Unary(function, id),
        ty,
        call.span,
    )?))
}

/// Functions of plain numbers; `None` where only tensors have it.
fn number_function(name: &str, x: f64) -> Option<f64> {
    Some(match name {
        "exp" => x.exp(),
        "log" => x.ln(),
        "sqrt" => x.sqrt(),
        "abs" => x.abs(),
        "sin" => x.sin(),
        "cos" => x.cos(),
        "tanh" => x.tanh(),
        "relu" => x.max(0.0),
        "sigmoid" => 1.0 / (1.0 + (-x).exp()),
        "softplus" => x.exp().ln_1p(),
        _ => return None,
    })
}

fn extremum(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let smaller = builtin.name == "min";
    let a = cx.expr(call.positional[0])?;
    let b = cx.expr(call.positional[1])?;
    match (&a, &b) {
        (Value::Int(a), Value::Int(b)) => {
            Ok(Value::Int(if smaller { a.smaller(b) } else { a.larger(b) }))
        }
        (Value::Term(_), _) | (_, Value::Term(_)) => {
            let a = cx.as_term(a, call.positional[0].span)?;
            let b = cx.as_term(b, call.positional[1].span)?;
            let function = if smaller { Binary::Min } else { Binary::Max };
            Ok(Value::Term(cx.elementwise(function, a, b, call.span)?))
        }
        _ => match (a.number(), b.number()) {
            (Some(x), Some(y)) => Ok(Value::Float(
                x.zip(y)
                    .map(|(x, y)| if smaller { x.min(y) } else { x.max(y) }),
            )),
            _ => Err(cx.fail(errors::wrong_type(
                call.span,
                "numbers or tensors",
                a.describe(),
            ))),
        },
    }
}

fn reduce(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.operand(call, 0)?;
    let ty = cx.ty(id);
    let Some(over) = call.named.get("over") else {
        return Err(cx.fail(errors::wrong_arguments(
            call.span,
            builtin.name,
            builtin.signature,
        )));
    };
    let axis = cx.axis(over, &ty)?;
    let keep = match call.named.get("keep") {
        Some(expr) => cx.condition(expr)?.unwrap_or(false),
        None => false,
    };
    let function = match builtin.name {
        "sum" => Reduce::Sum,
        "mean" => Reduce::Mean,
        "norm" => Reduce::Norm,
        other => unreachable!("`{other}` is in the table of reductions without an operation"),
    };
    let Some(mask) = cx.mask(call)? else {
        return Ok(Value::Term(cx.reduce(function, id, axis, keep, call.span)?));
    };
    if axis != Axis::Tokens || function == Reduce::Norm {
        return Err(cx.fail(errors::wrong_arguments(
            call.span,
            builtin.name,
            "mean(x, over = tokens, mask = mask)",
        )));
    }
    let masked = cx.elementwise(Binary::Multiply, id, mask, call.span)?;
    let total = cx.reduce(Reduce::Sum, masked, axis, keep, call.span)?;
    if function == Reduce::Sum {
        return Ok(Value::Term(total));
    }
    let count = cx.reduce(Reduce::Sum, mask, axis, keep, call.span)?;
    let mean = divide_by_count(cx, total, count, call.span)?;
    Ok(Value::Term(mean))
}

/// A row without any counted token divides by 1, not by 0.
fn divide_by_count(cx: &mut Eval<'_>, total: TermId, count: TermId, span: Span) -> Result<TermId> {
    let one = cx.number_term(1.0, span)?;
    let count = cx.elementwise(Binary::Max, count, one, span)?;
    cx.elementwise(Binary::Divide, total, count, span)
}

fn running_mean(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.over_tokens(call)?;
    let ty = cx.ty(id);
    let mask = cx.mask(call)?;
    let (values, count) = match mask {
        Some(mask) => {
            let masked = cx.elementwise(Binary::Multiply, id, mask, call.span)?;
            let ty = cx.ty(mask);
            (
                masked,
                cx.term(TermKind::CumulativeSum(mask), ty, call.span)?,
            )
        }
        None => {
            let positions = TermType::of(Lead::Full, [Dim::from(1)]);
            (id, cx.term(TermKind::Positions, positions, call.span)?)
        }
    };
    let total = cx.term(TermKind::CumulativeSum(values), ty, call.span)?;
    let mean = match mask {
        Some(_) => divide_by_count(cx, total, count, call.span)?,
        None => cx.elementwise(Binary::Divide, total, count, call.span)?,
    };
    Ok(Value::Term(mean))
}

/// With a mask: the last token that counts, wherever the padding stands.
fn last(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.over_tokens(call)?;
    let Some(mask) = cx.mask(call)? else {
        let mut ty = cx.ty(id);
        ty.lead = Lead::Pooled;
        return Ok(Value::Term(cx.term(
            TermKind::LastToken(id),
            ty,
            call.span,
        )?));
    };
    let ty = cx.ty(mask);
    let seen = cx.term(TermKind::CumulativeSum(mask), ty.clone(), call.span)?;
    let total = cx.reduce(Reduce::Sum, mask, Axis::Tokens, false, call.span)?;
    let complete = cx.term(TermKind::Equal(seen, total), ty, call.span)?;
    let chosen = cx.elementwise(Binary::Multiply, complete, mask, call.span)?;
    let picked = cx.elementwise(Binary::Multiply, id, chosen, call.span)?;
    Ok(Value::Term(cx.reduce(
        Reduce::Sum,
        picked,
        Axis::Tokens,
        false,
        call.span,
    )?))
}

fn cumsum(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.over_tokens(call)?;
    let ty = cx.ty(id);
    Ok(Value::Term(cx.term(
        TermKind::CumulativeSum(id),
        ty,
        call.span,
    )?))
}

fn softmax(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.operand(call, 0)?;
    let ty = cx.ty(id);
    if ty.dims.is_empty() {
        return Err(cx.fail(errors::wrong_type(
            call.span,
            "a tensor with at least one dim",
            &format!("{ty}"),
        )));
    }
    Ok(Value::Term(cx.term(
        TermKind::Softmax(id),
        ty,
        call.span,
    )?))
}

fn reshape(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.operand(call, 0)?;
    let ty = cx.ty(id);
    let shape = cx.expr(call.positional[1])?;
    let Value::List(items) = shape else {
        return Err(cx.fail(errors::wrong_arguments(
            call.span,
            "reshape",
            builtin.signature,
        )));
    };
    let dims: Result<Vec<Dim>> = items
        .iter()
        .map(|item| cx.as_size(item, call.positional[1].span))
        .collect();
    let wanted = TermType {
        lead: ty.lead,
        dims: dims?,
    };
    let product = |dims: &[Dim]| dims.iter().fold(Dim::from(1), |p, d| p * d.clone());
    if product(&ty.dims).compare(&product(&wanted.dims)) != crate::ty::Proof::Equal {
        let (operand, target) = (call.positional[0].span, call.positional[1].span);
        return Err(cx.fail(errors::shapes_do_not_fit(
            call.span,
            "reshape",
            (operand, &ty),
            (target, &wanted),
        )));
    }
    Ok(Value::Term(cx.term(
        TermKind::Reshape(id),
        wanted,
        call.span,
    )?))
}

fn concat(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let Value::List(items) = cx.expr(call.positional[0])? else {
        return Err(cx.fail(errors::wrong_arguments(
            call.span,
            "concat",
            builtin.signature,
        )));
    };
    let mut operands = Vec::new();
    for item in items {
        operands.push(cx.as_term(item, call.positional[0].span)?);
    }
    let Some(first) = operands.first() else {
        return Err(cx.fail(errors::wrong_arguments(
            call.span,
            "concat",
            builtin.signature,
        )));
    };
    let mut ty = cx.ty(*first);
    let axis = match call.named.get("axis") {
        Some(expr) => cx.axis(expr, &ty)?,
        None => Axis::Dim(0),
    };
    let Axis::Dim(axis) = axis else {
        return Err(cx.fail(errors::wrong_arguments(
            call.span,
            "concat",
            builtin.signature,
        )));
    };
    if ty.dims.is_empty() {
        return Err(cx.fail(errors::wrong_type(
            call.span,
            "tensors with at least one dim",
            &format!("{ty}"),
        )));
    }
    for operand in &operands[1..] {
        let other = cx.ty(*operand);
        let fits = other.lead == ty.lead
            && other.dims.len() == ty.dims.len()
            && (0..ty.dims.len()).all(|i| i == axis || ty.dims[i] == other.dims[i]);
        if !fits {
            let (a, b) = (cx.span_of(*first), cx.span_of(*operand));
            return Err(cx.fail(errors::shapes_do_not_fit(
                call.span,
                "concat",
                (a, &ty),
                (b, &other),
            )));
        }
        ty.dims[axis] = ty.dims[axis].clone() + other.dims[axis].clone();
    }
    Ok(Value::Term(cx.term(
        TermKind::Concat { axis, operands },
        ty,
        call.span,
    )?))
}

fn stop_gradient(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.operand(call, 0)?;
    let ty = cx.ty(id);
    Ok(Value::Term(cx.term(
        TermKind::StopGradient(id),
        ty,
        call.span,
    )?))
}

fn dropout(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.operand(call, 0)?;
    let Some(expr) = call.named.get("p") else {
        return Err(cx.fail(errors::wrong_arguments(
            call.span,
            "dropout",
            builtin.signature,
        )));
    };
    let p = cx.expr(expr)?;
    let Some(p) = p.number().flatten() else {
        return Err(cx.fail(errors::wrong_type(expr.span, "a probability", p.describe())));
    };
    if p == 0.0 {
        return Ok(Value::Term(id));
    }
    let ty = cx.ty(id);
    Ok(Value::Term(cx.term(
        TermKind::Dropout(id, p),
        ty,
        call.span,
    )?))
}

fn base(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let input = cx.operand(call, 0)?;
    let wanted = cx.facts.input_type();
    let ty = cx.ty(input);
    if ty != wanted {
        let span = call.positional[0].span;
        return Err(cx.fail(errors::wrong_type(
            span,
            &format!("the module's input {wanted}"),
            &format!("{ty}"),
        )));
    }
    let weight_type = cx.facts.weight_type();
    let weight = replacement(cx, call, "weight", &weight_type)?;
    let bias_type = TermType::of(Lead::None, [cx.facts.output.clone()]);
    let bias = replacement(cx, call, "bias", &bias_type)?;
    let result = TermType::of(Lead::Full, [cx.facts.output.clone()]);
    Ok(Value::Term(cx.term(
        TermKind::Base {
            input,
            weight,
            bias,
        },
        result,
        call.span,
    )?))
}

fn replacement(
    cx: &mut Eval<'_>,
    call: &Call<'_>,
    name: &'static str,
    wanted: &TermType,
) -> Result<Option<TermId>> {
    let Some(expr) = call.named.get(name) else {
        return Ok(None);
    };
    let value = cx.expr(expr)?;
    let id = cx.as_term(value, expr.span)?;
    let ty = cx.ty(id);
    if ty != *wanted {
        return Err(cx.fail(errors::wrong_type(
            expr.span,
            &format!("a {name} {wanted}"),
            &format!("{ty}"),
        )));
    }
    Ok(Some(id))
}

/// The largest size over all sites of the `adapt` statement.
fn largest(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let value = cx.expr(call.positional[0])?;
    match value {
        Value::Int(dim) if dim == cx.facts.input && is_name(call.positional[0], "in") => {
            Ok(Value::Int(cx.facts.largest_input.clone()))
        }
        Value::Int(dim) if dim == cx.facts.output && is_name(call.positional[0], "out") => {
            Ok(Value::Int(cx.facts.largest_output.clone()))
        }
        _ => Err(cx.fail(errors::wrong_arguments(
            call.span,
            "largest",
            builtin.signature,
        ))),
    }
}

fn is_name(expr: &Expr, name: &str) -> bool {
    matches!(&expr.kind, crate::syntax::ast::ExprKind::Name(found) if found == name)
}
