//! The functions of the language: one table, and a file for every kind of function.

mod axes;
mod beside;
mod blocks;
mod elementwise;
mod factors;
mod hooks;
mod made;
mod operands;
mod passes;
mod site;
mod tensors;
mod tokens;
mod user;

use super::errors;
use super::eval::Eval;
use super::initialiser;
use super::scalar::Value;
use crate::diag::{Reported, Span};
use crate::syntax::ast::{Argument, Expr, Ident};
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
    unary("floor"),
    unary("sign"),
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
        evaluate: elementwise::extremum,
    },
    Builtin {
        name: "max",
        signature: "max(a, b)",
        positional: 2,
        named: &[],
        evaluate: elementwise::extremum,
    },
    reduction(
        "sum",
        "sum(x, over = tokens | batch | features | 0 | 1 | -1, mask = …, keep = false)",
    ),
    reduction(
        "mean",
        "mean(x, over = tokens | batch | features | 0 | 1 | -1, mask = …, keep = false)",
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
        evaluate: tokens::running_mean,
    },
    Builtin {
        name: "last",
        signature: "last(x, over = tokens, mask = …)",
        positional: 1,
        named: &["over", "mask"],
        evaluate: tokens::last,
    },
    Builtin {
        name: "cumsum",
        signature: "cumsum(x, over = tokens)",
        positional: 1,
        named: &["over"],
        evaluate: tokens::cumsum,
    },
    Builtin {
        name: "prepend",
        signature: "prepend(rows, y)",
        positional: 2,
        named: &[],
        evaluate: tokens::prepend,
    },
    Builtin {
        name: "since_last",
        signature: "since_last([a, b], mask = mask)",
        positional: 1,
        named: &["mask"],
        evaluate: tokens::since_last,
    },
    Builtin {
        name: "softmax",
        signature: "softmax(x)",
        positional: 1,
        named: &[],
        evaluate: tensors::softmax,
    },
    Builtin {
        name: "reshape",
        signature: "reshape(x, [a, b])",
        positional: 2,
        named: &[],
        evaluate: tensors::reshape,
    },
    Builtin {
        name: "concat",
        signature: "concat([a, b], axis = 0)",
        positional: 1,
        named: &["axis"],
        evaluate: tensors::concat,
    },
    Builtin {
        name: "permute",
        signature: "permute(x, [1, 0, 2])",
        positional: 2,
        named: &[],
        evaluate: axes::permute,
    },
    Builtin {
        name: "einsum",
        signature: "einsum(\"ab, bc -> ac\", A, B)",
        positional: ANY,
        named: &[],
        evaluate: axes::einsum,
    },
    Builtin {
        name: "gather",
        signature: "gather(table, positions, axis = 0)",
        positional: 2,
        named: &["axis"],
        evaluate: axes::gather,
    },
    Builtin {
        name: "scatter",
        signature: "scatter(values, positions, [a, b])",
        positional: 3,
        named: &[],
        evaluate: axes::scatter,
    },
    Builtin {
        name: "pad",
        signature: "pad(x, axis = -1, before = 0, after = 0)",
        positional: 1,
        named: &["axis", "before", "after"],
        evaluate: axes::pad,
    },
    Builtin {
        name: "top",
        signature: "top(x, k)",
        positional: 2,
        named: &[],
        evaluate: axes::top,
    },
    Builtin {
        name: "top_at",
        signature: "top_at(x, k)",
        positional: 2,
        named: &[],
        evaluate: axes::top,
    },
    Builtin {
        name: "iota",
        signature: "iota(n)",
        positional: 1,
        named: &[],
        evaluate: made::iota,
    },
    Builtin {
        name: "vector",
        signature: "vector([a, b])",
        positional: 1,
        named: &[],
        evaluate: made::vector,
    },
    Builtin {
        name: "eye",
        signature: "eye(n)",
        positional: 1,
        named: &[],
        evaluate: made::eye,
    },
    Builtin {
        name: "kron",
        signature: "kron(A, B)",
        positional: 2,
        named: &[],
        evaluate: blocks::kron,
    },
    Builtin {
        name: "block_diagonal",
        signature: "block_diagonal(blocks)",
        positional: 1,
        named: &[],
        evaluate: blocks::block_diagonal,
    },
    Builtin {
        name: "circulant",
        signature: "circulant(c)",
        positional: 1,
        named: &[],
        evaluate: blocks::circulant,
    },
    Builtin {
        name: "skew",
        signature: "skew(v, n)",
        positional: 2,
        named: &[],
        evaluate: blocks::skew,
    },
    Builtin {
        name: "inverse",
        signature: "inverse(A)",
        positional: 1,
        named: &[],
        evaluate: blocks::inverse,
    },
    Builtin {
        name: "left_singular",
        signature: "left_singular(A, k)",
        positional: 2,
        named: &[],
        evaluate: factors::factor,
    },
    Builtin {
        name: "singular_values",
        signature: "singular_values(A, k)",
        positional: 2,
        named: &[],
        evaluate: factors::factor,
    },
    Builtin {
        name: "right_singular",
        signature: "right_singular(A, k)",
        positional: 2,
        named: &[],
        evaluate: factors::factor,
    },
    Builtin {
        name: "qr_q",
        signature: "qr_q(A)",
        positional: 1,
        named: &[],
        evaluate: factors::factor,
    },
    Builtin {
        name: "qr_r",
        signature: "qr_r(A)",
        positional: 1,
        named: &[],
        evaluate: factors::factor,
    },
    Builtin {
        name: "clusters",
        signature: "clusters(A, k)",
        positional: 2,
        named: &[],
        evaluate: factors::factor,
    },
    Builtin {
        name: "top_places",
        signature: "top_places(A, k)",
        positional: 2,
        named: &[],
        evaluate: factors::factor,
    },
    Builtin {
        name: "stop_gradient",
        signature: "stop_gradient(x)",
        positional: 1,
        named: &[],
        evaluate: tensors::stop_gradient,
    },
    Builtin {
        name: "dropout",
        signature: "dropout(x, p = 0.1)",
        positional: 1,
        named: &["p"],
        evaluate: tensors::dropout,
    },
    Builtin {
        name: "noise",
        signature: "noise(x) or noise([a, b])",
        positional: 1,
        named: &[],
        evaluate: tensors::noise,
    },
    Builtin {
        name: "before",
        signature: "before(P)",
        positional: 1,
        named: &[],
        evaluate: hooks::before,
    },
    Builtin {
        name: "everywhere",
        signature: "everywhere(x)",
        positional: 1,
        named: &[],
        evaluate: hooks::everywhere,
    },
    Builtin {
        name: "gradient",
        signature: "gradient(P)",
        positional: 1,
        named: &[],
        evaluate: hooks::gradient,
    },
    Builtin {
        name: "base",
        signature: "base(x, weight = …, bias = …)",
        positional: 1,
        named: &["weight", "bias"],
        evaluate: site::base,
    },
    Builtin {
        name: "query",
        signature: "query()",
        positional: 0,
        named: &[],
        evaluate: beside::query,
    },
    Builtin {
        name: "apply",
        signature: "apply(\".k_proj\", x)",
        positional: 2,
        named: &[],
        evaluate: beside::apply,
    },
    Builtin {
        name: "first_pass",
        signature: "first_pass(\"model.norm\")",
        positional: 1,
        named: &[],
        evaluate: passes::first_pass,
    },
    Builtin {
        name: "features_of",
        signature: "features_of(\"model.norm\")",
        positional: 1,
        named: &[],
        evaluate: beside::features_of,
    },
    Builtin {
        name: "inputs_of",
        signature: "inputs_of(\".k_proj\")",
        positional: 1,
        named: &[],
        evaluate: beside::features_of,
    },
    Builtin {
        name: "ceil_div",
        signature: "ceil_div(a, b)",
        positional: 2,
        named: &[],
        evaluate: site::ceil_div,
    },
    Builtin {
        name: "divisor",
        signature: "divisor(n, most = …)",
        positional: 1,
        named: &["most"],
        evaluate: site::divisor,
    },
    Builtin {
        name: "whole",
        signature: "whole(x)",
        positional: 1,
        named: &[],
        evaluate: site::whole,
    },
    Builtin {
        name: "length",
        signature: "length(list)",
        positional: 1,
        named: &[],
        evaluate: site::length,
    },
    Builtin {
        name: "total",
        signature: "total(in) or total(out)",
        positional: 1,
        named: &[],
        evaluate: site::largest,
    },
    Builtin {
        name: "largest",
        signature: "largest(in) or largest(out)",
        positional: 1,
        named: &[],
        evaluate: site::largest,
    },
];

/// At least one positional argument.
const ANY: usize = usize::MAX;

const fn unary(name: &'static str) -> Builtin {
    Builtin {
        name,
        signature: "f(x)",
        positional: 1,
        named: &[],
        evaluate: elementwise::elementwise,
    }
}

const fn reduction(name: &'static str, signature: &'static str) -> Builtin {
    Builtin {
        name,
        signature,
        positional: 1,
        named: &["over", "mask", "keep"],
        evaluate: tokens::reduce,
    }
}

/// How the functions are called, such as `reshape(x, [a, b])`.
pub fn functions() -> impl Iterator<Item = String> {
    BUILTINS.iter().map(Builtin::shown)
}

impl Builtin {
    fn shown(&self) -> String {
        match self.signature {
            "f(x)" => format!("{}(x)", self.name),
            signature => signature.to_owned(),
        }
    }
}

/// Evaluates a call of a builtin, a function of the method or its file, or another method.
pub(in crate::hir) fn call(
    cx: &mut Eval<'_>,
    callee: &Ident,
    arguments: &[Argument],
    span: Span,
) -> Result<Value> {
    if let Some(function) = user::find_function(cx, &callee.node) {
        return user::call_function(cx, &function, arguments, span);
    }
    if let Some(builtin) = BUILTINS.iter().find(|builtin| builtin.name == callee.node) {
        let Some(call) = fit(builtin, arguments, span) else {
            let signature = builtin.shown();
            return Err(cx.fail(errors::wrong_arguments(span, builtin.name, &signature)));
        };
        return (builtin.evaluate)(cx, builtin, &call);
    }
    if let Some(id) = cx.method.visible.get(&callee.node).copied() {
        return user::call_method(cx, id, callee, arguments, span);
    }
    if initialiser::is_initialiser(&callee.node) {
        return initialiser::drawn(cx, &callee.node, arguments, span);
    }
    let known: Vec<String> = BUILTINS
        .iter()
        .map(|builtin| builtin.name.to_owned())
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
    let fits = match builtin.positional {
        ANY => !call.positional.is_empty(),
        count => call.positional.len() == count,
    };
    fits.then_some(call)
}
